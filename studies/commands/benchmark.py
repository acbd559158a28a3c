"""`cosim benchmark`: how fast this program itself is on this machine (measured).

It measures no hardware; see `studies.speed.benchmark`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from studies.commands.options import Json
from studies.plain.files import check_writable
from studies.speed.benchmark import run_benchmark


def benchmark_command(
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each measurement.")] = 5,
    peer: Annotated[bool, typer.Option(
        help="Also install and time the public simulator SCALE-Sim v3 (needs the network).",
    )] = False,
    json: Json = None,
) -> None:
    """Measure the speed of the executors and of design evaluations on this machine."""
    if json is not None:
        check_writable(json)
    run_benchmark(runs, peer, json)
