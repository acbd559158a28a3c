"""The best designs for both decoders, their quality, and other devices beside them."""
