"""Enumerates a space of a hundred million designs and more, on a GPU or on all cores.

It keeps no table: of every share of the space it keeps counts, a checksum and the front of
latency and energy. Cores lower the programs; with `--device cuda` each core's process gives them
to the GPU, which times all clocks, ports and limits at once (see `cosim.recurrence.cuda`).

    cosim study enumerate --device cuda --json FILE
    cosim study enumerate --device cuda --check 100000 --seed 1

`--check` draws designs of the space at random and compares the device's latency and energy with
those of `Batch.evaluate` on the CPU, bit for bit. It ends with 1 if any differs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, takewhile
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np

from arch_models.board import load_board
from arch_models.overlay import Infeasible, load_overlay
from cosim.recurrence.cuda import CudaTimer, device_name
from studies.evaluation.batch import Batch
from studies.plain.errors import UserError
from studies.plain.machine import machine, processor_seconds
from studies.plain.workers import forked
from studies.proof.enumeration import UNTIMED, Codes, Part, Piece, Walker
from studies.proof.published import BOARD, FOLDER, WORKLOAD
from studies.search.front import pareto_mask
from studies.search.space import Choice
from studies.search.space_file import load_space
from studies.search.space_overlays import overlay_of
from workloads.library import load

SPACE = FOLDER / "search_proof_wide.toml"
#: Choices of a share: a process begins and ends with whole shares.
SHARE = 32
DEVICES = ("cpu", "cuda")

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Summary(NamedTuple):
    """What is kept of designs. Equal whatever the order in which they were met.

    `timed`: recurrences evaluated (a packing takes none of its own); `cycles`: sum of the latency
    cycles of all feasible designs; `front`: float64 (n, 2), ms and uJ a pixel, ascending in
    latency; `codes`: int64 (n,), of equal points the lowest code.
    """

    choices: int
    designs: int
    feasible: int
    timed: int
    cycles: int
    front: np.ndarray
    codes: np.ndarray


class Compared(NamedTuple):
    """Random designs, computed twice: how many, how many of them feasible, how many unequal."""

    designs: int
    feasible: int
    unequal: int


@dataclass
class Mate:
    """One process' part of the work; the GPU is met in that process only."""

    part: Part
    cuda: bool

    def __post_init__(self) -> None:
        self.walker = Walker(self.part, CudaTimer() if self.cuda else None)
        self.plain = Batch(self.part.graph, self.part.board)

    def summarize(self, choices: Sequence[Choice]) -> Summary:
        """The summary of all designs that go on from the choices."""
        return merged(summary(piece) for piece in self.walker.walk(choices))

    def compare(self, groups: Sequence[tuple[Choice, list[Choice]]]) -> Compared:
        """Designs by the choice they go on from: the device's figures against the CPU's."""
        space, base, board = self.part.space, self.part.base, self.part.board
        codes, feasible, unequal, count = Codes(space), 0, 0, 0
        for (_, whole), piece in zip(groups, self.walker.walk(item for item, _ in groups),
                                     strict=True):
            order = np.argsort(piece.codes, axis=None)
            wanted = np.array([codes.code(choice) for choice in whole])
            place = order[np.searchsorted(piece.codes.ravel()[order], wanted)]
            assert np.array_equal(piece.codes.ravel()[place], wanted)
            figures = self.plain.evaluate([overlay_of(item, base, board) for item in whole])
            for one, latency, energy in zip(figures, piece.latency_ms.ravel()[place],
                                            piece.energy_uj_per_pixel.ravel()[place],
                                            strict=True):
                count += 1
                if isinstance(one, Infeasible):
                    unequal += not (np.isnan(latency) and np.isnan(energy))
                else:
                    feasible += 1
                    unequal += (one.latency_ms, one.energy_uj_per_pixel) != (latency, energy)
        return Compared(count, feasible, unequal)


def summary(piece: Piece) -> Summary:
    """The summary of one piece."""
    good = ~np.isnan(piece.latency_ms)
    cycles = int(piece.cycles[good].sum())
    points = np.column_stack([piece.latency_ms[good], piece.energy_uj_per_pixel[good]])
    return _fronted(1, good.size, int(good.sum()), piece.timed, cycles, points,
                    piece.codes[good])


