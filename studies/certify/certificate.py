"""Certificates: a file that says how a space was cut into boxes, and why each holds nothing better.

It searches nothing and takes nothing from the search: a checker reads the file, sees that the parts
of every box are disjoint and together the box, works every bound out again, and simulates the best
design.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.files import parse_toml
from arch_models.overlay import Infeasible, Overlay, overlay_of_table, overlay_toml
from studies.certify.bounds import Bounds, Opened, Question, Rule
from studies.certify.boxes import Box
from studies.certify.goals import Aim, Bar, Front, Point, aims_of, point_of
from studies.evaluation.evaluate import evaluate
from studies.evaluation.inputs import memory_model
from studies.plain.errors import UserError
from studies.plain.files import read_json, write_json
from studies.plain.records import encode, header, load_flat
from studies.plain.workers import forked
from studies.search.identity import digest
from studies.search.sources import ENTRY, simulator_digest
from studies.search.space import Space, Value
from studies.search.space_file import check_space
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph

KIND = "certificate"
#: Two machines may round a figure otherwise; so much of it is forgiven when it is compared.
FORGIVEN = 1e-12
#: Axes of the array: boxes of one array share what is worked out, in one process alone.
ARRAY = ("tm", "tn", "columns", "dsp_packing")
TABLES = frozenset({Rule.TABLE, Rule.WAYS})
#: Parts for each process in which programs are handed out.
SHARES = 8


@dataclass(frozen=True)
class Claimed:
    """A design with its figures, one an objective, and so many parts of them as are claimed."""

    figures: tuple[float, ...]
    bound: tuple[float, ...]
    choice: Mapping[str, Value]


@dataclass(frozen=True)
class Claim:
    """What a certificate says: every design of the space is, in every objective, at least at the
    `bound` of one of these.

    `workload` and `board`: as they were asked for, a name or a file."""

    workload: str
    board: str
    memory: str
    objectives: tuple[Aim, ...]
    designs: int
    best: tuple[Claimed, ...]

    @property
    def gap(self) -> float:
        """By which part of its figures a design that is named is above its bound at most."""
        return max(max(0.0, 1 - low / mine) for item in self.best
                   for mine, low in zip(item.figures, item.bound, strict=True))

    def bar(self, factor: float = 1.0) -> Bar:
        """What clears it is no better than claimed."""
        return Bar(self.objectives, tuple(tuple(factor * low for low in item.bound)
                                          for item in self.best))


@dataclass(frozen=True)
class Node:
    """A box: cut along an axis into parts, or excluded by a rule. `values`: those that a part has
    of the axis along which the box around it is cut."""

    values: tuple[Value, ...] = ()
    axis: str = ""
    parts: tuple[Node, ...] = ()
    rule: Rule | None = None


#: A box that is not cut, and what is said of it.
Leaf = tuple[Box, Node]


@dataclass(frozen=True)
class Document:
    """A certificate as a file holds it. Digests: of the network's `layers`, the `board_file`, the
    `program` that bounds; `design`: the design file that gives what no axis names."""

    claim: Claim
    layers: str
    board_file: str
    design: str
    program: str
    space: Space
    boxes: Node
    sha256: str


@dataclass(frozen=True)
class Checked:
    """How much was looked at."""

    boxes: int
    tables: int
    programs: int

    def and_(self, other: Checked) -> Checked:
        """Both."""
        return Checked(self.boxes + other.boxes, self.tables + other.tables,
                       self.programs + other.programs)


def claim_of(question: Question, front: Front, factor: float) -> Claim:
    """What is claimed of a front of which no design is better than this part."""
    return Claim(question.workload or question.graph.name, question.board_name
                 or question.board.name, question.memory, question.aims, question.space.size(),
                 tuple(Claimed(item.figures, row, item.choice) for item, row in zip(
                     front.members, front.bar(factor).rows, strict=True)))


def tree(bounds: Bounds, box: Box, bar: Bar) -> dict[str, Any]:
    """How a box is cut so that each part is excluded; no search has a say in it."""
    found = bounds.bound(box, bar)
    if bar.cleared(found.point):
        return {"rule": found.rule.value}
    parts = bounds.cut(box)
    if not parts:
        return {"rule": bounds.last.value}
    name = next(side[0] for side in parts[0].sides
                if parts[0].values(side[0]) != box.values(side[0]))
    return {"axis": name, "parts": [{"values": list(part.values(name)),
                                     **tree(bounds, part, bar)} for part in parts]}


def certificate(bounds: Bounds, claim: Claim, command: str = "") -> dict[str, Any]:
    """The document, with its checksum. `command`: the one that proves."""
    question = bounds.question
    document = {
        **header(KIND, command), "predicted": True, "unchecked": list(question.board.unchecked),
        "claim": encode(claim),
        "layers": layers_digest(question.graph), "board_file": digest(question.board),
        "design": overlay_toml(question.base), "program": program_digest(),
        "space": encode(question.space),
        "boxes": tree(bounds, Box(question.space), claim.bar()),
    }
    return {**document, "sha256": _sum(document)}


def program_digest() -> str:
    """Of all that bounds and simulates."""
    return simulator_digest((*ENTRY, "studies/certify/branching/branch.py"))


def layers_digest(graph: Graph) -> str:
    """Of a network as a certificate holds it."""
    return digest([graph.layers, list(graph.tensors.values())])


def _sum(document: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in document.items() if name != "sha256"},
                      sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_certificate(path: Path, bounds: Bounds, claim: Claim, command: str = "") -> None:
    """Write the file whole or not at all."""
    write_json(path, certificate(bounds, claim, command))


class Work(NamedTuple):
    """What one process checks at a time: boxes that are not cut, or programs that their tables
    leave."""

    leaves: Sequence[Leaf] = ()
    opened: Sequence[Opened] = ()


class Certificate:
    """A certificate file; nothing in it is believed but what is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.document = path, load_flat(path, KIND, Document)
        self.claim = self.document.claim
        if self.document.sha256 != _sum(read_json(path)):
            raise UserError(f"{path}: was changed; its checksum is not that of its contents")

    def design(self) -> Overlay:
        """The base, which gives what no axis names."""
        try:
            return overlay_of_table(parse_toml(self.document.design, str(self.path)))
        except FieldError as error:
            raise UserError(f"{self.path}: design: {error}") from None

    def check(self, question: Question, told: Callable[[int], None] = lambda _: None,
              workers: int = 1) -> Checked:
        """Work everything out again, in several processes; `UserError` that names the first thing
        that is not so.

        `told`: is handed the boxes that hold so far."""
        self._same(question)
        for claimed in self.claim.best:
            self._value(question, claimed)
        leaves = list(self._leaves(Box(question.space), self.document.boxes))
        total, bounds, opened = Checked(0, 0, 0), Bounds(question), list[Opened]()
        with ExitStack() as stack:
            answer = stack.enter_context(forked(partial(self._answer, bounds), workers)).map if (
                workers > 1) else partial(map, partial(self._answer, bounds))
            for found, more in answer([Work(leaves=part) for part in _dealt(leaves, workers)]):
                total, opened = total.and_(found), [*opened, *more.opened]
                told(total.boxes)
            shares = ([(item,) for item in opened] if question.by_ways
                      else _shares(opened, workers))
            for found, _ in answer([Work(opened=part) for part in shares]):
                total = total.and_(found)
                told(total.boxes)
        return total

    def _answer(self, bounds: Bounds, work: Work) -> tuple[Checked, Work]:
        """Bound boxes, and programs, and run programs in each way; what is to be done then."""
        opened, tables, programs, bar = list[Opened](), 0, 0, self._bar()
        for box, node in work.leaves:
            if node.rule in TABLES:
                tables += 1
                self._hold(not bounds.cut(box), f"box {dict(box.sides)} is too large for a table")
                opened += bounds.opened(box, bar)
                continue
            found = bounds.again(box, node.rule, bar).point
            self._hold(bool(bar.cleared(found)), f"box {dict(box.sides)} has the bound "
                       f"{found}, below all of {[item.bound for item in self.claim.best]}")
        for item in work.opened:
            below = ([(early.choice, Point(early.ms))
                      for early in islice(bounds.early(item.box, lambda: bar), 1)]
                     if bounds.question.by_ways else
                     [(program.choice, program.point) for program in bounds.programs_of(item)])
            programs += 1 if bounds.question.by_ways else len(below)
            for choice, point in below:
                self._hold(bool(bar.cleared(point)), f"design {choice} may have {point}, below "
                           f"{[claimed.bound for claimed in self.claim.best]}")
        return Checked(len(work.leaves), tables, programs), Work(opened=tuple(opened))

    def _bar(self) -> Bar:
        return self.claim.bar(1 - FORGIVEN)

    def _same(self, question: Question) -> None:
        graph, board = question.graph, question.board
        for name, then, now in (("layers", self.document.layers, layers_digest(graph)),
                                ("board file", self.document.board_file, digest(board))):
            self._hold(then == now, f"its {name} differ from those of {graph.name} and "
                       f"{board.name} here")
        check_space(f"{self.path}: space", question.space, board, graph)
        self._hold(self.claim.designs == question.space.size(),
                   f"it counts {self.claim.designs} designs, the space has "
                   f"{question.space.size()}")
        self._hold(bool(self.claim.best), "it names no design")
        for item in self.claim.best:
            self._hold(len(item.figures) == len(item.bound) == len(self.claim.objectives) and all(
                0 <= low <= mine for mine, low in zip(item.figures, item.bound, strict=True)),
                f"it says that none is below {item.bound}, and that one has {item.figures}")

    def _hold(self, so: bool, otherwise: str) -> None:
        if not so:
            other = (" (another version of this program wrote it)"
                     if self.document.program != program_digest() else "")
            raise UserError(f"{self.path}: does not hold: {otherwise}{other}")

    def _value(self, question: Question, claimed: Claimed) -> None:
        """Simulate a design that is among the best."""
        choice = question.space.canonical(claimed.choice)
        self._hold(question.space.broken(choice) is None, "its best design breaks a constraint")
        overlay = overlay_of(choice, question.base, question.board)
        found = evaluate(question.graph, overlay, question.board, question.memory, 1)
        self._hold(not isinstance(found, Infeasible), f"its best design is infeasible: {found}")
        assert not isinstance(found, Infeasible)
        point = point_of(found)
        for aim, said_ in zip(question.aims, claimed.figures, strict=True):
            self._hold(abs(aim.of(point) - said_) <= FORGIVEN * said_,
                       f"its best design has {aim.of(point)} in {aim.label}, not {said_}")

    def _leaves(self, box: Box, node: Node) -> Iterator[Leaf]:
        """The boxes that are not cut, which together are the whole."""
        if node.parts or node.axis:
            for part in self._parts(box, node):
                yield from self._leaves(box.narrowed(**{node.axis: part.values}), part)
        else:
            self._hold(node.rule is not None, f"nothing is said of box {dict(box.sides)}")
            yield box, node

    def _parts(self, box: Box, node: Node) -> tuple[Node, ...]:
        """The parts of a box, which must be disjoint, smaller than the box, and together it."""
        name, values = node.axis, [part.values for part in node.parts]
        self._hold(name in {axis.name for axis in box.root.axes},
                   f"box {dict(box.sides)} is cut along {name!r}, which is no axis of the space")
        every = [value for part in values for value in part]
        self._hold(len(values) > 1 and all(values)
                   and sorted(map(repr, every)) == sorted(map(repr, box.values(name))),
                   f"the parts along {name!r} are {values}, not one each of {box.values(name)}")
        return node.parts


