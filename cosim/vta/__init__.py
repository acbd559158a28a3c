"""The VTA accelerator: its schedules, instructions and their lowering."""
