"""Spaces, searches, fronts, and where a search is kept."""
