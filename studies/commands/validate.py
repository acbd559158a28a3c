"""`cosim validate`: run a public check of the models and show predicted against reference.

It holds no checks; those are in `studies/validate`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from studies.commands.options import BoardName, Design, Json, MemoryModel, reads_onnx
from studies.evaluation.inputs import PLAIN, Reading, memory_model
from studies.plain.errors import UserError
from studies.plain.files import check_writable, check_writables, write_json
from studies.plain.records import encode

MOST_SEED, MOST_PROGRAMS = 2**32 - 1, 10**6


def memory(json: Json = None) -> None:
    """Check the ddr3 memory against the vendor's efficiencies and measured latencies."""
    from studies.validate import dram_commands
    from studies.validate import memory as study

    check_writables(json)
    found, absent = study.checks()
    commands = dram_commands.check_commands()
    if json is not None:
        write_json(json, study.as_json(found, absent, commands))
    print(study.report(found, absent))
    print("\n".join(dram_commands.told(commands)))
    if any(item.ok is False for item in found) or not all(item.as_known for item in commands):
        raise typer.Exit(1)


def streams(json: Json = None) -> None:
    """Check the ddr3 memory against kernels that stream vectors on a board with a 32-bit DRAM."""
    from studies.validate import streams as study

    check_writables(json)
    found = study.validate()
    if json is not None:
        write_json(json, encode(found))
    print("\n".join(study.lines(found)))


def vta_pynq(
    rows: Annotated[Path | None, typer.Option(
        help="A CSV file with the columns of the public tables; without it those tables.",
        show_default=False)] = None,
    config: Annotated[str | None, typer.Option(
        help="The array of every row: 1x16 or 4x8; without it the file's config column.",
        show_default=False)] = None,
    json: Json = None,
    plot: Annotated[Path | None, typer.Option(
        help="Draw predicted against measured into this PNG.", show_default=False)] = None,
) -> None:
    """Check the simulator against published measurements of the VTA accelerator on PYNQ."""
    from studies.validate import vta, vta_report

    for path, ending in ((json, ""), (plot, ".png")):
        if path is not None:
            check_writable(path, ending)
    found = vta.validate(rows, config)
    if json is not None:
        write_json(json, vta.as_json(found))
    vta_report.show(found)
    if plot is not None:
        vta_report.plot(found, plot)
    if not found.predictions:
        raise typer.Exit(1)


def fpga2015(json: Json = None) -> None:
    """Check cycles and times of the tiled accelerator of FPGA 2015 on AlexNet."""
    from studies.validate.described import fpga2015 as study

    _described(study, "FPGA 2015, 64x7, AlexNet on VC707 at 100 MHz, two sets a layer", json)


def pipecnn(json: Json = None) -> None:
    """Check the times of PipeCNN, described from its source, on two boards with AlexNet."""
    from studies.validate.described import pipecnn as study

    _described(study, "PipeCNN, AlexNet, an image", json)


def nvdla(json: Json = None) -> None:
    """Check cycles and traffic of NVDLA against its makers' performance sheet (estimates)."""
    from studies.validate.described import nvdla as study

    _described(study, "NVDLA, 1x1 layers of ResNet-50", json)


def nvdla_small(json: Json = None) -> None:
    """Check the times of NVDLA small, described from its source, on two systems."""
    from studies.validate.described import nvdla_small as study

    _described(study, "NVDLA small at 100 MHz, a frame", json)


def _described(study: ModuleType, title: str, json: Path | None) -> None:
    """Hold one described accelerator against what was published of it."""
    from studies.validate.described.layers import show_table

    check_writables(json)
    found = study.validate()
    if json is not None:
        write_json(json, encode(found))
    show_table(title, study.HEAD, study.table_rows(found))


def overlap(json: Json = None) -> None:
    """Check what load/compute overlap gains on VTA (2018), for two ways to choose schedules."""
    from studies.validate.overlap import show, validate

    check_writables(json)
    found = validate()
    if json is not None:
        write_json(json, encode(found))
    show(found)


