"""`cosim emit`: write a design as HLS C++ with descriptors, weights and a test bench.

It does not search; give it a design file. With --check it also runs the C simulation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
from studies.plain.files import check_writable, write_json
from studies.plain.records import encode
from studies.plain.terminal import terminal


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
    if json is not None:
        check_writable(json)
    console = terminal()
    if note:
        console.print(note)
    given = inputs.first_input(workload, graph, reading)
    emitted = emit_for(graph, overlay, on, out, rtl, force, given)
    console.print(f"wrote {emitted.files} files to {out} for {graph.name} on {overlay.name}")
    figures = {"files": emitted.files, "folder": str(out), "workload": graph.name,
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
