"""Quantized networks, their integer arithmetic and their reference."""