def board(
    measured: Annotated[Path, typer.Option(help="A measurement file that the driver wrote.")],
    project: Annotated[Path, typer.Option(help="The emitted project it was measured on.")],
    memory: MemoryModel = "ddr3",
    json: Json = None,
    plot: Annotated[Path | None, typer.Option(
        help="Draw predicted against measured into this PNG.", show_default=False)] = None,
) -> None:
    """Compare what a board measured with what the simulator predicts, step by step."""
    from hw.board.measurement import MeasurementError
    from studies.validate import board as study

    for path, ending in ((json, ""), (plot, ".png")):
        if path is not None:
            check_writable(path, ending)
    try:
        found = study.validate_files(measured, project, memory_model(memory))
    except MeasurementError as error:
        raise UserError(str(error)) from error
    if json is not None:
        write_json(json, encode(found))
    print(study.report(found))
    if plot is not None:
        study.draw(found, plot)


@reads_onnx
def rtl(
    design: Annotated[str, typer.Option(help="A design file, or a shipped design.")] = "default",
    programs: Annotated[int, typer.Option(
        min=0, max=MOST_PROGRAMS, help="Random timed-only programs.")] = 200,
    tiles: Annotated[int, typer.Option(
        min=0, max=MOST_PROGRAMS, help="Random tiles through the design's engines.")] = 90,
    network: Annotated[str | None, typer.Option(
        help="Also run one frame of a network, as emitted: a shipped one, or an .onnx file.",
        show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(
        min=1, max=1000, help="Sampler steps of that frame, if it has any.",
        show_default=False)] = None,
    board: BoardName = "pynq-z1",
    memory: Annotated[str, typer.Option(help="flat or ddr3, for tiles and frames.")] = "flat",
    seed: Annotated[int, typer.Option(
        min=0, max=MOST_SEED, help="Repeats programs, tiles and inputs.")] = 0,
    json: Json = None,
    reading: Reading = PLAIN,
) -> None:
    """Run the same programs on Verilated RTL and on the executors; count what differs."""
    from studies.validate import rtl as study

    check_writables(json)
    found = study.run(study.Request(design, programs, tiles, network, steps,
                                    memory_model(memory), seed, reading, board))
    if json is not None:
        write_json(json, found.summary())
    print(study.report(found))
    if not found.equal:
        raise typer.Exit(1)


def energy(
    rows: Annotated[Path | None, typer.Option(
        help="A CSV file with the columns of zc702_rail_energy.csv; without it the nine public "
             "designs, each left out of the fit.", show_default=False)] = None,
    sweep: Annotated[Path | None, typer.Option(
        help="The points of those designs, with the columns of zc702_rails_sweep.csv.",
        show_default=False)] = None,
    json: Json = None,
) -> None:
    """Check the energy model against rails that others measured, and against vendor reports."""
    from studies.validate.energy import run

    code = run(rows, sweep, json)
    if code:
        raise typer.Exit(code)


def clock(
    design: Design = "default",
    board: BoardName = "pynq-z1",
    whole: Annotated[bool, typer.Option(
        "--whole/--grid-only", help="Synthesize the whole design too and list its longest paths; "
        "needs Yosys and minutes.")] = True,
    json: Json = None,
) -> None:
    """Check the clock model against public designs, and predict the clock of a design."""
    from studies.validate.clock import run

    code = run(design, board, json, whole)
    if code:
        raise typer.Exit(code)


@reads_onnx
def onnx(
    model: Annotated[Path, typer.Argument(help="An .onnx file, float or static int8 (QDQ).")],
    seed: Annotated[int, typer.Option(
        min=0, max=MOST_SEED, help="Of the random network inputs.")] = 0,
    json: Json = None,
    reading: Reading = PLAIN,
) -> None:
    """Compare an imported network with onnxruntime: at its outputs, and layer by layer.

    At the outputs of the file as given: the float network, the int8 one, and what onnxruntime's
    own static quantizer makes of a float file. A float file also layer by layer, int8 beside
    float (dB); a static int8 file on the integers that onnxruntime computes.
    """
    check_writables(json)
    from studies.validate.onnx.study import run

    code = run(model, reading, seed, json)
    if code:
        raise typer.Exit(code)


def page(
    out: Annotated[Path, typer.Option(
        help="The page to write; its picture goes into the folder pictures beside it.",
    )] = Path("docs/validation.md"),
    fewer: Annotated[bool, typer.Option(
        "--fewer", help="Overwrite a page though tables are absent here.")] = False,
) -> None:
    """Run every check and write the page of results; takes a quarter of an hour.

    Compiles the RTL (needs the extra rtl) and runs hundreds of programs on it. A page that is
    there is kept where it would lose rows, unless --fewer is given.
    """
    from studies.validate.page import write

    print("running every check, which takes a quarter of an hour ...", flush=True)
    write(out, fewer)
    print(f"wrote {out}")
