"""One proof from a terminal: the line that says how far it is, and the files at the end.

It proves nothing (`branch`) and checks nothing (`certificate`).
"""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import typer
from rich.console import Console

from arch_models.overlay import overlay_toml
from studies.certify.bounds import Question
from studies.certify.branching.book import Book
from studies.certify.branching.branch import Branch, Settings, State
from studies.certify.certificate import (
    Claim,
    claim_of,
    program_digest,
    said,
    write_certificate,
)
from studies.certify.goals import Aim
from studies.plain.errors import UserError
from studies.plain.files import check_writables, output_folder, write_json, write_text
from studies.plain.made_by import invocation
from studies.plain.records import encode, header
from studies.plain.stopping import Stopping, exit_code
from studies.plain.terminal import each_seconds
from studies.plain.workers import forked
from studies.search.dask_workers import connected
from studies.search.exploration import Means, explore, outcome
from studies.search.identity import identity
from studies.search.outcomes import Evaluate, Objective, Outcome
from studies.search.outcomes import Settings as SearchSettings
from studies.search.screening import bounder
from studies.search.search import search
from studies.search.space import Choice
from studies.search.space_overlays import overlay_of

#: With so many of a search's designs the search under another memory begins.
QUICKEST = 64
CERTIFICATE, BEST = "certificate.json", "best.toml"


@dataclass(frozen=True)
class Effort:
    """Where closed boxes are kept, who works (processes here, or a Dask scheduler's workers), and
    designs that are simulated first."""

    storage: str | None = None
    workers: int = 1
    scheduler: str | None = None
    start: Sequence[Choice] = ()


@dataclass(frozen=True)
class ClaimFile(Claim):
    """What `cosim explore --prove --json` writes: a claim with what it took."""

    boxes: int
    seconds: float
    unchecked: tuple[str, ...]
    predicted: bool = True
    DERIVED: ClassVar = ("gap",)


def run_proof(question: Question, settings: Settings, console: Console, out: Path,
              effort: Effort, json: Path | None = None) -> None:
    """Prove, say how far it is, and write `certificate.json` and the best designs into a folder:
    `best.toml`, or with several objectives `best-1.toml` and so on.

    `json`: a file for what is claimed alone."""
    folder = output_folder(out)
    _say_replaced(console, folder)
    check_writables(json)
    branch = Branch(question, settings, _book(question, settings, effort.storage),
                    each_seconds(console, _line))
    with Stopping():
        start = [*effort.start, *searched(question, effort, console)]
        state = branch.run(effort.workers, effort.scheduler, start)
    if not state.front.members:
        _end(branch.signal, console, "stopped before a design was simulated; nothing is proved")
        raise UserError("no design was feasible; nothing is proved")
    claim = claim_of(question, state.front, state.factor)
    write_certificate(out / CERTIFICATE, branch.bounds, claim, invocation())
    names = [BEST] if len(question.aims) == 1 else [
        f"best-{number + 1}.toml" for number in range(len(claim.best))]
    for path in _designs_there(folder):
        path.unlink()
    for name, item in zip(names, claim.best, strict=True):
        write_text(out / name, overlay_toml(overlay_of(
            item.choice, question.base, question.board, "proved")))
    if json is not None:
        write_json(json, {**header("claim", invocation()), **encode(ClaimFile(
            **vars(claim), boxes=state.boxes, seconds=state.seconds,
            unchecked=tuple(question.board.unchecked)))})
    console.print(f"{said(claim)}; {state.boxes:,} boxes in {state.seconds:.0f} s",
                  soft_wrap=True)
    for name, item in zip(names, claim.best, strict=True):
        console.print(f"  {name}: {_figures(question.aims, item.figures)}", soft_wrap=True)
    console.print(f"wrote {CERTIFICATE} and {names[0]}{' and on' if len(names) > 1 else ''} to "
                  f"{out}; `cosim check {out / CERTIFICATE}` checks it", soft_wrap=True)
    _end(branch.signal, console)


