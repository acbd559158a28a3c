"""`cosim calibrate`: engine coefficients from a vendor's synthesis report.

It runs no vendor tool; see `studies.resources.calibrate` for what the numbers mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_text
from studies.resources.calibrate import backend_file, choose_loops, read_report


def calibrate(
    csynth: Annotated[Path, typer.Option(help="csynth.xml of a Vitis HLS solution.")],
    out: Annotated[Path, typer.Option(
        "--out", "-o", help="The coefficient file to write.")] = Path("out/vitis.toml"),
    loop: Annotated[list[str] | None, typer.Option(
        help="OPERATOR=FUNCTION/LOOP, where the function's name does not say it.",
        show_default=False)] = None,
) -> None:
    """Read II, depth and trip counts from a synthesis report into a file of coefficients.

    Name the file in a design (backend = "out/vitis.toml") to predict with it.

    Example: cosim calibrate --csynth build/solution/syn/report/csynth.xml --out vitis.toml
    """
    check_writable(out)
    chosen = {}
    for item in loop or []:
        operator, equals, label = item.partition("=")
        if not equals or not label:
            raise UserError(f"--loop is {item!r}, must be OPERATOR=FUNCTION/LOOP")
        chosen[operator] = label
    report = read_report(csynth)
    loops = choose_loops(report, chosen)
    write_text(out, backend_file(report, loops))
    Console().print(f"wrote {out}: {', '.join(loops)} from {len(report.loops)} pipelined loops of "
                    f"{report.top}", soft_wrap=True)
