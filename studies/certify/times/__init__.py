"""What the layers of a network take at the least: each whatever its tiles, and all in turn."""