def _dealt(leaves: Sequence[Leaf], workers: int) -> list[tuple[Leaf, ...]]:
    """Groups of boxes that one process checks, those that take longest first: those of one array,
    but no more than its share of all."""
    arrays: dict[Any, list[Leaf]] = {}
    for leaf in leaves:
        arrays.setdefault(tuple(map(leaf[0].values, ARRAY)), []).append(leaf)
    most, groups = sum(map(_cost, leaves)) / workers, list[list[Leaf]]()
    for every in arrays.values():
        groups.append([])
        for leaf in every:
            if groups[-1] and sum(map(_cost, groups[-1])) + _cost(leaf) > most:
                groups.append([])
            groups[-1].append(leaf)
    return [tuple(group) for group in sorted(
        groups, key=lambda group: sum(map(_cost, group)), reverse=True)]


def _shares(opened: Sequence[Opened], workers: int) -> list[tuple[Opened, ...]]:
    """Programs in their order, of which neighbours have layers in common, in a few parts for each
    process."""
    size = max(1, -(-len(opened) // (SHARES * workers)))
    return [tuple(opened[start:start + size]) for start in range(0, len(opened), size)]


def _cost(leaf: Leaf) -> int:
    """What a box takes, in boxes without a table: about so many, of proofs of AGC."""
    return 20 if leaf[1].rule in TABLES else 1


def question_of(certificate: Certificate, graph: Graph, board: Board) -> Question:
    """The question that a certificate answers."""
    claim = certificate.claim
    return Question(graph, board, certificate.design(), certificate.document.space,
                    aims_of(",".join(claim.objectives)), memory_model(claim.memory))


def said(claim: Claim) -> str:
    """What is claimed, for a person."""
    if len(claim.objectives) > 1:
        return (f"{len(claim.best)} designs ({claim.memory}, predicted) of which each of the "
                f"{claim.designs:.3g} designs is at least at {1 - claim.gap:.4g} of one in "
                f"{' and '.join(claim.objectives)}; gap {claim.gap:.2%}")
    aim, best = claim.objectives[0], claim.best[0]
    return (f"the best design found has {best.figures[0]:.6g} in {aim.label} ({claim.memory}, "
            f"predicted); none of the {claim.designs:.3g} designs is below {best.bound[0]:.6g}; "
            f"gap {claim.gap:.2%}")


__all__ = ["KIND", "Certificate", "Checked", "Claim", "Document", "certificate", "claim_of",
           "layers_digest",
           "program_digest", "question_of", "said", "write_certificate"]
