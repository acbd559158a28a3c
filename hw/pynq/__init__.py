"""The simulated board behind the real pynq: its server, protocol and files."""
