"""The outside of the IP: AXI ports, registers, the descriptor feed. It computes nothing."""
