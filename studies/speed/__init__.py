"""Benchmarks of this program, and of a peer in the same run."""
