"""`cosim boards` and `cosim board check`: what boards there are, and whether a file is one.

It does not change boards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from arch_models.board import Board, board_names, load_board
from studies.commands.options import Json
from studies.errors import UserError
from studies.files import check_writable, write_json


def _row(board: Board) -> dict[str, object]:
    part = board.part
    guesses = sum(item.status == "guess" for item in board.coefficients)
    return {"name": board.name, "title": board.title, "dsp": part.dsp, "bram36": part.bram36,
            "lut": part.lut, "ff": part.ff, "ports": [port.name for port in board.ports],
            "ddr_peak_mb_per_s": round(board.ddr.peak_bytes_per_s / 1e6),
            "numbers": len(board.coefficients), "of_them_guesses": guesses}


def boards(json: Json = None) -> None:
    """List the boards that ship, with what their fabric and memory offer."""
    if json is not None:
        check_writable(json)
    rows = [_row(load_board(name)) for name in board_names()]
    table = Table(title="Boards", title_justify="left")
    for column in ("name", "title", "DSP", "BRAM36", "LUT", "FF", "ports", "DRAM peak, MB/s",
                   "numbers (guesses)"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(str(row["name"]), str(row["title"]), str(row["dsp"]), str(row["bram36"]),
                      str(row["lut"]), str(row["ff"]), " ".join(row["ports"]),  # type: ignore[arg-type]
                      str(row["ddr_peak_mb_per_s"]),
                      f"{row['numbers']} ({row['of_them_guesses']})")
    Console().print(table)
    if json is not None:
        write_json(json, rows)


def check_board(
    file: Annotated[Path, typer.Argument(help="A board file, .toml; see the shipped ones.")],
) -> None:
    """Read a board file of your own and say what is wrong with it, or that it is fine."""
    if file.suffix != ".toml":
        raise UserError(f"{str(file)!r}: a board file ends in .toml.")
    board = load_board(file)
    console = Console()
    console.print(f"{file}: fine. {board.title}: {board.part.dsp} DSP, {board.part.bram36} "
                  f"BRAM36, ports {', '.join(port.name for port in board.ports)}, "
                  f"{len(board.coefficients)} numbers with source and status.", soft_wrap=True)
