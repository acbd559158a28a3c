"""Certificates: a file that says how a space was cut into boxes, and why each holds nothing better.

It searches nothing and takes nothing from the search: a checker reads the file, sees that the parts
of every box are disjoint and together the box, works every bound out again, and simulates the best
design.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.files import parse_toml
from arch_models.overlay import Infeasible, Overlay, overlay_of_table, overlay_toml
from studies.certify.bounds import Bounds, Question, Rule
from studies.certify.boxes import Box
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from studies.plain.files import read_json, write_json
from studies.search.identity import digest
from studies.search.sources import simulator_digest
from studies.search.space import Axis, Combine, Condition, Constraint, Space
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph

FORMAT = "cosim certificate 1"
#: Bounds are sums of floats; so much of a millisecond is forgiven when they are compared.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Claim:
    """What a certificate says: no design is faster than `bound_ms`; this one takes `best_ms`."""

    workload: str
    board: str
    memory: str
    best_ms: float
    bound_ms: float
    designs: int
    choice: Mapping[str, Any]


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


def certificate(bounds: Bounds, claim: Claim) -> dict[str, Any]:
    """The document, with its checksum."""
    question = bounds.question
    document = {
        "format": FORMAT, "predicted": True, "claim": asdict(claim),
        "layers": digest([question.graph.layers, list(question.graph.tensors.values())]),
        "board file": digest(question.board), "design": overlay_toml(question.base),
        "simulator": simulator_digest(),
        "space": {"axes": [[axis.name, list(axis.values), [axis.when.axis, list(axis.when.values)]
                            if axis.when else None] for axis in question.space.axes],
                  "constraints": [[item.how.value, list(item.axes), item.at_most, item.at_least]
                                  for item in question.space.constraints]},
        "boxes": tree(bounds, Box(question.space), claim.bound_ms),
    }
    return {**document, "sha256": _sum(document)}


def _sum(document: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in document.items() if name != "sha256"},
                      sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_certificate(path: Path, bounds: Bounds, claim: Claim) -> None:
    """Write the file whole or not at all."""
    write_json(path, certificate(bounds, claim))


class Certificate:
    """A certificate file; nothing in it is believed but what is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.document = path, read_json(path)
        if not isinstance(self.document, dict) or self.document.get("format") != FORMAT:
            raise UserError(f"{path}: is no certificate; `cosim explore --prove` writes them")
        if self.document.get("sha256") != _sum(self.document):
            raise UserError(f"{path}: was changed; its checksum is not that of its contents")
        self.claim = Claim(**self.document["claim"])

    def space(self) -> Space:
        """The space that it is about."""
        found = self.document["space"]
        return Space(
            tuple(Axis(name, tuple(values), Condition(when[0], tuple(when[1])) if when else None)
                  for name, values, when in found["axes"]),
            constraints=tuple(Constraint(Combine(how), tuple(axes), most, least)
                              for how, axes, most, least in found["constraints"]))

    def design(self) -> Overlay:
        """The base, which gives what no axis names."""
        try:
            return overlay_of_table(parse_toml(self.document["design"], str(self.path)))
        except FieldError as error:
            raise UserError(f"{self.path}: design: {error}") from None

    def check(self, question: Question, told: Callable[[int], None] = lambda _: None) -> Checked:
        """Work everything out again; `UserError` that names the first thing that is not so."""
        self._same(question)
        bounds = Bounds(question)
        counted = {"boxes": 0, "tables": 0, "programs": 0}
        self._value(question)
        self._box(bounds, Box(question.space), self.document["boxes"], counted, told)
        return Checked(**counted)

    def _same(self, question: Question) -> None:
        graph, board = question.graph, question.board
        for name, now in (
                ("layers", digest([graph.layers, list(graph.tensors.values())])),
                ("board file", digest(board))):
            self._hold(self.document[name] == now, f"its {name} differ from those of "
                       f"{graph.name} and {board.name} here")
        self._hold(self.claim.designs == question.space.size(),
                   f"it counts {self.claim.designs} designs, the space has "
                   f"{question.space.size()}")

    def _hold(self, so: bool, otherwise: str) -> None:
        if not so:
            raise UserError(f"{self.path}: does not hold: {otherwise}")

    def _value(self, question: Question) -> None:
        """Simulate the best design."""
        claim = self.claim
        choice = question.space.canonical(claim.choice)
        self._hold(question.space.broken(choice) is None, "its best design breaks a constraint")
        overlay = overlay_of(choice, question.base, question.board)
        found = evaluate(question.graph, overlay, question.board, claim.memory, 1)
        self._hold(not isinstance(found, Infeasible), f"its best design is infeasible: {found}")
        assert not isinstance(found, Infeasible)
        self._hold(abs(found.latency_ms - claim.best_ms) <= ROUNDING * claim.best_ms,
                   f"its best design takes {found.latency_ms} ms, not {claim.best_ms}")

    def _box(self, bounds: Bounds, box: Box, node: Mapping[str, Any], counted: dict[str, int],
             told: Callable[[int], None]) -> None:
        if "axis" in node:
            name, values = node["axis"], [tuple(part["values"]) for part in node["parts"]]
            every = [value for part in values for value in part]
            self._hold(sorted(map(repr, every)) == sorted(map(repr, box.values(name))),
                       f"the parts by {name!r} are {values}, not one each of {box.values(name)}")
            for part, side in zip(node["parts"], values, strict=True):
                self._box(bounds, box.narrowed(**{name: side}), part, counted, told)
            return
        counted["boxes"] += 1
        least = self.claim.bound_ms * (1 - ROUNDING)
        if node["rule"] != Rule.TABLE.value:
            found = bounds.bound(box, least).ms
            self._hold(found >= least, f"box {dict(box.sides)} has the bound {found} ms, below "
                       f"{self.claim.bound_ms}")
        else:
            self._table(bounds, box, least, counted)
        told(counted["boxes"])

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
    return Question(graph, board, certificate.design(), certificate.space(),
                    certificate.claim.workload)


def said(claim: Claim) -> str:
    """What is claimed, for a person."""
    gap = 1 - claim.bound_ms / claim.best_ms
    return (f"the best design found takes {claim.best_ms:.6g} ms ({claim.memory}, predicted); none "
            f"of the {claim.designs:.3g} designs is below {claim.bound_ms:.6g} ms; gap {gap:.2%}")


__all__ = ["Certificate", "Checked", "Claim", "certificate", "question_of", "said",
           "write_certificate"]
