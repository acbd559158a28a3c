"""Proofs that a whole design space holds nothing better, and their certificates."""
