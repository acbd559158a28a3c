"""Boxes that are not cut: what their tables and programs leave, and designs met meanwhile.

It chooses no box (`branch`) and has no bound of its own (`bounds`). Several processes close boxes;
which one closes what changes only the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from arch_models.fields import FieldError
from arch_models.overlay import Infeasible
from studies.certify.bounds import Bounds, Opened, Question
from studies.certify.boxes import PACE, Box, Sides
from studies.certify.goals import Bar, Front, Member, Point, point_of
from studies.certify.runs.programs import quickest_way
from studies.evaluation.evaluate import evaluate
from studies.plain.workers import forked
from studies.search.dask_workers import connected
from studies.search.space import Choice
from studies.search.space_overlays import overlay_of

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


@dataclass
class Closer:
    """Closes boxes in one process; it keeps its tables. `factor`: what clears the bar of this part
    of the best figures is left alone."""

    question: Question
    factor: float

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
        return self.front.bar(self.closer.factor)

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


@contextmanager
def closers(closer: Closer, workers: int, scheduler: str | None):  # type: ignore[no-untyped-def]
    """(map over boxes, how many at a time): here, in processes, or on Dask workers."""
    if scheduler is not None:
        sent = Closer(closer.question, closer.factor)  # without the bounds worked out here
        with connected(scheduler) as there:
            yield (lambda asked: there.map(_close, sent, asked)), there.width
    elif workers > 1:
        with forked(closer.close, workers) as there:
            yield there.map, workers
    else:
        yield (lambda asked: map(closer.close, asked)), 1


def _close(closer: Closer, asked: tuple[Asked, Front]) -> Closed:
    return closer.close(asked)
