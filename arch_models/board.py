"""Boards: TOML files in `boards/`, where every number carries a unit, a source and a status.

It reads and refuses; what a board is stands in `boards.values`, what must hold in `boards.rules`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from arch_models.boards.rules import problems
from arch_models.boards.values import (
    RATE_TOLERANCE_HZ,
    Board,
    BoardPort,
    Clocks,
    Ddr,
    Host,
    Part,
    PortKind,
    Power,
    SoftwareCosts,
)
from arch_models.fields import Coefficient, FieldError, build, nearest
from arch_models.files import read_toml

__all__ = ["BOARDS", "RATE_TOLERANCE_HZ", "Board", "BoardPort", "Clocks", "Ddr", "Host", "Part",
           "PortKind", "Power", "SoftwareCosts", "board_names", "load_board", "read_board"]

BOARDS = Path(__file__).parent / "boards"


def board_names() -> tuple[str, ...]:
    """Names of the boards that ship."""
    return tuple(sorted(path.stem.replace("_", "-") for path in BOARDS.glob("*.toml")))


def load_board(name: str | Path) -> Board:
    """A shipped board by name, or any board from a path that ends in `.toml`.

    Raises `FieldError` naming the nearest board or field.
    """
    text = str(name)
    if text.endswith(".toml"):
        path = Path(text)
    else:
        path = BOARDS / f"{text.replace('-', '_')}.toml"
        if not path.exists():
            raise FieldError(f"unknown board {text!r}; {nearest(text, board_names())}")
    board = read_board(path)
    wrong = problems(board)
    if wrong:
        more = f" ({len(wrong) - 1} more: `cosim board check` lists them)" if wrong[1:] else ""
        raise FieldError(f"{path}: {wrong[0]}{more}")
    return board


def read_board(path: str | Path) -> Board:
    """A board from a file, with its types checked and its numbers not (see `boards.rules`)."""
    table = read_toml(path)
    if "coefficients" in table:
        raise FieldError(f"{path}: unknown field 'coefficients'; every number carries its own")
    found: list[Coefficient] = []
    try:
        board = build(Board, table, "", found)
    except FieldError as error:
        raise FieldError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))
                         ) from None
    return replace(board, coefficients=tuple(found))
