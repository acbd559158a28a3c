"""The files of searches, comparisons and what-ifs as values, read back and checked by type.

It evaluates nothing; `records` checks, the commands that made the files write the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.files import parse_toml
from arch_models.overlay import Overlay, overlay_of_table, overlay_toml
from arch_models.power.energy import Ratio
from studies.evaluation.stored import check_ranges
from studies.evaluation.values import Displaced, Evaluation
from studies.plain.errors import UserError
from studies.plain.records import encode, header, load_flat
from studies.search.exploration import Exploration
from studies.search.outcomes import Record
from studies.search.space_overlays import overlay_of, stands_for

SEARCH, COMPARISON, WHAT_IF = "search", "comparison", "what-if"


@dataclass(frozen=True)
class Tried:
    """One design of a search: the figures of the flat memory, or why it was not feasible."""

    number: int
    choice: Mapping[str, bool | int | str]
    latency_ms: float | None
    energy_uj_per_pixel: float | None
    resources: Mapping[str, float]
    infeasible: str | None = None


@dataclass(frozen=True)
class Final:
    """A design as the final memory model sees it; `number` is its place among those tried."""

    overlay: str
    memory_model: str
    clock_mhz: float
    latency_ms: float
    energy_uj_per_pixel: float
    energy_limits_uj_per_pixel: tuple[float, float]
    resources: Mapping[str, float]
    number: int = -1
    clock: Any = None


@dataclass(frozen=True)
class Search:
    """A search as a file holds it. `network` and `board`: as they were asked for; `base_file`: the
    design it began with, `start_number` its place among those tried (None where it was not tried,
    being outside of the space, or where the file does not say)."""

    network: str
    board: str
    workload: str
    base_file: str
    designs_asked: int
    designs_evaluated: int
    designs_infeasible: int
    designs_pruned: int
    complete: bool
    front: tuple[int, ...]
    designs: tuple[Tried, ...]
    default: Final | None
    chosen_number: int | None
    candidates: tuple[Final, ...]
    start_number: int | None = None
    chosen_at_default_clock: Final | None = None

    def design(self, number: int, board: Board) -> Overlay:
        """A design of the search, on the board that it was asked for.

        `UserError` for a number that no design has, or a design that describes no hardware.
        """
        if not 0 <= number < len(self.designs):
            raise UserError(f"there is no design {number}; the search tried {len(self.designs)}, "
                            f"numbered from 0 to {len(self.designs) - 1}")
        try:
            return overlay_of(self.designs[number].choice, self.base(), board,
                              f"explored-{number}")
        except ValueError as error:
            raise UserError(f"design {number}: {error}") from error

    def base(self) -> Overlay:
        """The design that the search began with."""
        return overlay_of_table(parse_toml(self.base_file, "base_file"), "base_file")


@dataclass(frozen=True)
class Asked:
    """What a search was asked: network and board by name or file, the design it began with."""

    network: str
    workload: str
    board_name: str
    board: Board
    base: Overlay
    command: str = ""


def search_document(found: Exploration, asked: Asked) -> dict[str, Any]:
    """A search as JSON values, which `load_search` reads back."""
    search = found.found
    chosen = found.chosen
    return {
        **header(SEARCH, asked.command),
        "predicted": True, "search_memory_model": "flat", "final_memory_model": "ddr3",
        "network": asked.network, "workload": asked.workload, "board": asked.board_name,
        "unchecked": list(asked.board.unchecked),
        "settings": encode(search.settings), "designs_asked": search.asked,
        "designs_evaluated": search.evaluated, "designs_infeasible": search.infeasible,
        "designs_pruned": search.pruned, "complete": not found.signal,
        "front": list(search.front), "designs": tried(search.records),
        "default": _final(found.default), "base_file": overlay_toml(asked.base),
        "energy_over_default": encode(found.energy_ratio),
        "chosen_at_default_clock": _final(found.one_clock),
        "chosen": _final(chosen.evaluation) if chosen else None,
        "chosen_number": chosen.record.number if chosen else None,
        "start_number": start_of(search.records, asked.base),
        "candidates": [{"number": item.record.number, **(_final(item.evaluation) or {})}
                       for item in found.candidates],
    }


def start_of(records: Sequence[Record], base: Overlay) -> int | None:
    """The number of the design that a search began with, None where it was not tried."""
    return next((item.number for item in records if stands_for(item.choice, base)), None)


def tried(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The designs of a search as JSON values, as `Tried` has them."""
    return [{"number": record.number, "choice": record.choice,
             "latency_ms": record.evaluation.latency_ms if record.evaluation else None,
             "energy_uj_per_pixel":
                 record.evaluation.energy_uj_per_pixel if record.evaluation else None,
             "resources": {item.name: item.used for item in (
                 record.evaluation.resources if record.evaluation else ())},
             "infeasible": record.failure.reason if record.failure else None}
            for record in records]


