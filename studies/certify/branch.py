"""Branch and bound: the best designs of a space, or how much better one could be at most.

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
from math import inf, log10, prod
from pathlib import Path
from typing import NamedTuple

from arch_models.fields import FieldError
from arch_models.files import parse_json
from arch_models.overlay import Infeasible
from studies.certify.bounds import Bounds, Opened, Question
from studies.certify.boxes import PACE, Box, Sides
from studies.certify.goals import Aim, Bar, Front, Member, Point, point_of
from studies.certify.programs import quickest_way
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

#: Boxes that are looked at with one front, however many processes there are; programs by ways.
TOGETHER, TOGETHER_BY_WAYS = 4, 64
#: Of so many programs that are left for their ways one is simulated at once.
PROBED = 16


class Asked(NamedTuple):
    """A box that is not cut: its sides, and are its designs of one program, whose table is made?"""

    sides: Sides
    program: bool


class Closed(NamedTuple):
    """What became of a box that is not cut. `left`: the least figures of programs in it that do
    not clear the bar; `found`: designs that were simulated and are among the best; `parts`: what is
    to be looked at by itself: programs way by way, paces each with its table."""

    left: tuple[Point, ...]
    found: tuple[Member, ...]
    boxes: int
    parts: tuple[tuple[Point, Asked], ...] = ()


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
class Closer:
    """Closes boxes in one process; it keeps its tables."""

    question: Question
    settings: Settings

    @cached_property
    def bounds(self) -> Bounds:
        """Made where it is used."""
        return Bounds(self.question)

    def value(self, choice: Choice) -> Member | None:
        """A design with its figures; None if it cannot be built."""
        question = self.question
        try:
            overlay = overlay_of(choice, question.base, question.board)
        except FieldError:
            return None
        found = (None if question.space.broken(choice) else
                 evaluate(question.graph, overlay, question.board, question.memory, 1))
        if found is None or isinstance(found, Infeasible):
            return None
        point = point_of(found)
        return Member(tuple(aim.of(point) for aim in question.aims), choice)

    def close(self, asked: tuple[Asked, Front]) -> Closed:
        """Look at a box's table, or a program's ways, with the best designs so far. One table is
        made of several paces: each one's own waits, as better designs may come."""
        (sides, program), front = asked
        box, before = Box(self.question.space, sides), self.bounds.in_tables
        closing = _Closing(self, front, Front(front.aims))
        if program:
            closing.simulate(box)
        elif PACE in box.open:
            closing.parts += [(point, Asked(own.sides, False))
                              for point, own in self.bounds.paces(box, closing.bar())]
        else:
            closing.look(self.bounds.opened(box, closing.bar()))
        bar = closing.bar()
        return Closed(tuple(point for point in closing.left if not bar.cleared(point)),
                      closing.found.members, self.bounds.in_tables - before,
                      tuple(item for item in closing.parts if not bar.cleared(item[0])))


@dataclass
class _Closing:
    """A box while its programs are looked at. `front`: the best designs; `found`: those of it that
    are new; `left`: what is not excluded; `parts`: what is looked at later."""

    closer: Closer
    front: Front
    found: Front
    left: list[Point] = field(default_factory=list)
    parts: list[tuple[Point, Asked]] = field(default_factory=list)

    def bar(self) -> Bar:
        """What clears it is excluded."""
        return self.front.bar(self.closer.settings.factor)

    def look(self, opened: Sequence[Opened]) -> None:
        """Exclude programs, or simulate a design of each; or leave them for their ways."""
        if self.closer.question.by_ways:
            for item in opened[::PROBED]:
                self._meet(item.box.design(quickest_way(item.box)))
            self.parts += [(item.point, Asked(item.box.sides, True)) for item in opened]
            return
        for item in opened:
            if self.bar().cleared(item.point):
                continue
            for program in self.closer.bounds.programs_of(item):
                if not self.bar().cleared(program.point):
                    self.left.append(program.point)
                    self._meet(program.choice)

    def simulate(self, box: Box) -> None:
        """Each way of a program that is not late."""
        for way in self.closer.bounds.early(box, self.bar, lambda: self.front.bar(1.0)):
            self.left.append(Point(way.ms))
            self._meet(way.choice)

    def _meet(self, choice: Choice) -> None:
        new = self.closer.value(choice)
        if new is not None:
            self.front, self.found = self.front.met([new]), self.found.met([new])


@dataclass(frozen=True)
class Line:
    """A closed box as a book holds it: it was looked at below the bar of these `rows`."""

    sides: Sides
    rows: tuple[tuple[float, ...], ...]
    left: tuple[tuple[float, float, float], ...]
    found: tuple[tuple[tuple[float, ...], Mapping[str, Value]], ...]
    boxes: int
    program: bool = False
    parts: tuple[tuple[tuple[float, float, float], Sides, bool], ...] = ()

    def closed(self, aims: tuple[Aim, ...]) -> tuple[Bar, Closed]:
        """Below which bar, and what became of it."""
        return Bar(aims, self.rows), Closed(
            tuple(Point(*item) for item in self.left), tuple(
                Member(figures, dict(choice)) for figures, choice in self.found), self.boxes,
            tuple((Point(*item), Asked(sides, program)) for item, sides, program in self.parts))


class Book:
    """Closed boxes on disk, a line each, so that a proof goes on after a kill."""

    def __init__(self, path: Path | None, identity: str, aims: tuple[Aim, ...] = (Aim.LATENCY,)
                 ) -> None:
        """The boxes of a file, made if missing; `UserError` if it is another proof's, or damaged.

        `identity`: its first line."""
        self.path, self.known = path, dict[Asked, tuple[Bar, Closed]]()
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
            self.known[Asked(line.sides, line.program)] = line.closed(aims)

    def add(self, asked: Asked, bar: Bar, closed: Closed) -> None:
        """Keep one."""
        if self.path is not None:
            append_lines(self.path, [json.dumps(encode(Line(
                asked.sides, bar.rows, tuple(map(_floats, closed.left)),
                tuple((item.figures, item.choice) for item in closed.found), closed.boxes,
                asked.program, tuple((_floats(point), *part) for point, part in closed.parts))))])


def _floats(point: Point) -> tuple[float, float, float]:
    return float(point.ms), float(point.uj), float(point.share)


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


def _close(closer: Closer, asked: tuple[Asked, Front]) -> Closed:
    return closer.close(asked)


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
        closer = Closer(self.question, self.settings)
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