def merged(parts: Iterable[Summary]) -> Summary:
    """The summary of all."""
    found = list(parts)
    return _fronted(*(sum(item[index] for item in found) for index in range(5)),  # type: ignore
                    np.concatenate([np.empty((0, 2)), *(item.front for item in found)]),
                    np.concatenate([np.empty(0, np.int64), *(item.codes for item in found)]))


def _fronted(choices: int, count: int, feasible: int, timed: int, cycles: int,
             points: np.ndarray, codes: np.ndarray) -> Summary:
    # A point enters the front only if its latency is the least at some energy so far.
    order = np.argsort(codes, kind="stable")
    points, codes = points[order], codes[order]
    best = np.flatnonzero(pareto_mask(points))
    best = best[np.argsort(points[best, 0], kind="stable")]
    return Summary(choices, count, feasible, timed, cycles, points[best], codes[best])


@dataclass
class _Process:
    """Makes its mate where it is first asked, in a worker, once."""

    part: Part
    cuda: bool

    @cached_property
    def mate(self) -> Mate:
        return Mate(self.part, self.cuda)


def _name() -> str:
    return device_name()


def spread(work: Callable[[Mate, Item], Answer], items: Iterable[Item], part: Part, cuda: bool,
           workers: int, until: float = float("inf")) -> Iterator[Answer]:
    """Answers; after `until` (of `time.perf_counter`) no further item is begun but the first."""
    process, left = _Process(part, cuda), iter(items)
    begun = chain(islice(left, workers), takewhile(lambda _: time.perf_counter() < until, left))

    def answer(item: Item) -> Answer:
        return work(process.mate, item)

    with forked(answer, workers) as there:
        yield from there.map(begun)


class FrontPoint(TypedDict):
    """A design of the front."""

    latency_ms: float
    energy_uj_per_pixel: float
    choice: Choice


class ComparedFile(TypedDict):
    """What `--check` compared: `unequal` of the feasible ones differ from the CPU's."""

    asked: int
    seed: int
    designs: int
    feasible: int
    unequal: int
    seconds: float


class Enumeration(TypedDict):
    """What `cosim study enumerate --json` writes: `check` with `--check`, else the others."""

    device: str
    machine: str
    workers: int
    check: NotRequired[ComparedFile]
    workload: NotRequired[str]
    board: NotRequired[str]
    space: NotRequired[str]
    shard: NotRequired[str]
    sample: NotRequired[int | None]
    space_designs: NotRequired[int]
    designs_enumerated: NotRequired[int]
    complete: NotRequired[bool]
    feasible: NotRequired[int]
    recurrences: NotRequired[int]
    choices: NotRequired[int]
    latency_cycles_sum: NotRequired[int]
    seconds: NotRequired[float]
    processor_seconds: NotRequired[float]
    best_latency_ms: NotRequired[float | None]
    best_latency_choice: NotRequired[Choice | None]
    front: NotRequired[list[FrontPoint]]


def enumerate_wide(part: Part, cuda: bool, workers: int, shard: tuple[int, int],
                   sample: int | None, seconds: float) -> dict:
    """The figures of a run; `complete` says whether it met every design of the space."""
    began, used = time.perf_counter(), processor_seconds()
    choices = part.outer()
    if sample is not None:
        choices = random.Random(0).sample(choices, min(sample, len(choices)))
    shares = [choices[start : start + SHARE] for start in range(0, len(choices), SHARE)]
    total = merged([])
    told = began
    for found in spread(Mate.summarize, shares[shard[0] :: shard[1]], part, cuda, workers,
                        began + seconds):
        total = merged([total, found])
        if time.perf_counter() - told > 20:
            told = time.perf_counter()
            print(f"{told - began:5.0f} s: {total.designs:,} designs, {total.feasible:,} feasible",
                  flush=True)
    spent = time.perf_counter() - began
    codes = Codes(part.space)
    front = [{"latency_ms": latency, "energy_uj_per_pixel": energy,
              "choice": part.space.canonical(codes.choice(code))}
             for (latency, energy), code in zip(total.front.tolist(), total.codes.tolist(),
                                                strict=True)]
    return {
        "workload": WORKLOAD, "board": BOARD, "space_designs": part.space.size(),
        "designs_enumerated": total.designs, "complete": total.designs == part.space.size(),
        "feasible": total.feasible, "recurrences": total.timed, "choices": total.choices,
        "latency_cycles_sum": total.cycles, "seconds": spent,
        "processor_seconds": processor_seconds() - used,
        "best_latency_ms": front[0]["latency_ms"] if front else None,
        "best_latency_choice": front[0]["choice"] if front else None, "front": front}


