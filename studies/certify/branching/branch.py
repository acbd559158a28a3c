"""Branch and bound: the best designs of a space, or how much better one could be at most.

It has no bound of its own (`bounds`) and writes no certificate. The box with the lowest bound is
cut first; what cannot be cut is closed (`closing`).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, log10, prod
from typing import NamedTuple

from studies.certify.bounds import Question
from studies.certify.boxes import Box
from studies.certify.branching.book import Book
from studies.certify.branching.closing import Asked, Closed, Closer, closers
from studies.certify.goals import Bar, Front, Member, Point
from studies.plain.stopping import Stopped, taken
from studies.search.space import Choice
from studies.search.space_overlays import nearest_choice, starting_choices

#: Boxes that are looked at with one front, however many processes there are; programs by ways.
TOGETHER, TOGETHER_BY_WAYS = 4, 64


@dataclass(frozen=True)
class Settings:
    """`gap`: by which part the best designs may be worse than the bound; `seconds`: when to end."""

    gap: float = 0.0
    seconds: float = inf

    @property
    def factor(self) -> float:
        """What clears the bar of this part of the best figures is left alone."""
        return 1 - self.gap


@dataclass(frozen=True)
class State:
    """How far it is. `factor`: no design is better than this part of some of the `front`;
    `excluded`: designs, as a power of ten; `boxes`: bounded so far."""

    front: Front
    factor: float
    open: int
    excluded: float
    boxes: int
    seconds: float

    @property
    def gap(self) -> float:
        """By which part the best designs are worse than the bound at most."""
        return max(0.0, 1 - self.factor)


class Open(NamedTuple):
    """A box that may hold something better. The lowest bound comes first, then the oldest."""

    order: float
    number: int
    point: Point
    box: Box
    program: bool = False

    @property
    def asked(self) -> Asked:
        """What is closed."""
        return Asked(self.box.sides, self.program)


@dataclass
class Branch:
    """One proof while it goes on. `told` is handed what works the state out, as often as that is
    new. A box leaves `heap` and `batch` only when its parts are there or it is closed, so that a
    signal may come anywhere."""

    question: Question
    settings: Settings
    book: Book
    told: Callable[[Callable[[], State]], None] = lambda _: None
    front: Front = field(init=False)
    left: list[Point] = field(default_factory=list)  # of programs that were looked at
    in_tables: int = 0
    heap: list[Open] = field(default_factory=list)
    batch: list[Open] = field(default_factory=list)  # not cut any more
    began: float = field(default_factory=time.monotonic)
    signal: int = 0

    def __post_init__(self) -> None:
        self.front = Front(self.question.aims)

    def run(self, workers: int = 1, scheduler: str | None = None,
            start: Sequence[Choice] = ()) -> State:
        """To the end, to the time limit or to a signal. `start`: designs to simulate first."""
        closer = Closer(self.question, self.settings.factor)
        self.bounds = closer.bounds
        self._number = itertools.count()
        root = Open(0.0, next(self._number), Point(0.0), Box(self.question.space))
        self.heap.append(root)  # nothing is known of it yet
        try:
            space, base = self.question.space, self.question.base
            first = starting_choices(space, base, self.question.board)
            for choice in (*start, *first, nearest_choice(base, space)):
                self._meet([closer.value(choice)])
            for _, closed in self.book.known.values():
                self._meet(closed.found)
            self._replace(root, [root.box])
            with closers(closer, workers, scheduler) as (answer, width):
                if len(self.question.aims) > 1:
                    width = TOGETHER  # designs of a front depend on what was looked at before
                width = TOGETHER_BY_WAYS if self.question.by_ways else width
                while (self.heap or self.batch) and self._seconds() < self.settings.seconds:
                    self._fill(width)
                    self._close(answer)
                    self.told(self.state)
        except Stopped as stopped:
            taken()
            self.signal = stopped.signal
        return self.state()

    @property
    def bar(self) -> Bar:
        """Boxes that clear it are excluded."""
        return self.front.bar(self.settings.factor)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def state(self) -> State:
        """The factor is that which all that is left allows."""
        bar = self.bar
        left = [item for item in (*self.heap, *self.batch) if not bar.cleared(item.point)]
        factor = self.front.reach([*self.left, *(item.point for item in left)],
                                  self.settings.factor)
        excluded = self.question.space.size() - sum(item.box.designs for item in left)
        return State(self.front, factor, len(left), log10(max(1, excluded)),
                     self.in_tables + self.bounds.count, self._seconds())

    def _meet(self, found: Iterable[Member | None]) -> None:
        self.front = self.front.met(item for item in found if item is not None)

    def _open(self, point: Point, box: Box, program: bool = False) -> Open:
        return Open(prod(aim.of(point) for aim in self.question.aims), next(self._number), point,
                    box, program)

    def _replace(self, whole: Open, parts: Sequence[Box]) -> None:
        """Put the parts of the first box in its place, once all are bounded. They come behind it:
        their bounds are no lower, their numbers higher."""
        bar = self.bar
        found = [self._open(self.bounds.bound(part, bar).point.raised(whole.point), part)
                 for part in parts]
        for item in found:
            if not bar.cleared(item.point):
                heapq.heappush(self.heap, item)
        heapq.heappop(self.heap)

    def _fill(self, width: int) -> None:
        """Cut boxes until there are enough to make tables of."""
        while self.heap and len(self.batch) < width and self._seconds() < self.settings.seconds:
            whole = self.heap[0]
            if self.bar.cleared(whole.point):
                heapq.heappop(self.heap)
                continue
            parts = [] if whole.program else self.bounds.cut(whole.box)
            if parts:
                self._replace(whole, parts)
            else:
                self.batch.append(whole)
                heapq.heappop(self.heap)
            self.told(self.state)

    def _close(self, answer: Callable[[Sequence], Iterable[Closed]]) -> None:
        asked, bar = [], self.bar
        if self.question.by_ways:  # what takes longest first: processes end at about one time
            self.batch.sort(key=lambda item: item.box.designs, reverse=True)
        for item in list(self.batch):
            known = self.book.known.get(item.asked)
            if known is not None and not bar.as_strict(known[0]):
                known = None
            if known is not None or bar.cleared(item.point):
                self._take(known[1] if known is not None else None)
                self.batch.remove(item)
            else:
                asked.append((item.asked, self.front))
        for (whole, _), closed in zip(asked, answer(asked), strict=True):
            self.book.add(whole, bar, closed)
            self.in_tables += closed.boxes
            self._take(closed)
            self.batch.pop(0)
            if self._seconds() >= self.settings.seconds:
                return

    def _take(self, closed: Closed | None) -> None:
        if closed is not None:
            self._meet(closed.found)
            self.left += [item for item in closed.left if not self.bar.cleared(item)]
            for point, (sides, program) in closed.parts:
                if not self.bar.cleared(point):
                    box = Box(self.question.space, sides)
                    heapq.heappush(self.heap, self._open(point, box, program))
