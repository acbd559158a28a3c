"""Sweeps fields of a design or a board, and steps each parameter up and down (tornado).

It does not search: every combination that was asked for is evaluated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from arch_models.board import Board
from arch_models.fields import FieldError, with_value
from arch_models.overlay import Infeasible, Overlay
from studies.errors import UserError
from studies.evaluate import evaluate
from studies.evaluation import Evaluation
from workloads.graph import Graph

BOARD_PREFIX = "board."
DESIGN_PREFIX = "design."
MOST_COMBINATIONS = 10_000


@dataclass(frozen=True)
class Setting:
    """One dotted field and the values to try. `board.` in front: a field of the board."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One combination: values by path, and what came of it (one of the two is None)."""

    values: Mapping[str, str]
    evaluation: Evaluation | None
    reason: str | None


@dataclass(frozen=True)
class Sensitivity:
    """One parameter a step down and a step up; None where a step is not legal or feasible."""

    path: str
    down: str
    up: str
    down_latency_ms: float | None
    up_latency_ms: float | None
    down_energy_uj_per_pixel: float | None
    up_energy_uj_per_pixel: float | None


def parse_setting(text: str) -> Setting:
    """`path=value,value,...` as a setting; `UserError` if it is anything else."""
    path, equals, values = text.partition("=")
    parts = tuple(part.strip() for part in values.split(",") if part.strip())
    if not equals or not path.strip() or not parts:
        raise UserError(f"{text!r}: must be FIELD=VALUE,VALUE,... for example tm=16,32 or "
                        "board.ddr.data_bus_bits=16,32.")
    return Setting(path.strip(), parts)


def changed(overlay: Overlay, board: Board, path: str, text: str) -> tuple[Overlay, Board]:
    """The design and board with one field set; `FieldError` names the nearest field."""
    value = _value(text)
    if path.startswith(BOARD_PREFIX):
        return overlay, with_value(board, path.removeprefix(BOARD_PREFIX), value)
    return with_value(overlay, path.removeprefix(DESIGN_PREFIX), value), board


def _value(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if "+" in text or text in ("none", "[]"):
        return [part for part in text.split("+") if part not in ("none", "[]")]
    return text


def sweep(graph: Graph, overlay: Overlay, board: Board, settings: Sequence[Setting],
          memory: str = "flat") -> tuple[Row, ...]:
    """Evaluate every combination of the settings, the last one varying fastest.

    A combination that does not fit, does not map or breaks a rule is a row with its reason;
    a path that names no field at all is refused (`FieldError`).
    """
    count = 1
    for setting in settings:
        count *= len(setting.values)
    if count > MOST_COMBINATIONS:
        raise UserError(f"{count} combinations, at most {MOST_COMBINATIONS}; leave out values.")
    for setting in settings:
        _check_path(overlay, board, setting)
    rows = []
    for values in itertools.product(*(setting.values for setting in settings)):
        named = {setting.path: value for setting, value in zip(settings, values, strict=True)}
        rows.append(_row(graph, overlay, board, named, memory))
    return tuple(rows)


def _check_path(overlay: Overlay, board: Board, setting: Setting) -> None:
    for value in setting.values:
        try:
            changed(overlay, board, setting.path, value)
        except FieldError as error:
            if "unknown" in str(error) or "not inside" in str(error):
                raise


def _row(graph: Graph, overlay: Overlay, board: Board, named: Mapping[str, str],
         memory: str) -> Row:
    try:
        for path, value in named.items():
            overlay, board = changed(overlay, board, path, value)
    except FieldError as error:
        return Row(named, None, str(error))
    found = evaluate(graph, overlay, board, memory, frames=1, detail=True)
    if isinstance(found, Infeasible):
        return Row(named, None, str(found))
    return Row(named, found, None)


#: Parameters of the tornado with the factor of one step (0: one block of channels). Sizes go by
#: powers of two, as hardware does; clocks, latencies and powers by a quarter.
STEPS: tuple[tuple[str, float], ...] = (
    ("clock_hz", 1.25), ("tm", 0.0), ("tn", 0.0), ("columns", 2.0), ("input_words", 2.0),
    ("weight_words", 2.0), ("output_words", 2.0), ("accumulator_words", 2.0),
    ("board.ddr.data_bus_bits", 2.0), ("board.ddr.clock_hz", 1.25),
    ("board.host.start_c_ns", 1.25), ("board.power.ps_w", 1.25), ("board.power.pl_static_w", 1.25),
)


def tornado(graph: Graph, overlay: Overlay, board: Board,
            memory: str = "flat") -> tuple[Evaluation, tuple[Sensitivity, ...]] | Infeasible:
    """The base design and the effect of each parameter one step down and one step up."""
    base = evaluate(graph, overlay, board, memory, frames=1)
    if isinstance(base, Infeasible):
        return base
    found = []
    steps = list(STEPS) + [(f"masters.{master.name}.outstanding", 2.0)
                           for master in overlay.masters]
    for path, factor in steps:
        value = _read(overlay, board, path)
        whole = isinstance(value, int)
        texts, sides = [], []
        block = overlay.channel_block
        moves = (value / factor, value * factor) if factor else (value - block, value + block)
        for moved in moves:
            text = str(round(moved)) if whole else f"{moved:.6g}"
            row = _row(graph, overlay, board, {path: text}, memory)
            texts.append(text)
            sides.append(row.evaluation)
        down, up = sides
        found.append(Sensitivity(
            path, texts[0], texts[1],
            down.latency_ms if down else None, up.latency_ms if up else None,
            down.energy_uj_per_pixel if down else None,
            up.energy_uj_per_pixel if up else None))
    return replace(base), tuple(found)


def _read(overlay: Overlay, board: Board, path: str) -> float:
    thing: object = board if path.startswith(BOARD_PREFIX) else overlay
    for part in path.removeprefix(BOARD_PREFIX).split("."):
        if isinstance(thing, tuple):
            thing = next(item for item in thing if item.name == part)
        else:
            thing = getattr(thing, part)
    assert isinstance(thing, int | float)
    return thing
