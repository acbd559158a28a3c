"""Closed boxes on disk, so that a proof goes on after a kill.

It closes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arch_models.files import parse_json
from studies.certify.boxes import Sides
from studies.certify.branching.closing import Asked, Closed
from studies.certify.goals import Aim, Bar, Member, Point
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_text
from studies.plain.journal import append_lines, whole_lines
from studies.plain.records import decode, encode
from studies.search.space import Value


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
