"""Which box is cut or closed next, and what became of those that were."""
