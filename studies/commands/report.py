"""`cosim report`: pictures and a page from results that `cosim simulate --json` wrote.

It does not simulate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.commands.options import OutFolder
from studies.evaluation import inputs
from studies.evaluation.stored import load_evaluation
from studies.plain.terminal import terminal
from studies.report import tables
from studies.report.page import write_report


def report(
    results: Annotated[list[Path], typer.Argument(
        help="Result files (.json) of `cosim simulate --json`; the last one is looked into, the "
        "others stand beside it.")],
    out: OutFolder = Path("out/report"),
) -> None:
    """Draw roofline, time and energy of each layer, and the energy split, with a page (HTML).

    Example: cosim report out/default.json out/best.json --out out/report
    """
    loaded = [(path, load_evaluation(path)) for path in results]
    designs = [item.overlay for _, item in loaded]
    items = {item.overlay if designs.count(item.overlay) == 1 else f"{item.overlay} ({path.stem})":
             item for path, item in loaded}
    last = list(items.values())[-1]
    board = inputs.board(last.board)
    written = write_report(items, board.ddr.peak_bytes_per_s, out)
    console = terminal()
    console.print(tables.summary(list(items.values()), list(items)))
    console.print(f"wrote {written[0]} and {len(written) - 1} pictures beside it")
