"""What hardware and driver agree on: descriptors, registers, configuration, vectors."""
