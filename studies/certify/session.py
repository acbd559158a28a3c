"""One proof from a terminal: the line that says how far it is, and the files at the end.

It proves nothing (`branch`) and checks nothing (`certificate`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from arch_models.overlay import overlay_toml
from studies.certify.bounds import Question
from studies.certify.branch import Book, Branch, Settings, State
from studies.certify.certificate import Claim, said, write_certificate
from studies.evaluation.inputs import MEMORY_MODELS
from studies.plain.errors import UserError, unknown
from studies.plain.files import output_folder, write_text
from studies.plain.stopping import Stopping, exit_code
from studies.search.identity import identity
from studies.search.outcomes import Settings as SearchSettings
from studies.search.space_overlays import overlay_of

#: Between two lines.
SAY_SECONDS = 10.0
CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class Effort:
    """Where closed boxes are kept, and who works: processes here, or a Dask scheduler's workers."""

    storage: str | None = None
    workers: int = 1
    scheduler: str | None = None


def run_proof(question: Question, settings: Settings, console: Console, out: Path,
              effort: Effort) -> None:
    """Prove, say how far it is, and write `certificate.json` and `best.toml` into a folder."""
    if settings.memory not in MEMORY_MODELS:
        raise unknown("memory", settings.memory, MEMORY_MODELS)
    storage = effort.storage
    if storage is not None and "://" in storage:
        raise UserError(f"--storage {storage!r}: --prove keeps its boxes in a file; name one")
    output_folder(out)
    graph, board, space = question.graph, question.board, question.space
    known = identity([graph], board, question.base, space, SearchSettings())
    book = Book(Path(storage) if storage else None,
                json.dumps({**known, "proof": settings.memory, "gap": settings.gap},
                           sort_keys=True))
    console.print(f"{space.size():,} designs in the space, {len(space.axes)} axes")
    branch = Branch(question, settings, book, _Teller(console))
    with Stopping():
        state = branch.run(effort.workers, effort.scheduler)
    if not state.best.choice:
        _end(branch.signal, console, "stopped before a design was simulated; nothing is proved")
        raise UserError("no design was feasible; nothing is proved")
    claim = Claim(question.workload or graph.name, board.name, settings.memory, state.best.ms,
                  state.bound_ms, space.size(), state.best.choice)
    write_certificate(out / CERTIFICATE, branch.bounds, claim)
    write_text(out / "best.toml", overlay_toml(overlay_of(
        state.best.choice, question.base, board, "proved")))
    console.print(f"{said(claim)}; {state.boxes:,} boxes in {state.seconds:.0f} s",
                  soft_wrap=True)
    console.print(f"wrote {CERTIFICATE} and best.toml to {out}; `cosim check "
                  f"{out / CERTIFICATE}` checks it", soft_wrap=True)
    _end(branch.signal, console)


class _Teller:
    """Says how far it is, now and then."""

    def __init__(self, console: Console) -> None:
        self._console, self._said = console, time.monotonic()

    def __call__(self, asked: Callable[[], State]) -> None:
        if time.monotonic() - self._said < SAY_SECONDS:
            return
        state = asked()
        self._said = time.monotonic()
        self._console.print(
            f"{state.seconds:.0f} s: best {state.best.ms:.6g} ms, none below "
            f"{state.bound_ms:.6g} ms, gap {state.gap:.2%}; {state.open} boxes open, "
            f"10^{state.excluded:.1f} designs excluded, {state.boxes:,} boxes", soft_wrap=True)



def _end(signal: int, console: Console, said: str = "") -> None:
    """Leave as a shell expects it, if a signal ended the proof."""
    if signal:
        if said:
            console.print(said)
        raise typer.Exit(exit_code(signal))
