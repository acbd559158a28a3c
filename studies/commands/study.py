"""`cosim study` and `cosim benchmark`: whole studies, whose pages and tables the documents show.

It parses and writes; what is computed, and what the figures mean, is in the study's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.commands.options import BoardName, Design, Json, MemoryModel, OutFolder
from studies.evaluation import inputs
from studies.plain.errors import UserError
from studies.plain.files import check_writables, output_folder, write_json, write_text
from studies.plain.machine import default_workers
from studies.plain.terminal import say_unchecked, terminal

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same result.")]
Workers = Annotated[int, typer.Option(
    min=0, max=512, help="Processes to use; 0 takes every core. The result is the same.")]
Page = Annotated[Path | None, typer.Option(
    help="Write the page to this file, its pictures beside it.", show_default=False)]


def demo(
    out: OutFolder = Path("out/demo"),
    designs: Annotated[int, typer.Option(min=1, max=10**6, help="Designs to judge.")] = 600,
    seed: Seed = 0,
    workers: Workers = 0,
) -> None:
    """Simulate, search, emit, run the C++ and report, for the full-width AGC decoder."""
    from studies.demo import run_demo

    run_demo(out, designs, seed, workers or default_workers())


def headline(
    workloads: Annotated[str, typer.Option(
        help="Networks, separated by commas.", show_default="all four")] = "",
    designs: Annotated[int, typer.Option(
        min=1, max=10**6, help="Designs a network.")] = 400,
    seed: Seed = 0,
    workers: Workers = 0,
    json: Json = None,
    page: Page = None,
) -> None:
    """Find the best designs for both decoders and say how far they are from the limits."""
    from studies.headline import report, study

    check_writables(json, page)
    console = terminal()
    points = study.headline(workloads.split(",") if workloads else list(study.WORKLOADS),
                            study.default_settings(designs, seed), told=console.print,
                            workers=workers or default_workers())
    if json is not None:
        write_json(json, report.document(points, designs, seed))
    if page is not None:
        write_text(page, report.page(points, designs, seed))
    for table in report.rich_tables(points):
        console.print(table)


def proof(
    table: Annotated[Path | None, typer.Option(
        help="Where the enumeration is kept (.npz).",
        show_default="studies/data/agc_w16_designs.npz")] = None,
    again: Annotated[bool, typer.Option(
        "--again", help="Enumerate even if a table is there.")] = False,
    quick: Annotated[bool, typer.Option(
        "--quick", help="A small sub-space and two seeds.")] = False,
    workers: Workers = 0,
    json: Json = None,
    page: Page = None,
) -> None:
    """Hold every sampler against a space that is enumerated whole (docs/search.md)."""
    from studies.proof.page import write_page
    from studies.proof.proof import prove
    from studies.proof.published import TABLE

    check_writables(json, page)
    kept = table or (Path("out") / "search_proof_quick.npz" if quick else TABLE)
    found = prove(quick, kept, again, workers or default_workers(), terminal())
    if json is not None:
        write_json(json, found)
    if page is not None:
        write_page(found, page)


def regret(
    certificates: Annotated[list[Path], typer.Argument(
        help="Certificates of latency with the memory flat (cosim explore --prove).",
        show_default=False)],
    designs: Annotated[int, typer.Option(
        min=1, max=10**6, help="Designs that each search judges.")] = 600,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Seeds of each search.")] = 10,
    searches: Annotated[str, typer.Option(
        help="Searches, separated by commas.", show_default="all six")] = "",
    workers: Workers = 0,
    table: Annotated[Path | None, typer.Option(
        help="Write the table (Markdown) to this file.", show_default=False)] = None,
    json: Json = None,
) -> None:
    """Say how far searches end from what is proved of a whole space (docs/search.md)."""
    from studies.proof import regret as study

    check_writables(json, table)
    found = study.run(study.Request(
        certificates, designs, seeds, workers or default_workers(),
        _known("searches", searches, study.SEARCHES)))
    _keep_rows(found, json, table, study.page)
    study.show(terminal(), found)


def enumerate_wide(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    space: Annotated[Path | None, typer.Option(
        help="A space file.", show_default="studies/proof/search_proof_wide.toml")] = None,
    shard: Annotated[str, typer.Option(help="i/n: every n-th share from the i-th on.")] = "0/1",
    sample: Annotated[int | None, typer.Option(
        min=1, help="Only so many choices of what needs lowering.", show_default=False)] = None,
    limit_seconds: Annotated[float, typer.Option(
        min=0, help="Begin no further share after that; the figures are then partial.",
        show_default="none")] = float("inf"),
    check: Annotated[int, typer.Option(
        min=0, help="Compare so many random designs with the CPU instead, bit for bit.")] = 0,
    seed: Seed = 1,
    workers: Workers = 0,
    json: Json = None,
) -> None:
    """Enumerate a space of a hundred million designs and more, on a GPU or on all cores."""
    from cosim.recurrence.cuda import CudaError
    from studies.proof import enumerate_wide as study

    check_writables(json)
    request = study.Request(device, space or study.SPACE, workers or default_workers(), shard,
                            sample, limit_seconds, check, seed)
    try:
        found = study.run(request)
    except CudaError as error:
        raise UserError(str(error)) from error
    if json is not None:
        write_json(json, found)
    print(study.told(request, found))
    if not study.passed(request, found):
        raise typer.Exit(1)


def efficiency(
    width: Annotated[int, typer.Option(min=8, max=256, help="Of the AGC decoder.")] = 64,
    design: Design = "default",
    memory: MemoryModel = "ddr3",
    measured_only: Annotated[bool, typer.Option(
        "--measured-only", help="Leave the prediction out.")] = False,
    json: Json = None,
) -> None:
    """Measure the decoder on this host's CPU and GPU, and set the prediction beside it."""
    check_writables(json)
    from studies.headline import efficiency as study
    found = study.rows(width, design, memory, measured_only)
    if json is not None:
        write_json(json, [asdict(row) for row in found])
    print(study.table(found))


