"""Scripts that an emitted project carries to the board."""
