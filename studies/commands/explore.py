"""`cosim explore` and `cosim serve`: search a design space, share the studies of searches.

They emit no hardware; give the design file that a search writes to `cosim emit`.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from arch_models.overlay import overlay_toml
from studies.commands.options import (
    BoardName,
    Design,
    Json,
    Workload,
    reads_onnx,
)
from studies.evaluation import inputs
from studies.plain.errors import UserError
from studies.plain.files import check_writable, output_folder, write_json, write_text
from studies.plain.machine import default_workers
from studies.plain.made_by import invocation
from studies.plain.records import kind_of, save
from studies.plain.stopping import Stopping, exit_code
from studies.plain.terminal import terminal
from studies.report import pictures, tables
from studies.report.documents import Asked, search_document
from studies.search.exploration import Exploration, Place
from studies.search.exploration import explore as run_exploration
from studies.search.outcomes import Objective, Progress, Record, Sampler, Settings
from studies.search.search import parse_names
from studies.search.space import WORKLOAD, default_space
from studies.search.space_file import load_space
from studies.search.storage import serve, shown
from studies.search.warm_start import earlier_designs

#: Between two drawings of the bar.
DRAW_SECONDS = 0.1


@reads_onnx
def explore(
    workload: Workload,
    design: Design = "default",
    board: BoardName = "pynq-z1",
    designs: Annotated[int, typer.Option(
        min=1, max=10**6, help="Different designs to judge, by simulation or by bounds; "
        "infeasible ones not counted.")] = 600,
    seed: Annotated[int, typer.Option(
        min=0, max=2**32 - 1, help="Same seed, same result.")] = 0,
    sampler: Annotated[str, typer.Option(
        help="How designs are proposed: nsga2, nsga3, tpe, gp, random, or exhaustive "
             "(every design, for small spaces).")] = "nsga2",
    objectives: Annotated[str, typer.Option(
        help="What to make small, separated by commas: latency, energy, resources, "
             "period, quality.",
    )] = "latency,energy,resources",
    space: Annotated[Path | None, typer.Option(
        help="A .toml file that changes the design space; see docs/space.md.",
        show_default=False)] = None,
    workers: Annotated[int, typer.Option(
        min=0, max=512, help="Processes to use; 0 takes every core. The result is the same.")] = 0,
    scheduler: Annotated[str | None, typer.Option(
        help="Evaluate on the workers of this Dask scheduler, for example tcp://HOST:8786, "
             "in place of --workers.", show_default=False)] = None,
    storage: Annotated[str | None, typer.Option(
        help="Keep every outcome here, and go on from what is here: a file, sqlite:///FILE, "
             "postgresql://... or grpc://HOST:PORT. Several terminals may share it.",
        show_default=False)] = None,
    study: Annotated[str | None, typer.Option(
        help="Name of the study in --storage; the workload's name if left out.",
        show_default=False)] = None,
    start: Annotated[list[Path] | None, typer.Option(
        help="Also start from the front of an earlier search (its explore.json, of any network or "
             "board) or from a design (.toml); may be repeated.", show_default=False)] = None,
    live: Annotated[bool, typer.Option(
        "--live", help="Serve a page that follows the search, on this machine.")] = False,
    prune: Annotated[bool, typer.Option(
        help="Leave out designs whose lower bounds something evaluated dominates.")] = True,
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="Folder for the files this command writes; made if missing.",
        show_default="out/explore/WORKLOAD-BOARD")] = None,
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Search for designs that are faster, need less energy and less fabric than --design.

    Simulates each proposed design over the whole frame with the flat memory, then the best ones
    again with ddr3. Writes best.toml, best.json, explore.json and front.png to the folder. Ctrl-C
    ends it within two seconds and writes what was found so far.
    """
    graph, note = inputs.network(workload, reading)
    base, on = inputs.design(design), inputs.board(board)
    settings = _settings(designs, seed, sampler, objectives)
    axes = load_space(space, on, graph) if space else default_space(on, graph)
    asked = Asked(workload, graph.name, board, on, base, invocation())
    earlier = earlier_designs(start or [], axes)
    out = out or Path("out/explore") / f"{Path(workload).stem}-{on.name}"
    console = terminal()
    _say_replaced(console, output_folder(out) / "explore.json")
    if json is not None:
        check_writable(json)
    place = _place(storage, study, workload)
    for line in (note, f"{axes.size():,} designs in the space, {len(axes.axes)} axes",
                 f"{len(earlier)} designs of {', '.join(map(str, start))} are tried first"
                 if start else ""):
        if line:
            console.print(line)
    most = axes.size() if settings.sampler is Sampler.EXHAUSTIVE else designs
    with Stopping(), ExitStack() as stack:
        view = _watched(stack, console, asked, settings, most) if live else None
        told = stack.enter_context(SearchProgress(console, most, view))
        found = run_exploration(graph, on, base, settings, axes,
                                workers or default_workers(), progress=told.record, place=place,
                                scheduler=scheduler, prune=prune, earlier=earlier)
        if found.signal:
            told.stop()
            _say_stopped(console, found, _write(found, asked, out, json), out, storage)
    written = _write(found, asked, out, json)
    show(console, found)
    if found.chosen is None:
        raise UserError("no design was feasible. " + nearest_miss(found))
    pictures.save_picture(front_picture(found, workload, on.label), out / "front.png")
    console.print(f"wrote {', '.join(written)} and front.png to {out}", soft_wrap=True)


