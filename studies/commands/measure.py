"""`cosim measure` and `cosim benchmark`: time a project on its board, and this program here.

They predict nothing. `measure` is the project's own `board/run.py` under another name; it needs the
Python of cosim, which is newer than that of the boards' images, and those run the project's script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.commands.options import Json
from studies.plain.errors import UserError
from studies.plain.files import check_writable


def measure(
    project: Annotated[Path, typer.Argument(help="The emitted project's folder.")],
    bitstream: Annotated[Path, typer.Option(help="The .bit file, its .hwh beside it.")],
    out: Annotated[Path, typer.Option(
        "--out", "-o", help="The measurement file to write.")] = Path("measurement.json"),
    repeats: Annotated[int, typer.Option(help="Timed frames.")] = 10,
    timeout: Annotated[float, typer.Option(help="Seconds for one start.")] = 30.0,
    power: Annotated[Path | None, typer.Option(
        help="A meter's CSV: unix_seconds,total_w at the plug, or rails (vccint_w, ps_w, ddr_w); "
             "`cosim calibrate --power` makes a board file of it.", show_default=False)] = None,
) -> None:
    """Run frames on this board, time them, read the counters and compare the outputs.

    On a board's own image, whose Python is older: python3 board/run.py in the project's folder.

    Example: cosim measure out/emit --bitstream out/emit/build/overlay.bit
    """
    from hw.board.run import main

    given = ["--project", str(project), "--bitstream", str(bitstream), "--output", str(out),
             "--repeats", str(repeats), "--timeout", str(timeout)]
    code = main([*given, *(["--power", str(power)] if power is not None else [])])
    if code:
        raise typer.Exit(code)


def benchmark_command(
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each measurement.")] = 5,
    peer: Annotated[bool, typer.Option(
        help="Also install and time the public simulator SCALE-Sim v3 (needs the network).",
    )] = False,
    json: Json = None,
) -> None:
    """Measure the speed of the executors and of design evaluations on this machine."""
    from studies.speed.benchmark import run_benchmark

    if json is not None:
        check_writable(json)
    run_benchmark(runs, peer, json)


def serve_board(
    project: Annotated[Path, typer.Argument(help="A project emitted with --rtl.")],
    address: Annotated[str, typer.Option(help="Where to listen.",
                                         show_default="127.0.0.1:7967")] = "",
) -> None:
    """Stand in a board's place: the compiled IP of a project, for pynq's remote devices.

    Until Ctrl-C. Needs the extras rtl and scale. Example: cosim board serve out/emit
    """
    from hw.board.emitted import DriverError
    from hw.interface.configuration import EmissionError
    from hw.interface.descriptors import DescriptorError
    from hw.pynq import server
    from hw.rtl_sim.model import RtlError

    try:
        server.serve(project, address or server.LOCAL, lambda text: print(text, flush=True))
    except (DescriptorError, DriverError, EmissionError, RtlError) as error:
        raise UserError(str(error)) from error
