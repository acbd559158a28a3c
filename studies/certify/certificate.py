"""Certificates: a file that says how a space was cut into boxes, and why each holds nothing better.

It searches nothing and takes nothing from the search: a checker reads the file, sees that the parts
of every box are disjoint and together the box, works every bound out again, and simulates the best
design.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.files import parse_toml
from arch_models.overlay import Infeasible, Overlay, overlay_of_table, overlay_toml
from studies.certify.bounds import Bounds, Question, Rule, gap
from studies.certify.boxes import Box
from studies.evaluation.evaluate import evaluate
from studies.evaluation.inputs import memory_model
from studies.plain.errors import UserError
from studies.plain.files import read_json, write_json
from studies.plain.records import encode, header, load_flat
from studies.search.identity import digest
from studies.search.sources import ENTRY, simulator_digest
from studies.search.space import Space, Value
from studies.search.space_file import check_space
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph

KIND = "certificate"
#: Two machines may round a figure otherwise; so much of it is forgiven when it is compared.
FORGIVEN = 1e-12


@dataclass(frozen=True)
class Claim:
    """What a certificate says: no design is faster than `bound_ms`; this one takes `best_ms`.

    `workload` and `board`: as they were asked for, a name or a file."""

    workload: str
    board: str
    memory: str
    best_ms: float
    bound_ms: float
    designs: int
    choice: Mapping[str, Value]


@dataclass(frozen=True)
class Node:
    """A box: cut along an axis into parts, or excluded by a rule. `values`: those that a part has
    of the axis along which the box around it is cut."""

    values: tuple[Value, ...] = ()
    axis: str = ""
    parts: tuple[Node, ...] = ()
    rule: Rule | None = None


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


def tree(bounds: Bounds, box: Box, bound_ms: float) -> dict[str, Any]:
    """How a box is cut so that each part is excluded; no search has a say in it."""
    found = bounds.bound(box, bound_ms)
    if found.ms >= bound_ms:
        return {"rule": found.rule.value}
    parts = bounds.cut(box)
    if not parts:
        return {"rule": Rule.TABLE.value}
    name = next(side[0] for side in parts[0].sides
                if parts[0].values(side[0]) != box.values(side[0]))
    return {"axis": name, "parts": [{"values": list(part.values(name)),
                                     **tree(bounds, part, bound_ms)} for part in parts]}


def certificate(bounds: Bounds, claim: Claim, command: str = "") -> dict[str, Any]:
    """The document, with its checksum. `command`: the one that proves."""
    question = bounds.question
    document = {
        **header(KIND, command), "predicted": True, "claim": encode(claim),
        "layers": layers_digest(question.graph), "board_file": digest(question.board),
        "design": overlay_toml(question.base), "program": program_digest(),
        "space": encode(question.space),
        "boxes": tree(bounds, Box(question.space), claim.bound_ms),
    }
    return {**document, "sha256": _sum(document)}


def program_digest() -> str:
    """Of all that bounds and simulates."""
    return simulator_digest((*ENTRY, "studies/certify/branch.py"))


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

    def check(self, question: Question, told: Callable[[int], None] = lambda _: None) -> Checked:
        """Work everything out again; `UserError` that names the first thing that is not so.

        `told`: is handed the boxes that hold so far."""
        self._same(question)
        bounds = Bounds(question)
        counted = {"boxes": 0, "tables": 0, "programs": 0}
        self._value(question)
        self._box(bounds, Box(question.space), self.document.boxes, counted, told)
        return Checked(**counted)

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
        self._hold(0 <= self.claim.bound_ms <= self.claim.best_ms, "it says that none is below "
                   f"{self.claim.bound_ms} ms, and that one takes {self.claim.best_ms}")

    def _hold(self, so: bool, otherwise: str) -> None:
        if not so:
            other = (" (another version of this program wrote it)"
                     if self.document.program != program_digest() else "")
            raise UserError(f"{self.path}: does not hold: {otherwise}{other}")

    def _value(self, question: Question) -> None:
        """Simulate the best design."""
        claim = self.claim
        choice = question.space.canonical(claim.choice)
        self._hold(question.space.broken(choice) is None, "its best design breaks a constraint")
        overlay = overlay_of(choice, question.base, question.board)
        found = evaluate(question.graph, overlay, question.board, memory_model(claim.memory), 1)
        self._hold(not isinstance(found, Infeasible), f"its best design is infeasible: {found}")
        assert not isinstance(found, Infeasible)
        self._hold(abs(found.latency_ms - claim.best_ms) <= FORGIVEN * claim.best_ms,
                   f"its best design takes {found.latency_ms} ms, not {claim.best_ms}")

    def _box(self, bounds: Bounds, box: Box, node: Node, counted: dict[str, int],
             told: Callable[[int], None]) -> None:
        if node.parts or node.axis:
            for part in self._parts(box, node):
                self._box(bounds, box.narrowed(**{node.axis: part.values}), part, counted, told)
            return
        counted["boxes"] += 1
        least = self.claim.bound_ms * (1 - FORGIVEN)
        self._hold(node.rule is not None, f"nothing is said of box {dict(box.sides)}")
        if node.rule is Rule.TABLE:
            self._table(bounds, box, least, counted)
        else:
            found = bounds.bound(box, least).ms
            self._hold(found >= least, f"box {dict(box.sides)} has the bound {found} ms, below "
                       f"{self.claim.bound_ms}")
        told(counted["boxes"])

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

    def _table(self, bounds: Bounds, box: Box, least: float, counted: dict[str, int]) -> None:
        self._hold(not bounds.cut(box), f"box {dict(box.sides)} is too large for a table")
        counted["tables"] += 1
        for _, part in bounds.opened(box, least):
            for item in bounds.programs_of(part):
                counted["programs"] += 1
                self._hold(item.bound_ms >= least, f"design {item.timed.choice} may take "
                           f"{item.bound_ms} ms, below {self.claim.bound_ms}")


def question_of(certificate: Certificate, graph: Graph, board: Board) -> Question:
    """The question that a certificate answers."""
    return Question(graph, board, certificate.design(), certificate.document.space)


def said(claim: Claim) -> str:
    """What is claimed, for a person."""
    return (f"the best design found takes {claim.best_ms:.6g} ms ({claim.memory}, predicted); none "
            f"of the {claim.designs:.3g} designs is below {claim.bound_ms:.6g} ms; gap "
            f"{gap(claim.best_ms, claim.bound_ms):.2%}")


__all__ = ["KIND", "Certificate", "Checked", "Claim", "Document", "certificate", "layers_digest",
           "program_digest", "question_of", "said", "write_certificate"]
