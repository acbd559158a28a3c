"""Puts together what a page shows from the files that commands wrote.

It draws nothing. Designs whose network is at hand are simulated again, for what a file does not
hold: the layers of a front's designs, the timeline. Nothing that a file holds is replaced by it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Infeasible, Overlay
from studies.certify.certificate import KIND as CERTIFICATE
from studies.certify.certificate import Certificate, layers_digest
from studies.certify.goals import point_of
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate, simulate_design
from studies.evaluation.inputs import memory_model
from studies.evaluation.stored import load_evaluation
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.records import encode, kind_of, load_flat
from studies.report.documents import (
    COMPARISON,
    SEARCH,
    WHAT_IF,
    Compared,
    Search,
    WhatIf,
    load_comparison,
    load_search,
)
from studies.report.page import Content, Source
from studies.report.proof import first_of, proof_section
from studies.report.sheet import sheet
from studies.search.identity import digest
from studies.search.space import WORKLOAD
from studies.search.space_overlays import overlay_of
from workloads.graph import Graph, GraphError

FINAL_MEMORY = "ddr3"
#: Designs of a front whose layers are simulated for their sheets, the best ones first.
SHEETS = 8
#: What the page calls the design that a search began with.
START = "start"
#: And the best design of a proof.
BEST = "proved"


@dataclass(frozen=True)
class Given:
    """What stands in for what a file only names: a network, a name of the library or an .onnx
    file, and how that is read; a board, a name or a .toml file. None: as the file names it."""

    network: str | None = None
    board: str | None = None
    reading: inputs.Reading = inputs.PLAIN

    def check(self) -> None:
        """Refuse a network or a board that is none."""
        if self.network is not None:
            inputs.workload(self.network, self.reading)
        if self.board is not None:
            inputs.board(self.board)

    def graph(self, workload: str, asked: str) -> tuple[Graph, str]:
        """The network of this name that is given, or that a file says was asked for; and how.

        `UserError` if neither has the name that the file has, `workload`.
        """
        for name in filter(None, (self.network, asked)):
            found = inputs.workload(name, self.reading if name.endswith(".onnx") else inputs.PLAIN)
            if found.name == workload:
                return found, name
        raise UserError(f"{workload!r} is the network of the file and of none that is named; name "
                        "it: --workload NAME or FILE.onnx")

    def sqnr(self, name: str) -> Mapping[str, float]:
        """Decibels by layer, int8 against float, of a network that is a float .onnx file."""
        if not name.endswith(".onnx"):
            return {}
        from studies.evaluation.losses import sqnr  # needs the extra onnx

        return sqnr(name, self.reading)

    def on(self, named: str) -> tuple[Board, str]:
        """The board that a file names, the given one if it has that name; and how it is asked."""
        if self.board is not None:
            board = inputs.board(self.board)
            if named.endswith(".toml") or board.name == named:
                return board, self.board
        try:
            return inputs.board(named), named
        except FieldError as error:
            raise UserError(f"{error}. If it is a board of your own, name its file: --board "
                            "FILE.toml") from error


@dataclass(frozen=True)
class Part:
    """What one file brings to a page."""

    sheets: Mapping[str, Any]
    section: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = ""


def collect(paths: Sequence[Path], given: Given, command: str, program: str,
            title: str = "", most_sheets: int = SHEETS) -> Content:
    """The content of a page from files of any kind; at most one search, comparison or what-if of
    each kind. Raises `UserError` for a file that holds none of them."""
    readers: dict[str, Callable[[Path], Part]] = {
        "evaluation": lambda path: _result(path, given),
        SEARCH: lambda path: search_part(load_search(path), given, most_sheets),
        COMPARISON: lambda path: _comparison(load_comparison(path), given),
        WHAT_IF: lambda path: _what_if(load_flat(path, WHAT_IF, WhatIf)),
        CERTIFICATE: lambda path: proof_part(Certificate(path), given),
    }
    given.check()
    sources: list[Source] = []
    parts: list[Part] = []
    for path in paths:
        kind, made_by = kind_of(path)
        if kind not in readers:
            raise UserError(f"{path}: kind is {kind!r}, must be one of {', '.join(readers)}")
        if kind != "evaluation" and kind in {source.kind for source in sources}:
            raise UserError(f"{path}: a second {kind}; a page shows one. Write a page for each.")
        sources.append(Source(str(path), kind, made_by))
        parts.append(readers[kind](path))
    return content_of(parts, sources, title or next(filter(None, (part.title for part in parts)),
                                                    ""), command, program)


def content_of(parts: Sequence[Part], sources: Sequence[Source], title: str, command: str,
               program: str) -> Content:
    """One page of several parts; names of designs that come twice are numbered."""
    sheets: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    for part in parts:
        for name, item in part.sheets.items():
            number, free = 1, name
            while free in sheets:
                number += 1
                free = f"{name} ({number})"
            sheets[free] = item
        sections |= part.section
    return Content(title, command, program, tuple(sources), sheets,
                   notes=[note for part in parts for note in part.notes], **sections)


def evaluated(item: Evaluation, given: Given) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sheet of a result, with timeline and drawing where the network is at hand."""
    board, board_name = given.on(item.board)
    if not item.design_file:
        return sheet(item, board), (f"{item.overlay}: its file does not hold the design, so there "
                                    "is no timeline",)
    overlay = inputs.design_of(item)
    try:
        graph, name = given.graph(item.workload, item.network)
    except (UserError, GraphError) as error:
        return sheet(item, board, overlay), (
            f"{item.overlay}: no timeline, and no drawing of the network: {error}",)
    return simulated(item, board, overlay, graph,
                     _trace_command(name, board_name, item.memory_model, given.reading),
                     given.sqnr(name))


