"""The AGC decoder: sizes, integer graph, torch module."""
