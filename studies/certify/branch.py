"""Branch and bound: the fastest design of a space, or how much faster one could be at most.

It has no bound of its own (`bounds`) and writes no certificate. The box with the lowest bound is
cut first. Tables are made by several processes; which one makes what changes only the time.
"""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log10
from pathlib import Path
from typing import NamedTuple

from arch_models.fields import FieldError
from arch_models.files import parse_json
from arch_models.overlay import Infeasible
from studies.certify.bounds import Bounds, Question, gap
from studies.certify.boxes import Box, Sides
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_text
from studies.plain.journal import append_lines, whole_lines
from studies.plain.records import decode, encode
from studies.plain.stopping import Stopped, taken
from studies.plain.workers import forked
from studies.search.dask_workers import connected
from studies.search.space import Choice, Value
from studies.search.space_overlays import nearest_choice, overlay_of, starting_choices


class Best(NamedTuple):
    """A design that was simulated."""

    ms: float
    choice: Choice

    @property
    def order(self) -> tuple[float, str]:
        """Of equally fast designs the first in this order is the best."""
        return self.ms, json.dumps(self.choice, sort_keys=True)


class Closed(NamedTuple):
    """What became of a box that is not cut. `least_ms`: the lowest bound of a program in it that
    was not excluded before it was looked at; `best`: the best design that was simulated."""

    least_ms: float
    best: Best | None
    boxes: int


@dataclass(frozen=True)
class Settings:
    """`memory`: `flat` or `ddr3`. `gap`: by which part the best design may be slower than the
    bound. `seconds`: when to end at the latest."""

    memory: str = "flat"
    gap: float = 0.0
    seconds: float = inf


@dataclass(frozen=True)
class State:
    """How far it is. `excluded`: designs, as a power of ten; `boxes`: bounded so far."""

    best: Best
    bound_ms: float
    open: int
    excluded: float
    boxes: int
    seconds: float

    @property
    def gap(self) -> float:
        """How much slower the best design is than the bound, as a part of the former."""
        return gap(self.best.ms, self.bound_ms)


class Open(NamedTuple):
    """A box that may hold something better. The lowest bound comes first, then the oldest."""

    ms: float
    number: int
    box: Box


@dataclass
class Closer:
    """Closes boxes in one process; it keeps its tables."""

    question: Question
    settings: Settings

    @cached_property
    def bounds(self) -> Bounds:
        """Made where it is used."""
        return Bounds(self.question)

    def value(self, choice: Choice) -> float:
        """The latency of a design in ms; infinite if it cannot be built."""
        question = self.question
        try:
            overlay = overlay_of(choice, question.base, question.board)
        except FieldError:
            return inf
        if question.space.broken(choice):
            return inf
        found = evaluate(question.graph, overlay, question.board, self.settings.memory, 1)
        return inf if isinstance(found, Infeasible) else found.latency_ms

    def close(self, asked: tuple[tuple, float]) -> Closed:
        """Look at a box's table and programs; `asked`: its sides, and the best ms so far."""
        sides, best_ms = asked
        before, least, best = self.bounds.in_tables, inf, None
        target = best_ms * (1 - self.settings.gap)
        for bound_ms, box in self.bounds.opened(Box(self.question.space, sides), target):
            if bound_ms >= target:
                break
            for item in self.bounds.programs_of(box):
                least = min(least, item.bound_ms)
                if item.bound_ms >= target:
                    continue
                found = Best(self.value(item.timed.choice), item.timed.choice)
                if found.ms < inf and (best is None or found.order < best.order):
                    best = found
                target = min(target, found.ms * (1 - self.settings.gap))
        return Closed(least, best, self.bounds.in_tables - before)


@dataclass(frozen=True)
class Line:
    """A closed box as a book holds it: below `target_ms` it was looked at; None: infinite."""

    sides: Sides
    target_ms: float | None
    least_ms: float | None
    best_ms: float | None
    choice: Mapping[str, Value]
    boxes: int

    def closed(self) -> tuple[float, Closed]:
        """Up to which target, and what became of it."""
        best = None if self.best_ms is None else Best(self.best_ms, dict(self.choice))
        return _number(self.target_ms), Closed(_number(self.least_ms), best, self.boxes)


class Book:
    """Closed boxes on disk, a line each, so that a proof goes on after a kill."""

    def __init__(self, path: Path | None, identity: str) -> None:
        """The boxes of a file, made if missing; `UserError` if it is another proof's, or damaged.

        `identity`: its first line."""
        self.path, self.known = path, dict[Sides, tuple[float, Closed]]()
        if path is None:
            return
        check_writable(path)
        lines = whole_lines(path) if path.exists() else []
        if lines and lines[0] != identity:
            raise UserError(f"{path}: holds another proof, or one of another version; take "
                            "another file")
        if not lines:
            write_text(path, identity + "\n")
        for number, text in enumerate(lines[1:], start=2):
            try:
                line = decode(Line, parse_json(text, "content"))
            except ValueError as error:
                raise UserError(f"{path}: line {number} is damaged: {error}. The lines before it "
                                f"are whole: head -n {number - 1} takes them.") from None
            self.known[line.sides] = line.closed()

    def add(self, sides: Sides, target_ms: float, closed: Closed) -> None:
        """Keep one."""
        if self.path is not None:
            best = closed.best or Best(inf, {})
            append_lines(self.path, [json.dumps(encode(Line(
                sides, _finite(target_ms), _finite(closed.least_ms), _finite(best.ms),
                best.choice, closed.boxes)))])


