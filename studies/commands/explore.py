"""`cosim explore` and `serve`: search a design space, prove it, share studies.

They emit no hardware; give the design file that a search writes to `cosim emit`.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from arch_models.overlay import overlay_toml
from studies.certify.bounds import Question
from studies.certify.branching.branch import Settings as ProofSettings
from studies.certify.goals import Aim, aims_of
from studies.certify.session import Effort, run_proof
from studies.commands.options import (
    BoardName,
    Design,
    Gap,
    Json,
    Minutes,
    Objectives,
    Prove,
    Proving,
    Scheduler,
    SpaceFile,
    Start,
    Steps,
    Storage,
    Study,
    Workload,
    reads_onnx,
    refuse_given,
)
from studies.evaluation import inputs
from studies.plain.errors import UserError
from studies.plain.files import check_writable, output_folder, write_json, write_text
from studies.plain.machine import default_workers
from studies.plain.made_by import invocation
from studies.plain.records import kind_of, save
from studies.plain.stopping import Stopping, exit_code
from studies.plain.terminal import terminal
from studies.report import pictures
from studies.report.documents import Asked, search_document
from studies.report.search import SearchProgress, front_picture, nearest_miss, show
from studies.search.exploration import Exploration, Means, Store
from studies.search.exploration import explore as run_exploration
from studies.search.outcomes import Objective, Sampler, Settings
from studies.search.search import parse_names
from studies.search.space import WORKLOAD, Choice, Space, default_space
from studies.search.space_file import load_space
from studies.search.storage import serve, shown
from studies.search.warm_start import earlier_designs
from workloads.graph import Graph

if TYPE_CHECKING:
    from studies.report.live import LiveSearch


@dataclass(frozen=True)
class Job:
    """One search as it was asked for, with where its files go."""

    graph: Graph
    asked: Asked
    settings: Settings
    space: Space
    means: Means
    earlier: list[Choice]
    out: Path
    json: Path | None
    live: bool

    @property
    def most(self) -> int:
        """Designs that are judged at most."""
        exhaustive = self.settings.sampler is Sampler.EXHAUSTIVE
        return self.space.size() if exhaustive else self.settings.designs


#: What a search makes small if nobody says.
OBJECTIVES = "latency,energy,resources"
#: Options that only a search has, and that only a proof has, and what is said of them.
SEARCHING = (("designs", "seed", "sampler", "study", "live", "prune"),
             "is for a search; leave it out, or --prove")
PROVING = (("memory", "gap", "minutes"), "is for a proof; add --prove, or leave it out")


@reads_onnx
def explore(
    context: typer.Context,
    workload: Workload,
    design: Design = "default",
    board: BoardName = "pynq-z1",
    steps: Steps = None,
    designs: Annotated[int, typer.Option(
        min=1, max=10**6, help="Different designs to judge, by simulation or by bounds; "
        "infeasible ones not counted.")] = 600,
    seed: Annotated[int, typer.Option(
        min=0, max=2**32 - 1, help="Same seed, same result.")] = 0,
    sampler: Annotated[str, typer.Option(
        help="How designs are proposed: nsga2, nsga3, tpe, gp, random, or exhaustive "
             "(every design, for small spaces).")] = "nsga2",
    objectives: Objectives = "",
    space: SpaceFile = None,
    workers: Annotated[int, typer.Option(
        min=0, max=512, help="Processes to use; 0 takes every core. The result is the same.")] = 0,
    scheduler: Scheduler = None,
    storage: Storage = None,
    study: Study = None,
    prove: Prove = False,
    memory: Proving = "flat",
    gap: Gap = 0.0,
    minutes: Minutes = 0.0,
    start: Start = None,
    live: Annotated[bool, typer.Option(
        "--live", help="Serve a page that follows the search, on this machine.")] = False,
    prune: Annotated[bool, typer.Option(
        help="Leave out designs whose lower bounds something evaluated dominates.")] = True,
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="Folder for the files this command writes; made if missing.",
        show_default="out/explore/WORKLOAD-BOARD, or out/prove/...")] = None,
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Search for designs that are faster, need less energy and less fabric than --design.

    Ranks designs by lower bounds first, then simulates each proposed one over the whole frame with
    the flat memory, and the best ones again with ddr3. Writes best.toml, best.json, explore.json
    and front.png to the folder. Ctrl-C ends it within two seconds and writes what was found so far.
    """
    refuse_given(context, *(SEARCHING if prove else PROVING))
    graph, note = inputs.network(workload := inputs.with_steps(workload, steps), reading)
    base, on = inputs.design(design), inputs.board(board)
    axes = load_space(space, on, graph) if space else default_space(on, graph)
    folder = out or Path("out", "prove" if prove else "explore", f"{Path(workload).stem}-{on.name}")
    earlier, threads = earlier_designs(start or [], axes), workers or default_workers()
    if prove:
        question = Question(graph, on, base, axes, aims_of(objectives or Aim.LATENCY.value),
                            inputs.memory_model(memory), workload, board)
        _say_begin(note, axes, earlier, start or [])
        return run_proof(question, ProofSettings(gap, 60 * minutes or inf), terminal(),
                         folder, Effort(storage, threads, scheduler, earlier), json)
    return run(Job(graph, Asked(workload, graph.name, board, on, base, invocation()),
                   _settings(designs, seed, sampler, objectives or OBJECTIVES), axes,
                   Means(threads, scheduler, _store(storage, study, workload), prune),
                   earlier, folder, json, live), note, start or [])


