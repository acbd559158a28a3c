"""`cosim emit`, `cosim measure`, `cosim board serve`: write a project, then run it on its board.

It does not search; give it a design file. With --check it also runs the C simulation. `measure` is
the project's own `board/run.py` under another name; it needs the Python of cosim, which is newer
than that of the boards' images, and those run the project's script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from hw.csim.simulate import CSimReport
from studies.commands.options import (
    BoardName,
    Design,
    Json,
    OutFolder,
    Workload,
    reads_onnx,
)
from studies.evaluation import inputs
from studies.evaluation.emission import check_emittable, check_emitted, emit_for
from studies.plain.errors import UserError
from studies.plain.files import check_writables, write_json
from studies.plain.records import encode
from studies.plain.terminal import terminal


class Emission(TypedDict):
    """What `cosim emit --json` writes. `check`: None without `--check`."""

    files: int
    folder: str
    workload: str
    overlay: str
    check: CSimReport | None


@reads_onnx
def emit_design(
    workload: Workload,
    design: Design = "default",
    board: BoardName = "pynq-z1",
    out: OutFolder = Path("out/emit"),
    check: Annotated[bool, typer.Option(
        help="Compile the C++ with g++, run one whole frame on it, and compare every value with "
        "the reference.")] = False,
    json: Json = None,
    force: Annotated[bool, typer.Option(
        help="Overwrite files in the folder that were changed or that no emission wrote. What is "
        "not in the way stays in any case.")] = False,
    rtl: Annotated[bool, typer.Option(
        help="Also write the IP as Verilog, with cycle counters and the same registers.")] = False,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Write the accelerator as HLS C++ for this network, ready for the vendor's tools.

    Example: cosim emit agc-w64 --design out/explore/agc-w64-pynq-z1/best.toml --check
    """
    graph, note = inputs.network(workload, reading)
    overlay, on = inputs.design(design), inputs.board(board)
    check_emittable(on, out)
    check_writables(json)
    console = terminal()
    if note:
        console.print(note)
    given = inputs.first_input(workload, graph, reading)
    emitted = emit_for(graph, overlay, on, out, rtl, force, given)
    console.print(f"wrote {emitted.files} files to {out} for {graph.name} on {overlay.name}")
    figures: Emission = {"files": emitted.files, "folder": str(out), "workload": graph.name,
               "overlay": overlay.name, "check": None}
    if check:
        found = check_emitted(graph, overlay, on, given)
        figures["check"] = encode(found)
        console.print(f"C simulation: {found.values_compared} values of {found.tensors} tensors "
                      f"compared, {found.values_differing} differ")
        if json is not None:
            write_json(json, figures)
        if found.values_differing:
            raise UserError(f"the C simulation differs from the reference in {found.where}.")
    elif json is not None:
        write_json(json, figures)


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
