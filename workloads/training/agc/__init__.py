"""Trains, prunes, quantizes and measures the AGC decoder."""
