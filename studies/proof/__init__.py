"""Spaces that were enumerated whole, and what the search is worth on them."""
