"""Closed-form cost models of the engines, one file an engine."""
