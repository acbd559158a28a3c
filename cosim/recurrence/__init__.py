"""The flat memory's short cut: a program as a max-plus recurrence."""