def _final(item: Evaluation | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {"overlay": item.overlay, "memory_model": item.memory_model,
            "clock_mhz": item.clock_hz / 1e6, "clock": encode(item.clock),
            "latency_ms": item.latency_ms, "energy_uj_per_pixel": item.energy_uj_per_pixel,
            "energy_limits_uj_per_pixel": list(item.energy_limits_uj_per_pixel),
            "resources": {entry.name: entry.used for entry in item.resources}}


def load_search(path: Path) -> Search:
    """The search in a file; `UserError` names the field that is not what a search holds."""
    found = load_flat(path, SEARCH, Search)
    named = [("front", place) for place in found.front]
    named += [(name, place) for name in ("chosen_number", "start_number")
              if (place := getattr(found, name)) is not None]
    for name, place in named:
        if not 0 <= place < len(found.designs):
            raise UserError(f"{path}: {name} names design {place}, must be one of "
                            f"{len(found.designs)}")
    return found


@dataclass(frozen=True)
class Row:
    """Cycles under one name in A and in B, in milliseconds."""

    name: str
    a_cycles: int
    b_cycles: int
    a_ms: float
    b_ms: float
    delta_ms: float


@dataclass(frozen=True)
class EnergyRow:
    """Joules of one part in A and in B."""

    name: str
    a_j: float
    b_j: float


@dataclass(frozen=True)
class OneClock:
    """Both designs at the lower of their clocks, which is assumed for the other one."""

    clock_mhz: float
    a_ms: float
    b_ms: float


@dataclass(frozen=True)
class Compared:
    """A comparison as a file holds it: two evaluations and where they differ."""

    a: Evaluation
    b: Evaluation
    layers: tuple[Row, ...]
    states: tuple[Row, ...]
    cells: tuple[Row, ...]
    units: tuple[Row, ...]
    energy: tuple[EnergyRow, ...]
    energy_ratio: Ratio | None = None
    one_clock: OneClock | None = None


def load_comparison(path: Path) -> Compared:
    """The comparison in a file; `UserError` names the field that is not what one holds."""
    found = load_flat(path, COMPARISON, Compared)
    for side in ("a", "b"):
        check_ranges(getattr(found, side), f"{path}: {side}")
    return found


@dataclass(frozen=True)
class Figures:
    """What a what-if says of one design; None throughout where it is not feasible."""

    latency_ms: float | None
    energy_uj_per_pixel: float | None
    energy_limits_uj_per_pixel: tuple[float, float] | None = None
    clock_mhz: float | None = None
    reason: str | None = None
    value: str = ""
    values: Mapping[str, str] | None = None
    bottleneck: str | None = None
    critical_path_shares: Mapping[str, float] | None = None
    resources: Mapping[str, float] | None = None
    displaced: tuple[Displaced, ...] | None = None
    clock: Any = None


@dataclass(frozen=True)
class Stepped:
    """One parameter a step down and a step up."""

    parameter: str
    now: str
    down: Figures
    up: Figures


@dataclass(frozen=True)
class WhatIf:
    """A what-if as a file holds it: `rows` of a grid, or `base` and `sensitivities`."""

    workload: str
    design: str
    board: str
    memory_model: str
    rows: tuple[Figures, ...] = ()
    base: Figures | None = None
    sensitivities: tuple[Stepped, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def board_label(self) -> str:
        """The board's name, marked if anything of it is unchecked (`Board.unchecked`)."""
        return f"{self.board} (unchecked)" if self.unchecked else self.board
