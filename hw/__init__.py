"""Emission of hardware, its simulation, and the board."""
