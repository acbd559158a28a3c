"""How far searches end from what is proved, on whole spaces: the default and each sampler.

It proves nothing: what no design is below is read from certificates (`cosim explore --prove`).
`cosim study regret` runs it. Regret: the best latency that a search simulated over the best that is
known, minus one; over the proved bound it could be more, by the certificate's gap at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console

from arch_models.overlay import Overlay
from studies.certify.certificate import Certificate
from studies.certify.goals import Aim
from studies.evaluation.inputs import board as board_named
from studies.evaluation.inputs import workload
from studies.plain.errors import UserError
from studies.plain.files import read_json
from studies.plain.machine import machine
from studies.plain.markdown import markdown_table
from studies.plain.records import decode
from studies.plain.terminal import grid
from studies.plain.truth import CARRIED
from studies.plain.workers import forked
from studies.search.exploration import SEARCH_MEMORY, beginning, outcome
from studies.search.outcomes import Sampler, Settings
from studies.search.screening import bounder
from studies.search.search import search
from studies.search.space import Space
from workloads.graph import Graph

#: The rows that the page shows.
RECORDED = CARRIED / "search_regret.json"
#: The default search of `cosim explore`, the same without what comes before it, and the samplers
#: alone. All begin with the same start designs and leave out what bounds dominate. A proposal of
#: TPE costs the more the more designs are known: it gets fewer.
SEARCHES: Mapping[str, Settings] = {
    "default": Settings(),
    "not screened": Settings(screened=0),
    **{str(item.value): Settings(sampler=item, local=0.0, rounds=0, screened=0)
       for item in (Sampler.NSGA2, Sampler.NSGA3, Sampler.RANDOM)},
    "tpe": Settings(sampler=Sampler.TPE, local=0.0, rounds=0, screened=0, batch=8, attempts=200),
}


@dataclass(frozen=True)
class Request:
    """`certificates`: of latency with the memory `flat`. `designs`: that each search judges."""

    certificates: Sequence[Path]
    designs: int = 600
    seeds: int = 10
    workers: int = 1
    searches: Sequence[str] = tuple(SEARCHES)


@dataclass(frozen=True)
class Row:
    """One search of one space. `network`: its name, or its file's. `space`: designs in it.
    `best_ms`: the best latency that is known, proved to be no more than `gap` from the best there
    is. `median_ms`, `worst_ms`: of the best latency that a search ends with, over the seeds."""

    network: str
    board: str
    space: int
    best_ms: float
    gap: float
    search: str
    designs: int
    seeds: int
    median_ms: float
    worst_ms: float
    machine: str

    def regret(self, ms: float) -> float:
        """Of a latency."""
        return ms / self.best_ms - 1


#: `cosim study regret --json`.
Rows = Sequence[Row]


class _Job(NamedTuple):
    """One search, on its way to a process."""

    graph: Graph
    board_name: str
    base: Overlay
    space: Space
    settings: Settings


def run(request: Request) -> list[Row]:
    """Run every search with every seed on every certificate's space; `UserError` for a certificate
    of another objective or memory."""
    rows: list[Row] = []
    for certificate in map(Certificate, request.certificates):
        rows += _rows(certificate, request)
    return rows


def _rows(certificate: Certificate, request: Request) -> Iterator[Row]:
    claim = certificate.claim
    if claim.objectives != (Aim.LATENCY,) or claim.memory != SEARCH_MEMORY:
        raise UserError(f"{certificate.path}: proves {', '.join(claim.objectives)} with the memory "
                        f"{claim.memory}; regret is of latency with {SEARCH_MEMORY}")
    graph, base, space = workload(claim.workload), certificate.design(), certificate.document.space
    jobs = [_Job(graph, claim.board, base, space,
                 replace(SEARCHES[name], designs=request.designs, seed=seed))
            for name in request.searches for seed in range(request.seeds)]
    with forked(_end, request.workers) as there:
        ends = list(there.map(jobs))
    (claimed,), (bound,) = claim.best[0].figures, claim.best[0].bound
    best = min([claimed, *ends])  # a proof that ran out of time may know a worse one
    for place, name in enumerate(request.searches):
        mine = ends[place * request.seeds:(place + 1) * request.seeds]
        yield Row(Path(claim.workload).name, claim.board, claim.designs, best, 1 - bound / best,
                  name, request.designs, request.seeds, median(mine), max(mine), machine())


def _end(job: _Job) -> float:
    """The best latency that one search ends with, in ms; `UserError` if it met no feasible one."""
    board = board_named(job.board_name)
    bound = bounder(job.graph, board, job.base)
    start = beginning(job.space, job.base, board, job.settings, bound)
    found = search(lambda choices: [outcome(job.graph, board, job.base, choice)
                                    for choice in choices], job.space, job.settings, start,
                   bound=bound)
    met = [record.evaluation.latency_ms for record in found.records if record.evaluation]
    if not met:
        raise UserError(f"designs: {job.settings.designs} are too few for {job.settings.sampler}, "
                        f"seed {job.settings.seed}, to meet a feasible one; take more")
    return min(met)


def recorded(path: Path = RECORDED) -> list[Row]:
    """The rows that the project carries."""
    return [decode(Row, item, f"{path}: row {number}")
            for number, item in enumerate(read_json(path))]


HEAD = ("network", "designs", "best known, ms", "a better one: at most", "search",
        "median regret", "worst")
RIGHT = (1, 2, 3, 5, 6)


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table's lines, by network."""
    return [(row.network, f"{row.space:.2e}", f"{row.best_ms:.3f}", f"{row.gap:.2%}", row.search,
             f"{row.regret(row.median_ms):.2%}", f"{row.regret(row.worst_ms):.2%}")
            for row in rows]


def page(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    return markdown_table(HEAD, lines(rows), RIGHT)


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table."""
    table = grid("Regret of latency (predicted, flat)", HEAD, left=("search",))
    for line in lines(rows):
        table.add_row(*line)
    console.print(table)
