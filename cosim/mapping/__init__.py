"""Which engine runs a layer, on what tiles, and how tensors lie in memory."""