def searched(question: Question, effort: Effort, console: Console) -> list[Choice]:
    """The front of what `cosim explore` finds; of a small space it meets a quarter at most. Where
    another memory may order designs otherwise, what a second search finds under that besides.

    It depends on the question alone, as the proof does. `Stopped` comes through."""
    most = SearchSettings()
    count = min(most.designs, question.space.size() // 4)
    settings = replace(most, designs=count, attempts=min(most.attempts, 8 * count))
    first = explore(question.graph, question.board, question.base, settings, question.space,
                    Means(effort.workers, effort.scheduler), effort.start).found.whole()
    console.print(f"a search of {first.judged} designs comes first", soft_wrap=True)
    found = [first.records[number].choice for number in first.front]
    if not question.by_ways:
        return found
    quickest = sorted((record.evaluation.latency_ms, record.number) for record in first.records
                      if record.evaluation is not None)[:QUICKEST]
    with _judges(question, effort) as judge:
        again = search(
            judge, question.space, replace(settings, objectives=(Objective.LATENCY,)),
            [*effort.start, *(first.records[number].choice for _, number in quickest)],
            bound=bounder(question.graph, question.board, question.base)).whole()
    console.print(f"and one of {again.judged} under {question.memory}", soft_wrap=True)
    return [*found, *(again.records[number].choice for number in again.front)]


@contextmanager
def _judges(question: Question, effort: Effort) -> Iterator[Evaluate]:
    """Evaluates designs under the proof's memory, in processes here or on Dask workers."""
    if effort.scheduler is not None:
        with connected(effort.scheduler) as there:
            yield partial(there.map, _judged, question)
    else:
        with forked(partial(_judged, question), effort.workers) as here:
            yield here.map


def _judged(question: Question, choice: Choice) -> Outcome:
    return outcome(question.graph, question.board, question.base, choice, question.memory)


def _figures(aims: Sequence[Aim], figures: Sequence[float]) -> str:
    return ", ".join(f"{aim.label} {figure:.6g}"
                     for aim, figure in zip(aims, figures, strict=True))


def _designs_there(folder: Path) -> list[Path]:
    """Designs of an earlier proof."""
    return [path for path in (folder / BEST, *sorted(folder.glob("best-*.toml")))
            if path.exists()]


def _book(question: Question, settings: Settings, storage: str | None) -> Book:
    """Boxes that an earlier run of the same proof closed."""
    if storage is None:
        return Book(None, "")
    if "://" in storage:
        raise UserError(f"--storage {storage!r}: --prove keeps its boxes in a file; name one")
    known = identity([question.graph], question.board, question.base, question.space,
                     SearchSettings())
    return Book(Path(storage), json_text.dumps(
        {**known, "proof": question.memory, "of": list(question.aims), "gap": settings.gap,
         "simulator": program_digest()}, sort_keys=True), question.aims)


def _say_replaced(console: Console, out: Path) -> None:
    there = [path.name for path in (out / CERTIFICATE, *_designs_there(out)) if path.exists()]
    if there:
        console.print(f"{out} holds {' and '.join(there)}, which this proof replaces (--out FOLDER "
                      "keeps both)", soft_wrap=True)


def _line(asked: Callable[[], State]) -> str:
    state = asked()
    best = state.front.members[:1]
    if len(state.front.aims) > 1:
        said_ = f"{len(state.front.members)} designs in front"
    elif best:
        said_ = (f"best {best[0].figures[0]:.6g} in {state.front.aims[0].label}, none below "
                 f"{best[0].figures[0] * state.factor:.6g}")
    else:
        said_ = "no design yet"
    return (f"{state.seconds:.0f} s: {said_}, gap {state.gap:.2%}; {state.open} boxes open, "
            f"10^{state.excluded:.1f} designs excluded, {state.boxes:,} boxes")


def _end(signal: int, console: Console, said: str = "") -> None:
    """Leave as a shell expects it, if a signal ended the proof."""
    if signal:
        if said:
            console.print(said)
        raise typer.Exit(exit_code(signal))