def _settings(designs: int, seed: int, sampler: str, objectives: str) -> Settings:
    names = [name.strip() for name in objectives.split(",")]
    return Settings(designs, seed, sampler=parse_names("sampler", [sampler], Sampler)[0],
                    objectives=parse_names("objective", names, Objective))


def _place(storage: str | None, study: str | None, workload: str) -> Place | None:
    if study is not None and storage is None:
        raise UserError(f"--study {study!r} names a study and no storage; add --storage FILE.")
    return Place(storage, study or workload) if storage is not None else None


def _watched(stack: ExitStack, console: Console, asked: Asked, settings: Settings,
             most: int) -> Progress:
    from studies.report.live import live_search

    view, address = stack.enter_context(live_search(asked, settings.objectives, most))
    stack.callback(view.end, "The search has ended; `cosim report` makes a page of what it wrote.")
    console.print(f"follow the search at {address}", soft_wrap=True)
    return view.record


def _say_replaced(console: Console, path: Path) -> None:
    """Say which earlier search this one will replace."""
    if path.exists():
        command = ""
        with suppress(UserError):  # a file that cannot be read is replaced all the same
            command = kind_of(path)[1]
        console.print(f"{path} holds an earlier search{f' ({command})' if command else ''}; this "
                      "one replaces it (--out FOLDER keeps both)", soft_wrap=True)


def _say_stopped(console: Console, found: Exploration, written: list[str], out: Path,
                 storage: str | None) -> None:
    console.print(f"stopped: {found.found.judged} designs judged, {len(found.candidates)} of them "
                  f"again with ddr3; wrote {', '.join(written)} to {out}", soft_wrap=True)
    console.print("the same command goes on from here" if storage is not None else
                  f"to begin another search with this front: --start {out}/explore.json; with "
                  "--storage FILE the same command goes on where it ended", soft_wrap=True)
    raise typer.Exit(exit_code(found.signal))


def _write(found: Exploration, asked: Asked, out: Path, json: Path | None) -> list[str]:
    """Write the chosen design and what was tried; the names of the files in the folder."""
    written = []
    if found.chosen is not None:
        network = found.chosen.record.choice.get(WORKLOAD)
        write_text(out / "best.toml", (f"# Of the networks in the space this is for {network}.\n"
                                       if network else "") + overlay_toml(found.chosen.overlay))
        save(out / "best.json", "evaluation", found.chosen.evaluation, asked.command)
        written += ["best.toml", "best.json"]
    document = search_document(found, asked)
    write_json(out / "explore.json", document)
    if json is not None:
        write_json(json, document)
    return [*written, "explore.json"]


