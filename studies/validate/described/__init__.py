"""Accelerators of the literature, described and held against their published figures."""
