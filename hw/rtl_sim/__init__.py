"""The RTL under Verilator: whole programs, tiles, and a board in its place."""
