"""Trains, fine-tunes, quantizes and measures the Unicorn decoder."""