def check(part: Part, cuda: bool, workers: int, count: int, seed: int, seconds: float) -> dict:
    """Compare random designs; designs that share programs are compared together."""
    began, draw = time.perf_counter(), random.Random(seed)
    groups: dict[tuple, tuple[Choice, list[Choice]]] = {}
    for _ in range(count):
        choice = part.space.sample(draw)
        outer = {name: value for name, value in choice.items() if name not in UNTIMED}
        groups.setdefault(tuple(outer.items()), (outer, []))[1].append(choice)
    every = list(groups.values())
    shares = [every[start : start + SHARE] for start in range(0, len(every), SHARE)]
    total = Compared(0, 0, 0)
    for found in spread(Mate.compare, shares, part, cuda, workers, began + seconds):
        total = Compared(*(one + other for one, other in zip(total, found, strict=True)))
    return {"asked": count, "seed": seed, **total._asdict(),
            "seconds": time.perf_counter() - began}


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard: {text!r}, must be i/n with 0 <= i < n, for example 0/4")
    return int(index), int(count)


@dataclass(frozen=True)
class Request:
    """What to enumerate, and how. `shard`: "i/n", every n-th share from the i-th on.

    `sample`: only so many choices of what needs lowering. `limit_seconds`: begin no further share
    after that; the figures are then partial. `check`: instead of that, compare so many designs,
    drawn at random with `seed`, with the CPU.
    """

    device: str = "cpu"
    space: Path = SPACE
    workers: int = 1
    shard: str = "0/1"
    sample: int | None = None
    limit_seconds: float = float("inf")
    check: int = 0
    seed: int = 1


def run(given: Request) -> dict:
    """What was asked, as JSON values; `UserError` for what cannot be, `CudaError` without a GPU."""
    if given.device not in DEVICES:
        raise UserError(f"--device: {given.device!r}, must be one of {', '.join(DEVICES)}")
    shard, cuda = _shard(given.shard), given.device == "cuda"
    graph, board = load(WORKLOAD), load_board(BOARD)
    part = Part(graph, board, load_overlay("default"), load_space(given.space, board, graph))
    name = "cpu"
    if cuda:
        # A process of its own: this one forks, and a fork must not hold a context.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            name = pool.submit(_name).result()
    found: dict = {"device": name, "machine": machine(), "workers": given.workers}
    print(f"{part.space.size():,} designs, device {name}, {given.workers} processes", flush=True)
    if given.check:
        found["check"] = check(part, cuda, given.workers, given.check, given.seed,
                               given.limit_seconds)
    else:
        found |= enumerate_wide(part, cuda, given.workers, shard, given.sample,
                                given.limit_seconds)
        found |= {"space": given.space.name, "shard": given.shard, "sample": given.sample}
    return found


def told(given: Request, found: dict) -> str:
    """The figures in a sentence."""
    if given.check:
        result = found["check"]
        return (f"compared {result['designs']:,} designs, {result['feasible']:,} feasible, "
                f"unequal = {result['unequal']}, {result['seconds']:.1f} s")
    return (f"{found['designs_enumerated']:,} designs{'' if found['complete'] else ' (partial)'}, "
            f"{found['feasible']:,} feasible, {found['recurrences']:,} recurrences, "
            f"{found['seconds']:.1f} s, {found['processor_seconds']:.1f} s of all cores, sum of "
            f"cycles {found['latency_cycles_sum']}, best latency {found['best_latency_ms']} ms")


def passed(given: Request, found: dict) -> bool:
    """Were as many designs compared as asked, and all equal? An enumeration always passes."""
    return not given.check or (not found["check"]["unequal"]
                               and found["check"]["designs"] == given.check)