def _say_begin(note: str, space: Space, earlier: list[Choice], start: list[Path]) -> None:
    for line in (note, f"{space.size():,} designs in the space, {len(space.axes)} axes",
                 f"{len(earlier)} designs of {', '.join(map(str, start))} are tried first"
                 if start else ""):
        if line:
            terminal().print(line)


def run(job: Job, note: str, start: list[Path]) -> None:
    """Search, write what was found and show it; `start`: files whose designs are tried first."""
    console = terminal()
    _say_replaced(console, output_folder(job.out) / "explore.json")
    if job.json is not None:
        check_writable(job.json)
    _say_begin(note, job.space, job.earlier, start)
    asked = job.asked
    with Stopping(), ExitStack() as stack:
        view = _watched(stack, console, job) if job.live else None
        with SearchProgress(console, job.most, view) as told:
            found = run_exploration(job.graph, asked.board, asked.base, job.settings, job.space,
                                    job.means, job.earlier, told)
        written = _write(found, job)
        if view is not None:
            view.end(f"The search {'was stopped' if found.signal else 'has ended'}; cosim report "
                     f"{job.out / 'explore.json'} makes a page with sheets of its designs.", found)
        if found.signal:
            _say_stopped(console, found, written, job)
    show(console, found)
    if found.chosen is None:
        raise UserError("no design was feasible. " + nearest_miss(found))
    pictures.save_picture(front_picture(found, asked), job.out / "front.png")
    console.print(f"wrote {', '.join(written)} and front.png to {job.out}", soft_wrap=True)


def _settings(designs: int, seed: int, sampler: str, objectives: str) -> Settings:
    names = [name.strip() for name in objectives.split(",")]
    return Settings(designs, seed, sampler=parse_names("sampler", [sampler], Sampler)[0],
                    objectives=parse_names("objective", names, Objective))


def _store(storage: str | None, study: str | None, workload: str) -> Store | None:
    if study is not None and storage is None:
        raise UserError(f"--study {study!r} names a study and no storage; add --storage FILE.")
    return Store(storage, study or workload) if storage is not None else None


def _watched(stack: ExitStack, console: Console, job: Job) -> LiveSearch:
    from studies.report.live import live_search

    view, address = stack.enter_context(live_search(
        job.asked, job.settings.objectives, job.most, job.out / "explore.json"))
    console.print(f"follow the search at {address}", soft_wrap=True)
    return view


def _say_replaced(console: Console, path: Path) -> None:
    """Say which earlier search this one will replace."""
    if path.exists():
        command = ""
        with suppress(UserError):  # a file that cannot be read is replaced all the same
            command = kind_of(path)[1]
        console.print(f"{path} holds an earlier search{f' ({command})' if command else ''}; this "
                      "one replaces it (--out FOLDER keeps both)", soft_wrap=True)


def _say_stopped(console: Console, found: Exploration, written: list[str], job: Job) -> None:
    console.print(f"stopped: {found.found.judged} designs judged, {len(found.candidates)} of them "
                  f"again with ddr3; wrote {', '.join(written)} to {job.out}", soft_wrap=True)
    console.print("the same command goes on from here" if job.means.store is not None else
                  f"to begin another search with this front: --start {job.out}/explore.json; with "
                  "--storage FILE the same command goes on where it ended", soft_wrap=True)
    raise typer.Exit(exit_code(found.signal))


def _write(found: Exploration, job: Job) -> list[str]:
    """Write the chosen design and what was tried; the names of the files in the folder."""
    written = []
    if found.chosen is not None:
        named = found.chosen.record.choice.get(WORKLOAD)
        note = f"# Of the networks in the space this is for {named}.\n" if named else ""
        write_text(job.out / "best.toml", note + overlay_toml(found.chosen.overlay))
        save(job.out / "best.json", "evaluation", replace(
            found.chosen.evaluation, network=str(named or job.asked.network)), job.asked.command)
        written += ["best.toml", "best.json"]
    document = search_document(found, job.asked)
    write_json(job.out / "explore.json", document)
    if job.json is not None:
        write_json(job.json, document)
    return [*written, "explore.json"]


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
