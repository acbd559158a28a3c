"""Accelerators, boards, engines and their costs, as values and data."""