class SearchProgress:
    """A bar that counts judged designs while a search runs, then those simulated with ddr3.

    It starts no thread, since workers are forked while it is there; so it moves with the designs.
    """

    def __init__(self, console: Console, designs: int, also: Progress | None = None) -> None:
        self._also = also
        self._bar = Bar(TextColumn("searching"), BarColumn(), MofNCompleteColumn(),
                             TextColumn("{task.description}"), TimeElapsedColumn(),
                             console=console, auto_refresh=False)
        self._task = self._bar.add_task("", total=designs)
        self._drawn = 0.0
        self._records = self._infeasible = self._finals = 0
        self._best = float("inf")

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Draw it for the last time."""
        self._bar.refresh()
        self._bar.stop()

    def record(self, record: Record, done: int) -> None:
        """Take note of one more record, or of one that was simulated again with ddr3."""
        if record.number < self._records:
            self._finals += 1
        else:
            self._records += 1
            self._infeasible += record.failure is not None
            if record.evaluation:
                self._best = min(self._best, record.evaluation.latency_ms)
        if self._also is not None:
            self._also(record, done)
        again = f", {self._finals} again with ddr3" if self._finals else ""
        self._bar.update(self._task, completed=done, description=(
            f"{self._infeasible} infeasible, best {self._best:.1f} ms{again}"))
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._drawn = time.monotonic()
            self._bar.refresh()


def show(console: Console, found: Exploration) -> None:
    """Print what was tried, why designs failed, and the best against the default."""
    search = found.found
    console.print(f"{search.evaluated} designs evaluated, {search.pruned} not simulated (bounds "
                  f"dominated), {search.infeasible} infeasible, "
                  f"{search.asked} asked, {len(search.front)} on the front (flat memory)")
    reasons: dict[str, int] = {}
    for record in search.records:
        if record.failure:
            name = record.failure.reason.split(" needs ")[0].split(":")[-1].strip()
            reasons[name] = reasons.get(name, 0) + 1
    if reasons:
        table = tables.grid("Why designs were infeasible", ("what did not fit", "designs"))
        for name, count in sorted(reasons.items(), key=lambda item: -item[1])[:8]:
            table.add_row(name[:70], str(count))
        console.print(table)
    if found.chosen:
        shown = [item for item in (found.default, found.chosen.evaluation) if item]
        console.print(tables.summary(shown))
        if found.default:
            best = found.chosen.evaluation
            console.print(f"the chosen design is {found.default.latency_ms / best.latency_ms:.2f} "
                          f"times as fast as {found.default.overlay!r} and takes "
                          f"{found.energy_ratio} of its energy (predicted, ddr3)", style="bold")


def front_picture(found: Exploration, workload: str, board: str) -> Any:
    """The Pareto front with the default and the chosen design marked, all by the flat memory."""
    wanted = (Objective.LATENCY, Objective.ENERGY, Objective.RESOURCES)
    import numpy as np

    rows = [[objective.of(record.evaluation) if record.evaluation else np.nan
             for objective in wanted] for record in found.found.records]
    marks = {}
    first = found.found.records[0].evaluation
    if first:
        marks["start (hand-made)"] = (first.latency_ms, first.energy_uj_per_pixel)
    if found.chosen and found.chosen.record.evaluation:
        chosen = found.chosen.record.evaluation
        marks["chosen"] = (chosen.latency_ms, chosen.energy_uj_per_pixel)
    return pictures.pareto(
        np.array(rows, float).reshape(-1, 3), found.found.front, marks,
        f"{found.found.evaluated} designs for {workload} on {board}, predicted (flat)")


def nearest_miss(found: Exploration) -> str:
    """The infeasible design that missed by least, and why."""
    failures = [record.failure for record in found.found.records if record.failure]
    if not failures:
        return ""
    return "Nearest miss: " + min(failures, key=lambda item: item.excess).reason


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def reach(host: str) -> str:
    """Who can reach a server that listens at this address, at the start of a sentence."""
    if host in LOOPBACK:
        return "Every user of this machine, and nobody else,"
    if host in ("0.0.0.0", "::", "[::]"):
        return "Whoever can send to any of this machine's addresses"
    return f"Whoever can send to {host}"


def serve_studies(
    storage: Annotated[str, typer.Argument(
        help="The database: sqlite:///FILE or postgresql://...")],
    host: Annotated[str, typer.Option(
        help="Address to listen on; 0.0.0.0 is every one. There is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 13000,
) -> None:
    """Serve studies to other machines (gRPC) until Ctrl-C.

    Needs the extra scale: .venv/bin/python -m pip install -e '.[scale]' in the project's folder.
    """
    terminal().print(f"serving {shown(storage)} as grpc://{host}:{port}; Ctrl-C ends. "
                    f"{reach(host)} can read and change every study: there is no password.",
                    highlight=False, soft_wrap=True)
    serve(storage, host, port)
