"""Branch and bound: the fastest design of a space, or how much faster one could be at most.

It has no bound of its own (`bounds`) and writes no certificate. The box with the lowest bound is
cut first. Tables are made by several processes; which one makes what changes only the time.
"""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log10
from pathlib import Path
from typing import Any, NamedTuple

from arch_models.fields import FieldError
from arch_models.overlay import Infeasible
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import Box
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from studies.plain.stopping import Stopped, taken
from studies.plain.workers import forked
from studies.search.dask_workers import connected
from studies.search.space import Choice
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
        return max(0.0, 1 - self.bound_ms / self.best.ms)


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
        before, least, best = self.bounds.count, inf, None
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
        return Closed(least, best, self.bounds.count - before)


class Book:
    """Closed boxes on disk, a line each, so that a proof goes on after a kill."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self.path, self.known = path, dict[Any, tuple[float, Closed]]()
        if path is None:
            return
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if lines and lines[0] != identity:
            raise UserError(f"{path}: holds another proof, or one of another version; take "
                            "another file")
        if not lines:
            path.write_text(identity + "\n", "utf-8")
        for line in lines[1:]:
            try:
                sides, target, least, best, boxes = json.loads(line)
            except ValueError:
                continue  # cut short by a kill
            self.known[_sides(sides)] = target, Closed(
                inf if least is None else least, Best(*best) if best else None, boxes)

    def add(self, sides: Any, target: float, closed: Closed) -> None:
        """Keep one."""
        if self.path is not None:
            least = None if closed.least_ms == inf else closed.least_ms
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([sides, target, least, closed.best, closed.boxes]) + "\n")


def _sides(values: Iterable) -> tuple:
    return tuple((name, tuple(side)) for name, side in values)


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
    """One proof while it goes on."""

    question: Question
    settings: Settings
    book: Book
    told: Callable[[State], None] = lambda _: None
    best: Best = field(default_factory=lambda: Best(inf, {}))
    least_ms: float = inf  # of programs that were looked at
    boxes: int = 0
    heap: list[tuple[float, int, Box]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    signal: int = 0

    def run(self, workers: int = 1, scheduler: str | None = None,
            start: Sequence[Choice] = ()) -> State:
        """To the end, to the time limit or to a signal."""
        closer = Closer(self.question, self.settings)
        self.bounds = closer.bounds
        self._number = itertools.count()
        root = Box(self.question.space)
        batch: list[tuple[float, Box]] = []
        try:
            first = starting_choices(self.question.space, self.question.base,
                                     self.question.board)
            near = nearest_choice(self.question.base, self.question.space)
            for choice in (*start, *first, near):
                self._meet(Best(closer.value(choice), choice))
            for _, closed in self.book.known.values():
                self._meet(closed.best)
            self._push(root)
            with closers(closer, workers, scheduler) as (answer, width):
                while (self.heap or batch) and self._seconds() < self.settings.seconds:
                    self._fill(batch, width)
                    self._close(answer, batch)
                    self.told(self.state([item[0] for item in batch]))
        except Stopped as stopped:
            taken()
            self.signal = stopped.signal
        return self.state([item[0] for item in batch])

    @property
    def target(self) -> float:
        """Boxes with a bound of this are excluded."""
        return self.best.ms * (1 - self.settings.gap)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def state(self, pending: Sequence[float] = ()) -> State:
        """The bound is the lowest of all that is left."""
        waiting = [item[0] for item in self.heap if item[0] < self.target]
        bound = min([self.target, self.least_ms, *waiting, *pending])
        left = sum(item[2].size() for item in self.heap[:2000] if item[0] < self.target)
        excluded = max(1, self.question.space.size() - left)
        return State(self.best, bound, len(waiting) + len(pending), log10(excluded),
                     self.boxes + self.bounds.count, self._seconds())

    def _meet(self, found: Best | None) -> None:
        if found is not None and found.order < self.best.order:
            self.best = found

    def _push(self, box: Box, at_least: float = 0.0) -> None:
        bound = max(at_least, self.bounds.bound(box, self.target).ms)
        if bound < self.target:
            heapq.heappush(self.heap, (bound, next(self._number), box))

    def _fill(self, batch: list[tuple[float, Box]], width: int) -> None:
        """Cut boxes until there are enough to make tables of."""
        while self.heap and len(batch) < width and self._seconds() < self.settings.seconds:
            bound, _, box = heapq.heappop(self.heap)
            if bound >= self.target:
                self.heap.clear()
                return
            smaller = self.bounds.cut(box)
            if not smaller:
                batch.append((bound, box))
            for part in smaller:
                self._push(part, bound)

    def _close(self, answer: Callable[[Sequence], Iterable[Closed]],
               batch: list[tuple[float, Box]]) -> None:
        asked = []
        for bound, box in list(batch):
            known = self.book.known.get(box.sides)
            if bound >= self.target or (known is not None and known[0] >= self.target):
                self._take(known[1] if known is not None else None)
                batch.remove((bound, box))
            else:
                asked.append((box.sides, self.best.ms))
        target = self.target
        for (sides, _), closed in zip(asked, answer(asked), strict=True):
            self.book.add(sides, target, closed)
            self.boxes += closed.boxes
            self._take(closed)
            batch.pop(0)

    def _take(self, closed: Closed | None) -> None:
        if closed is not None:
            self.least_ms = min(self.least_ms, closed.least_ms)
            self._meet(closed.best)


__all__ = ["Best", "Book", "Branch", "Settings", "State"]
