"""Programs, their lowering and their two executors."""
