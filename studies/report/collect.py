"""Puts together what a page shows from the files that commands wrote.

It draws nothing. Designs whose network is at hand are simulated again, for what a file does not
hold: the layers of a front's designs, the timeline. Nothing that a file holds is replaced by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.overlay import Infeasible, Overlay
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate, simulate_design
from studies.evaluation.stored import load_evaluation
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.records import encode, kind_of, load_flat
from studies.report.documents import COMPARISON, SEARCH, WHAT_IF, Compared, Search, WhatIf
from studies.report.documents import load_search as read_search
from studies.report.page import Content, Source
from studies.report.sheet import sheet
from workloads.graph import Graph, GraphError
from workloads.library import names as library_names

FINAL_MEMORY = "ddr3"
#: Designs of a front whose layers are simulated for their sheets, the best ones first.
SHEETS = 8


@dataclass(frozen=True)
class Network:
    """How to come by the network where a file only names it: a name of the library or an .onnx
    file, and how that is read; None: by the name in the file."""

    name: str | None = None
    reading: inputs.Reading = inputs.PLAIN

    def load(self, stored: str) -> Graph | None:
        """The network that a file names, None where it is neither given nor of the library."""
        if self.name is not None:
            return inputs.workload(self.name, self.reading)
        known = [name for name in library_names() if stored.startswith(name)]
        return inputs.workload(max(known, key=len)) if known else None


@dataclass(frozen=True)
class Part:
    """What one file brings to a page."""

    sheets: Mapping[str, Any]
    section: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = ""


def collect(paths: Sequence[Path], network: Network, command: str, program: str,
            title: str = "", most_sheets: int = SHEETS) -> Content:
    """The content of a page from files of any kind; at most one search, comparison or what-if of
    each kind. Raises `UserError` for a file that holds none of them."""
    readers: dict[str, Callable[[Path], Part]] = {
        "evaluation": lambda path: _result(path, network),
        SEARCH: lambda path: search_part(read_search(path), network, most_sheets),
        COMPARISON: lambda path: _comparison(load_flat(path, COMPARISON, Compared), network),
        WHAT_IF: lambda path: _what_if(load_flat(path, WHAT_IF, WhatIf)),
    }
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


def evaluated(item: Evaluation, board: Board, overlay: Overlay | None, graph: Graph | None
              ) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sheet of a result, with timeline and drawing where the network is at hand."""
    if overlay is None or graph is None:
        return sheet(item, board, overlay, graph), (
            f"{item.overlay}: without its network there is no timeline and no drawing of it; name "
            "the network: --workload FILE.onnx",)
    run = simulate_design(graph, overlay, board, item.memory_model, trace=True,
                          steps=1 if graph.steps > 1 else None)
    if isinstance(run, Infeasible):
        return sheet(item, board, overlay, graph), (f"{item.overlay}: {run}",)
    notes = []
    if graph.steps > 1:
        notes.append(f"{item.overlay}: timeline and layers are those of a frame with one sampler "
                     "step")
    elif run.result.total_cycles != item.latency_cycles:
        notes.append(f"{item.overlay}: the file holds {item.latency_cycles:,} cycles, this program "
                     f"predicts {run.result.total_cycles:,}; the timeline shows the latter")
    return sheet(item, board, overlay, graph, run), tuple(notes)


def _result(path: Path, network: Network) -> Part:
    item = load_evaluation(path)
    if not item.layers:
        raise UserError(f"{path}: the result of {item.overlay!r} holds no layers; write one with "
                        "`cosim simulate --json FILE`.")
    overlay = inputs.design_of(item) if item.design_file else None
    shown, notes = evaluated(item, inputs.board(item.board), overlay, network.load(item.workload))
    return Part({item.overlay: shown}, notes=notes, title=f"{item.workload} on {item.board_label}")


def search_part(found: Search, network: Network, most_sheets: int = SHEETS) -> Part:
    """A search with sheets of the chosen design, the one it began with and the best of the front.

    They are simulated with the final memory model, one frame; the front's own figures stay those
    of the search.
    """
    board = inputs.board(found.board)
    section = {"search": search_section(found, board)}
    title = f"Search: {found.workload} on {board.label}"
    try:
        graph = network.load(network.name or found.network)
    except (UserError, GraphError) as error:
        return Part({}, section, (f"no sheets: {error}",), title)
    if graph is None:
        return Part({}, section, ("no sheets: name the network with --workload FILE.onnx",), title)
    sheets: dict[str, Any] = {}
    notes: list[str] = []
    wanted = [("start", found.base())]
    wanted += [(f"design {number}", found.design(number))
               for number in _best_first(found)[:most_sheets]]
    for place, (name, overlay) in enumerate(wanted):
        item = evaluate(graph, overlay, board, FINAL_MEMORY, frames=1, detail=True)
        if isinstance(item, Infeasible):
            notes.append(f"{name}: {item}")
        elif place < 2:  # timelines are long: of the start and the chosen design only
            sheets[name], more = evaluated(item, board, overlay, graph)
            notes += more
        else:
            sheets[name] = sheet(item, board, overlay, graph)
    return Part(sheets, section, tuple(notes), title)


def search_section(found: Search, board: Board) -> dict[str, Any]:
    """What the page draws of a search: all designs tried, and what the board has of each site."""
    kept = {name: encode(getattr(found, name)) for name in (
        "designs_asked", "designs_evaluated", "designs_infeasible", "designs_pruned", "complete",
        "front", "designs", "chosen_number")}
    return {**kept, "available": sites(board)}


def sites(board: Board) -> dict[str, int]:
    """What the board's part has of each kind of site."""
    return {name.upper(): getattr(board.part, name) for name in ("dsp", "bram36", "lut", "ff")}


def _best_first(found: Search) -> list[int]:
    """The chosen design, then the front by latency times energy."""
    def merit(number: int) -> float:
        item = found.designs[number]
        return (item.latency_ms or 0.0) * (item.energy_uj_per_pixel or 0.0)

    rest = sorted((number for number in found.front if number != found.chosen_number
                   and str(number) in found.members), key=merit)
    return ([] if found.chosen_number is None else [found.chosen_number]) + rest


def _comparison(found: Compared, network: Network) -> Part:
    sheets: dict[str, Any] = {}
    notes: list[str] = []
    for side, item in (("A", found.a), ("B", found.b)):
        board = inputs.board(item.board)
        overlay = inputs.design_of(item) if item.design_file else None
        shown, more = evaluated(item, board, overlay, network.load(item.workload))
        sheets[f"{side} {item.overlay}"] = shown
        notes += more
    parts = {name: encode(getattr(found, name))
             for name in ("layers", "states", "cells", "units", "energy", "energy_ratio")}
    return Part(sheets, {"comparison": {**parts, "names": list(sheets)}}, tuple(notes),
                f"{found.a.overlay} and {found.b.overlay}: {found.a.workload}")


def _what_if(found: WhatIf) -> Part:
    return Part({}, {"what_if": encode(found)}, (),
                f"What if: {found.workload} on {found.design} / "
                f"{inputs.board(found.board).label}")
