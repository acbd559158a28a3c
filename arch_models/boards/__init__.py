"""Boards as values and as files: what a board is, what its numbers must hold, the ones that ship.

It reads no file; `arch_models.board` does.
"""
