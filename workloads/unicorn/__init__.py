"""The Unicorn decoder: sizes, integer graph, torch module, sampler."""
