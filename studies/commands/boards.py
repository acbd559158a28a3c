"""`cosim boards` and `cosim board check`: what boards there are, and whether a file is one.

It does not change boards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arch_models.board import Board, board_names, load_board, read_board
from arch_models.boards.rules import problems
from studies.commands.options import Json
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_json
from studies.plain.terminal import terminal
from studies.report import tables


def _row(board: Board) -> dict[str, object]:
    part = board.part
    guesses = sum(item.status == "guess" for item in board.coefficients)
    return {"name": board.name, "title": board.title, "dsp": part.dsp, "bram36": part.bram36,
            "lut": part.lut, "ff": part.ff, "ports": [port.name for port in board.ports],
            "ddr_bits": board.ddr.data_bus_bits,
            "ddr_mt_per_s": round(2 * board.ddr.clock_hz / 1e6),
            "ddr_peak_mb_per_s": round(board.ddr.peak_bytes_per_s / 1e6),
            "numbers": len(board.coefficients), "of_them_guesses": guesses,
            "unchecked": list(board.unchecked)}


def boards(json: Json = None) -> None:
    """List the boards that ship: fabric, ports, DRAM peak, and how many numbers are guesses."""
    if json is not None:
        check_writable(json)
    rows = [_row(load_board(name)) for name in board_names()]
    if json is not None:
        write_json(json, rows)
    table = tables.grid("Boards", ("name", "DSP", "BRAM36", "LUT", "ports", "bits", "MT/s",
                                   "MB/s", "guesses", "unchecked"), ("ports", "unchecked"))
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "dsp", "bram36", "lut")),
                      " ".join(row["ports"]),  # type: ignore[arg-type]
                      *(str(row[key]) for key in ("ddr_bits", "ddr_mt_per_s",
                                                  "ddr_peak_mb_per_s")),
                      f"{row['of_them_guesses']} of {row['numbers']}",
                      ", ".join(row["unchecked"]) or "-")  # type: ignore[arg-type]
    terminal().print(table)


def check_board(
    file: Annotated[Path, typer.Argument(help="A board file, .toml; see the shipped ones.")],
) -> None:
    """Read a board file of your own and list all that is wrong with it, or say that it is fine.

    Example: cosim board check my-board.toml
    """
    if file.suffix != ".toml":
        raise UserError(f"{str(file)!r}: a board file ends in .toml.")
    board = read_board(file)
    wrong = problems(board)
    if wrong:
        lines = "\n".join(f"  {item}" for item in wrong)
        raise UserError(f"{file}: {len(wrong)} problem{'s' * (len(wrong) > 1)}\n{lines}")
    ddr = board.ddr
    guesses = sum(item.status == "guess" for item in board.coefficients)
    terminal().print(
        f"{file}: fine. {board.title}: {board.part.dsp} DSP, {board.part.bram36} BRAM36; ports "
        f"{', '.join(port.name for port in board.ports)}; DRAM {ddr.data_bus_bits} bits at "
        f"{2 * ddr.clock_hz / 1e6:.0f} MT/s, {ddr.size_bytes >> 20} MiB; "
        f"{len(board.coefficients)} numbers with source and status, {guesses} of them guesses"
        + (f"; unchecked: {', '.join(board.unchecked)}" if board.unchecked else ""),
        soft_wrap=True, highlight=False)
