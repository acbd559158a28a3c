"""Finds the tables that others measured: carried with the project, or beside it.

It reads none of them. A table that is nowhere is said to be absent by whoever asked for it.
"""

from __future__ import annotations

from pathlib import Path

CARRIED = Path(__file__).parents[1] / "data"
#: The larger tables lie beside the repository, where they are present at all.
SHARED = Path(__file__).resolve().parents[3] / "shared" / "truth"


def truth_path(name: str) -> Path | None:
    """A table by file name: carried with the project, or beside it; None if it is in neither."""
    for folder in (CARRIED, SHARED):
        if (folder / name).is_file():
            return folder / name
    return None
