"""`cosim boards` and `cosim board check`: what boards there are, and whether a file is one.

It does not change boards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arch_models.board import Board, board_names, load_board
from studies.commands.options import Json
from studies.errors import UserError
from studies.files import check_writable, write_json
from studies.report import tables


def _row(board: Board) -> dict[str, object]:
    part = board.part
    guesses = sum(item.status == "guess" for item in board.coefficients)
    return {"name": board.name, "title": board.title, "dsp": part.dsp, "bram36": part.bram36,
            "lut": part.lut, "ff": part.ff, "ports": [port.name for port in board.ports],
            "ddr_peak_mb_per_s": round(board.ddr.peak_bytes_per_s / 1e6),
            "numbers": len(board.coefficients), "of_them_guesses": guesses}


def boards(json: Json = None) -> None:
    """List the boards that ship: fabric, ports, DRAM peak, and how many numbers are guesses."""
    if json is not None:
        check_writable(json)
    rows = [_row(load_board(name)) for name in board_names()]
    table = tables.grid("Boards", ("name", "DSP", "BRAM36", "LUT", "FF", "ports", "MB/s",
                                   "numbers", "guesses"), ("ports",))
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "dsp", "bram36", "lut", "ff")),
                      " ".join(row["ports"]),  # type: ignore[arg-type]
                      *(str(row[key]) for key in ("ddr_peak_mb_per_s", "numbers",
                                                  "of_them_guesses")))
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