def _trace_command(network: str, board: str, memory: str, reading: inputs.Reading) -> str:
    words = ["cosim", "simulate", network, "--design", "design.toml", "--board", board,
             "--memory", memory, "--trace", "frame.pftrace"]
    return shlex.join([*words, *(reading.words() if network.endswith(".onnx") else ())])


def simulated(item: Evaluation, board: Board, overlay: Overlay, graph: Graph, trace_command: str,
              sqnr: Mapping[str, float]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sheet of a result with everything, and what its timeline has other than its figures.

    `trace_command`: what writes a trace of the same frame, from the design's file. `sqnr`: of
    `Given.sqnr`.
    """
    run = simulate_design(graph, overlay, board, item.memory_model, trace=True,
                          steps=1 if graph.steps > 1 else None)
    if isinstance(run, Infeasible):
        return sheet(item, board, overlay, graph, sqnr=sqnr), (f"{item.overlay}: {run}",)
    notes = []
    cycles = run.result.total_cycles
    if graph.steps > 1:
        notes.append(f"{item.overlay}: timeline and layers are those of a frame with one sampler "
                     "step")
        if (item.latency_cycles - cycles) // (graph.steps - 1) != item.step_cycles:
            notes.append(f"{item.overlay}: the file holds {item.latency_cycles:,} cycles, steps "
                         f"of {item.step_cycles}; this program predicts others")
    elif cycles != item.latency_cycles:
        notes.append(f"{item.overlay}: the file holds {item.latency_cycles:,} cycles, this program "
                     f"predicts {cycles:,}; the timeline shows the latter")
    return ({**sheet(item, board, overlay, graph, run, sqnr), "trace_command": trace_command},
            tuple(notes))


def _result(path: Path, given: Given) -> Part:
    item = load_evaluation(path)
    if not item.layers:
        raise UserError(f"{path}: the result of {item.overlay!r} holds no layers; write one with "
                        "`cosim simulate --json FILE`.")
    shown, notes = evaluated(item, given)
    return Part({item.overlay: shown}, notes=notes, title=f"{item.workload} on {item.board_label}")


def search_part(found: Search, given: Given, most_sheets: int) -> Part:
    """A search with sheets of the design it began with, the chosen one and the best of the front.

    They are simulated with the final memory model, one frame; the front's own figures stay those
    of the search.
    """
    board, board_name = given.on(found.board)
    section = {"search": {**search_section(found, board),
                          "board": board_name if board_name != found.board else None}}
    title = f"Search: {found.workload} on {board.label}"
    sheets: dict[str, Any] = {}
    notes: list[str] = []
    start = found.start_number
    numbers = [number for number in _best_first(found)[:most_sheets] if number != start]
    for number in (start, *numbers):
        name = START if number == start else f"design {number}"
        overlay = found.base() if number is None else found.design(number, board)
        try:
            graph, network = _network(found, number, given)
        except (UserError, GraphError) as error:
            return Part({}, section, (f"no sheets: {error}",), title)
        item = evaluate(graph, overlay, board, FINAL_MEMORY, frames=1, detail=True)
        if isinstance(item, Infeasible):
            notes.append(f"{name}: {item}")
        elif number in (start, found.chosen_number):  # timelines are long
            sheets[name], more = simulated(item, board, overlay, graph, _trace_command(
                network, board_name, FINAL_MEMORY, given.reading), given.sqnr(network))
            notes += more
        else:
            sheets[name] = sheet(item, board, overlay, graph, sqnr=given.sqnr(network))
    return Part(sheets, section, tuple(notes), title)


def _network(found: Search, number: int | None, given: Given) -> tuple[Graph, str]:
    """What a design of a search runs: the network that was asked for, or what its axis names."""
    named = found.designs[number].choice.get(WORKLOAD) if number is not None else None
    return (given.graph(found.workload, found.network) if named is None
            else (inputs.workload(str(named)), str(named)))


def search_section(found: Search, board: Board) -> dict[str, Any]:
    """What the page draws of a search: all designs tried, and what the board has of each site."""
    kept = {name: encode(getattr(found, name)) for name in (
        "designs_asked", "designs_evaluated", "designs_infeasible", "designs_pruned", "complete",
        "front", "designs", "chosen_number", "start_number", "default", "candidates",
        "chosen_at_default_clock")}
    return {**kept, "available": sites(board)}


def sites(board: Board) -> dict[str, int]:
    """What the board's part has of each kind of site."""
    return {name.upper(): getattr(board.part, name) for name in ("dsp", "bram36", "lut", "ff")}


def _best_first(found: Search) -> list[int]:
    """The chosen design, then the front by latency times energy."""
    def merit(number: int) -> float:
        item = found.designs[number]
        return (item.latency_ms or 0.0) * (item.energy_uj_per_pixel or 0.0)

    rest = sorted((number for number in found.front if number != found.chosen_number), key=merit)
    return ([] if found.chosen_number is None else [found.chosen_number]) + rest


def proof_part(found: Certificate, given: Given) -> Part:
    """A certificate with the sheet of its best design; what it says is not checked again."""
    claim, document = found.claim, found.document
    first = first_of(claim)
    section = {"proof": proof_section(document)}
    title = f"Proof: {claim.workload} on {claim.board}"
    try:
        board, board_name = given.on(claim.board)
        network = given.network or claim.workload
        graph = inputs.workload(network, given.reading if network.endswith(".onnx")
                                else inputs.PLAIN)
        overlay = overlay_of(document.space.canonical(first.choice), found.design(), board, BEST)
    except (UserError, GraphError, FieldError) as error:
        return Part({}, section, (f"no sheet: {error}",), title)
    notes = [f"{BEST}: {name} here differs from the one that was proved"
             for name, then, now in (("the network", document.layers, layers_digest(graph)),
                                     ("the board", document.board_file, digest(board)))
             if then != now]
    item = evaluate(graph, overlay, board, memory_model(claim.memory), frames=1, detail=True)
    if isinstance(item, Infeasible):
        return Part({}, section, (*notes, f"{BEST}: {item}"), title)
    for aim, figure in zip(claim.objectives, first.figures, strict=False):
        now = aim.of(point_of(item))
        if abs(now - figure) > 1e-9 * figure:
            notes.append(f"{BEST}: the file holds {figure:.6g} in {aim.label}, this program "
                         f"predicts {now:.6g}; the sheet shows the latter")
    shown, more = simulated(item, board, overlay, graph, _trace_command(
        network, board_name, claim.memory, given.reading), given.sqnr(network))
    return Part({BEST: shown}, section, (*notes, *more), title)


def _comparison(found: Compared, given: Given) -> Part:
    sheets: dict[str, Any] = {}
    notes: list[str] = []
    for side, item in (("A", found.a), ("B", found.b)):
        shown, more = evaluated(item, given)
        sheets[f"{side} {item.overlay}"] = shown
        notes += more
    parts = {name: encode(getattr(found, name))
             for name in ("layers", "states", "cells", "units", "energy", "energy_ratio",
                          "one_clock")}
    return Part(sheets, {"comparison": {**parts, "names": list(sheets)}}, tuple(notes),
                f"{found.a.overlay} and {found.b.overlay}: {found.a.workload}")


def _what_if(found: WhatIf) -> Part:
    return Part({}, {"what_if": encode(found)}, (),
                f"What if: {found.workload} on {found.design} / {found.board_label}")