def _finite(number: float) -> float | None:
    return None if number == inf else number


def _number(finite: float | None) -> float:
    return inf if finite is None else finite


@contextmanager
def closers(closer: Closer, workers: int, scheduler: str | None):  # type: ignore[no-untyped-def]
    """(map over boxes, how many at a time): here, in processes, or on Dask workers."""
    if scheduler is not None:
        sent = Closer(closer.question, closer.settings)  # without the bounds worked out here
        with connected(scheduler) as there:
            yield (lambda asked: there.map(_close, sent, asked)), there.width
    elif workers > 1:
        with forked(closer.close, workers) as there:
            yield there.map, workers
    else:
        yield (lambda asked: map(closer.close, asked)), 1


def _close(closer: Closer, asked: tuple[tuple, float]) -> Closed:
    return closer.close(asked)


@dataclass
class Branch:
    """One proof while it goes on. `told` is handed what works the state out, as often as there is
    something new. A box leaves `heap` and `batch` only when its parts are there or it is closed, so
    that a signal may come anywhere."""

    question: Question
    settings: Settings
    book: Book
    told: Callable[[Callable[[], State]], None] = lambda _: None
    best: Best = field(default_factory=lambda: Best(inf, {}))
    least_ms: float = inf  # of programs that were looked at
    in_tables: int = 0
    heap: list[Open] = field(default_factory=list)
    batch: list[Open] = field(default_factory=list)  # not cut any more
    began: float = field(default_factory=time.monotonic)
    signal: int = 0

    def run(self, workers: int = 1, scheduler: str | None = None,
            start: Sequence[Choice] = ()) -> State:
        """To the end, to the time limit or to a signal. `start`: designs to simulate first."""
        closer = Closer(self.question, self.settings)
        self.bounds = closer.bounds
        self._number = itertools.count()
        root = Open(0.0, next(self._number), Box(self.question.space))
        self.heap.append(root)  # nothing is known of it yet
        try:
            first = starting_choices(self.question.space, self.question.base,
                                     self.question.board)
            near = nearest_choice(self.question.base, self.question.space)
            for choice in (*start, *first, near):
                self._meet(Best(closer.value(choice), choice))
            for _, closed in self.book.known.values():
                self._meet(closed.best)
            self._replace(root, [root.box])
            with closers(closer, workers, scheduler) as (answer, width):
                while (self.heap or self.batch) and self._seconds() < self.settings.seconds:
                    self._fill(width)
                    self._close(answer)
                    self.told(self.state)
        except Stopped as stopped:
            taken()
            self.signal = stopped.signal
        return self.state()

    @property
    def target(self) -> float:
        """Boxes with a bound of this are excluded."""
        return self.best.ms * (1 - self.settings.gap)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def state(self) -> State:
        """The bound is the lowest of all that is left."""
        left = [item for item in (*self.heap, *self.batch) if item.ms < self.target]
        bound = min([self.target, self.least_ms, *(item.ms for item in left)])
        excluded = self.question.space.size() - sum(item.box.designs for item in left)
        return State(self.best, bound, len(left), log10(max(1, excluded)),
                     self.in_tables + self.bounds.count, self._seconds())

    def _meet(self, found: Best | None) -> None:
        if found is not None and found.order < self.best.order:
            self.best = found

    def _replace(self, whole: Open, parts: Sequence[Box]) -> None:
        """Put the parts of the first box in its place, once all are bounded. They come behind it:
        their bounds are no lower, their numbers higher."""
        found = [Open(max(whole.ms, self.bounds.bound(part, self.target).ms),
                      next(self._number), part) for part in parts]
        for item in found:
            if item.ms < self.target:
                heapq.heappush(self.heap, item)
        heapq.heappop(self.heap)

    def _fill(self, width: int) -> None:
        """Cut boxes until there are enough to make tables of."""
        while (self.heap and len(self.batch) < width
               and self._seconds() < self.settings.seconds):
            whole = self.heap[0]
            if whole.ms >= self.target:
                self.heap.clear()
                return
            parts = self.bounds.cut(whole.box)
            if parts:
                self._replace(whole, parts)
            else:
                self.batch.append(whole)
                heapq.heappop(self.heap)
            self.told(self.state)

    def _close(self, answer: Callable[[Sequence], Iterable[Closed]]) -> None:
        asked = []
        for item in list(self.batch):
            known = self.book.known.get(item.box.sides)
            if item.ms >= self.target or (known is not None and known[0] >= self.target):
                self._take(known[1] if known is not None else None)
                self.batch.remove(item)
            else:
                asked.append((item.box.sides, self.best.ms))
        target = self.target
        for (sides, _), closed in zip(asked, answer(asked), strict=True):
            self.book.add(sides, target, closed)
            self.in_tables += closed.boxes
            self._take(closed)
            self.batch.pop(0)

    def _take(self, closed: Closed | None) -> None:
        if closed is not None:
            self.least_ms = min(self.least_ms, closed.least_ms)
            self._meet(closed.best)


__all__ = ["Best", "Book", "Branch", "Settings", "State"]