def quality(
    count: Annotated[int, typer.Option(min=1, max=10**4, help="Pictures a network.")] = 12,
    seed: Seed = 1,
    quick: Annotated[bool, typer.Option(
        "--quick", help="One picture of the smallest network of each kind.")] = False,
    strips: Annotated[Path | None, typer.Option(
        help="Draw picture strips into this folder instead.", show_default=False)] = None,
    real: Annotated[bool, typer.Option(
        "--real", help="A real face that no training saw instead, beside JPEG and WebP at the "
        "same bits.")] = False,
    table: Annotated[Path | None, typer.Option(
        help="Write the integer networks as a table (CSV), as studies/data/quality.csv has them.",
        show_default=False)] = None,
    json: Json = None,
) -> None:
    """Measure the pictures of the shipped networks, float and integer."""
    from studies.headline import quality as study
    from studies.headline import rates
    if strips is not None:
        study.draw_strips(output_folder(strips), count, seed, quick)
        return
    check_writables(json, table)
    if real and table is not None:
        raise UserError("--table holds networks on their own pictures; leave --real out")
    if real:
        found = (rates.rows(["agc-w16"], 1, seed, (90,)) if quick else
                 rates.rows(count=count, seed=seed))
    else:
        found = study.rows(count, seed, quick)
    if json is not None:
        write_json(json, found)
    if table is not None:
        write_text(table, study.table(found, seed))
    study.show(terminal(), found)


def decoders(
    networks: Annotated[str, typer.Option(
        help="Networks, separated by commas.", show_default="all that are trained")] = "",
    board: BoardName = "pynq-z1",
    picture: Annotated[Path | None, typer.Option(
        help="Draw the picture (PNG) to this file.", show_default=False)] = None,
    json: Json = None,
) -> None:
    """Set quality (measured) beside latency and energy (predicted) of the shipped decoders.

    Each on the shipped design that is fastest for it.
    """
    from studies.headline import decoders as study
    from studies.report.pictures import save_picture

    check_writables(json, picture)
    on = inputs.board(board)
    found = study.run(on, networks.split(",") if networks else ())
    if json is not None:
        write_json(json, [asdict(point) for point in found])
    if picture is not None:
        save_picture(study.picture(found, on), picture)
    study.show(terminal(), found)
    say_unchecked(terminal(), on)


def on_chip(
    networks: Annotated[str, typer.Option(
        help="Networks, separated by commas.", show_default="all four")] = "",
    boards: Annotated[str, typer.Option(
        help="Boards, separated by commas.", show_default="all that ship")] = "",
    table: Annotated[Path | None, typer.Option(
        help="Write the table (Markdown) to this file.", show_default=False)] = None,
    json: Json = None,
) -> None:
    """Say what keeping tensors on chip saves: DRAM traffic, latency and energy (predicted)."""
    from studies.why import on_chip as study

    check_writables(json, table)
    found = study.run(study.Request(
        _known("networks", networks, study.DESIGNS), boards.split(",") if boards else study.BOARDS))
    _keep_rows(found, json, table, study.page)
    study.show(terminal(), found)


def precision(
    networks: Annotated[str, typer.Option(
        help="Networks, separated by commas.", show_default="all")] = "",
    board: BoardName = "pynq-z1",
    count: Annotated[int, typer.Option(
        min=0, max=200, help="Pictures of each network; 0 measures none.")] = 4,
    seed: Seed = 0,
    table: Annotated[Path | None, typer.Option(
        help="Write the table (Markdown) to this file.", show_default=False)] = None,
    json: Json = None,
) -> None:
    """Set 4-bit weights beside 8: quality (measured), DRAM traffic, time, energy (predicted)."""
    from studies.headline import precision as study

    check_writables(json, table)
    found = study.run(study.Request(_known("networks", networks, study.DESIGNS), board, count,
                                    seed))
    _keep_rows(found, json, table, study.page)
    study.show(terminal(), found)
    say_unchecked(terminal(), inputs.board(board))


def _known(what: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names of a list with commas; all that are known if it is empty."""
    asked = tuple(text.split(",")) if text else tuple(known)
    if unknown := sorted(set(asked) - set(known)):
        raise UserError(f"{what}: {unknown}, must be among {', '.join(known)}")
    return asked


def _keep_rows(found: Sequence[Any], json: Path | None, table: Path | None,
               page: Callable[[Sequence[Any]], str]) -> None:
    """Write the rows of a study as JSON and as its table, where a file is named."""
    if json is not None:
        write_json(json, [asdict(row) for row in found])
    if table is not None:
        write_text(table, page(found))


def benchmark(
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs of each measurement.")] = 5,
    peer: Annotated[bool, typer.Option(
        help="Also install and time the public simulator SCALE-Sim v3 (needs the network).",
    )] = False,
    proofs: Annotated[bool, typer.Option(
        help="Also prove agc-w64 whole, on both memories (an hour).")] = False,
    json: Json = None,
) -> None:
    """Measure the speed of the executors and of design evaluations on this machine."""
    from studies.speed.benchmark import run_benchmark

    check_writables(json)
    run_benchmark(runs, peer, json, proofs)
