"""Sweeps fields of a design or a board, and steps each parameter up and down (tornado).

It does not search: every combination that was asked for is evaluated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from arch_models.board import RATE_TOLERANCE_HZ, Board, SoftwareCosts
from arch_models.boards.rules import most, problems
from arch_models.clock import clocked
from arch_models.fields import FieldError, nearest, shortened, with_value
from arch_models.overlay import Infeasible, Overlay, Rate
from arch_models.units import hertz
from studies.evaluation.evaluate import evaluate, simulate_design
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.search.space import default_space
from studies.search.space_overlays import moved
from studies.why.critical import by_unit, shares
from studies.why.field_names import BOARD_PREFIX, resolve
from workloads.graph import Graph

MOST_COMBINATIONS = 10_000
#: Fields that hold several names, joined by + where they are written.
LISTS = ("engines", "fusions")
#: Words for a switch; an operator whose engine is not in fabric runs on the host.
SWITCH = {"true": True, "on": True, "fabric": True, "false": False, "off": False, "host": False}
MOST_OF_AN_AXIS = 10**9


@dataclass(frozen=True)
class Setting:
    """One dotted name (see `field_names`) and the values to try."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One combination: values by name, and what came of it.

    `evaluation` is None where the combination is not feasible; `reason` then says why.
    `miss`: by what share of the bound the demand was off, None where a rule was broken instead.
    `design`: the design and board that demanded it, None as well.
    `path_shares`: units by their share of the critical path, largest first.
    """

    values: Mapping[str, str]
    evaluation: Evaluation | None
    reason: str = ""
    path_shares: Mapping[str, float] | None = None
    miss: float | None = None
    design: tuple[Overlay, Board] | None = None

    @property
    def bottleneck(self) -> str:
        """The unit with the largest share of the critical path; empty where not feasible."""
        return next(iter(self.path_shares), "") if self.path_shares else ""


@dataclass(frozen=True)
class Step:
    """One side of a sensitivity: the value as written, and its evaluation or the reason."""

    value: str
    evaluation: Evaluation | None
    reason: str = ""


@dataclass(frozen=True)
class Sensitivity:
    """One parameter a step down and a step up from `now`."""

    path: str
    now: str
    down: Step
    up: Step

    def reach(self, base: Evaluation, figure: str = "latency_ms") -> float:
        """The larger change of a figure of the evaluation by a step either way, absolute."""
        return max((abs(getattr(side.evaluation, figure) - getattr(base, figure))
                    for side in (self.down, self.up) if side.evaluation), default=0.0)


def parse_setting(text: str) -> Setting:
    """`path=value,value,...` as a setting; `UserError` if it is anything else."""
    path, equals, values = text.partition("=")
    parts = tuple(part.strip() for part in values.split(",") if part.strip())
    if not equals or not path.strip() or not parts:
        raise UserError(f"{text!r}: must be FIELD=VALUE,VALUE,... for example "
                        "engine.conv.tm=16,32 or board.ddr.bits=16,32.")
    return Setting(path.strip(), parts)


def changed(overlay: Overlay, board: Board, name: str, text: str) -> tuple[Overlay, Board]:
    """The design and board with one field set; `FieldError` says what is wrong with it."""
    field = resolve(name, overlay, board)
    if field.axis:
        return moved(overlay, board, field.axis, _axis_value(name, field.axis, text, board)), board
    value = _hertz(name, text) if field.path.endswith("_hz") and field.factor == 1 else _value(text)
    if field.path in LISTS and isinstance(value, str):
        value = [value]
    if isinstance(value, str | list | bool):
        if field.factor != 1:
            raise FieldError(f"{name}: {text!r} must be a number")
    elif not math.isfinite(value):
        raise FieldError(f"{name}: {shortened(text)} must be a finite number")
    elif field.factor != 1:
        value = round(value * field.factor)
    if not field.path.startswith(BOARD_PREFIX):
        new = with_value(overlay, field.path, value)
        return (replace(new, rate=Rate.FIXED) if field.path == "clock_hz" else new), board
    path = field.path.removeprefix(BOARD_PREFIX)
    if isinstance(value, int | float):
        if value < 0:
            raise FieldError(f"{name} is {text}, must not be negative; nearest 0")
        if value > most(path):
            raise FieldError(f"{name} is {shortened(text)}, must be at most {most(path):.15g}")
    on = with_value(board, path, value)
    # What else must follow from this number (a wider bus moves the columns) is left as it is.
    for problem in problems(on):
        if problem.field == path:
            raise FieldError(f"{BOARD_PREFIX}{problem}")
    return overlay, on


def _hertz(name: str, text: str) -> int:
    try:
        return hertz(text)
    except ValueError as error:
        raise FieldError(f"{name}: {shortened(text)} {error}") from None


def _axis_value(name: str, axis: str, text: str, board: Board) -> bool | int | str:
    """One of the axis' values, or another whole number; where it is a switch, a word for it."""
    legal = default_space(board).axis(axis).values
    if isinstance(legal[0], bool):
        if text.lower() not in SWITCH:
            raise FieldError(f"{name}: {text!r} must be one of {', '.join(SWITCH)}")
        return SWITCH[text.lower()]
    if isinstance(legal[0], str):
        if text not in legal:
            raise FieldError(f"{name}: {text!r}; {nearest(text, map(str, legal))}")
        return text
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= MOST_OF_AN_AXIS:
        raise FieldError(f"{name}: {shortened(text)} must be a whole number, for example one of "
                         f"{', '.join(map(str, legal))}")
    return int(text)


def _value(text: str) -> bool | int | float | str | list[str]:
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
    a name that means no field, and a field set twice, are refused (`FieldError`, `UserError`).
    """
    count = 1
    for setting in settings:
        count *= len(setting.values)
    if count > MOST_COMBINATIONS:
        raise UserError(f"{count} combinations, at most {MOST_COMBINATIONS}; leave out values.")
    paths = [resolve(setting.path, overlay, board).path for setting in settings]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UserError(f"the field {path!r} is set twice; give all its values in one --set.")
    rows = []
    for values in itertools.product(*(setting.values for setting in settings)):
        named = {setting.path: value for setting, value in zip(settings, values, strict=True)}
        rows.append(_row(graph, overlay, board, named, memory))
    return tuple(rows)


def _row(graph: Graph, overlay: Overlay, board: Board, named: Mapping[str, str],
         memory: str) -> Row:
    try:
        for path, value in named.items():
            overlay, board = changed(overlay, board, path, value)
        found = evaluate(graph, overlay, board, memory, frames=1)
        if isinstance(found, Infeasible):
            return _refused(named, found, overlay, board)
        run = simulate_design(graph, overlay, board, memory, trace=True)
    except FieldError as error:
        return Row(named, None, str(error))
    if isinstance(run, Infeasible):
        return _refused(named, run, overlay, board)
    spent = by_unit(shares(run.lowered.program, run.result))
    total = max(1, sum(spent.values()))
    return Row(named, found, "", {unit: cycles / total for unit, cycles in spent.items()})


def _refused(named: Mapping[str, str], why: Infeasible, overlay: Overlay, board: Board) -> Row:
    return Row(named, None, str(why), miss=why.gap / max(why.bound, 1.0), design=(overlay, board))


def nearest_miss(rows: Sequence[Row]) -> Row | None:
    """Of the infeasible rows the one that is off by the least share of its bound; one that breaks
    a rule only if all do. None where every row is feasible."""
    return min((row for row in rows if row.evaluation is None),
               key=lambda row: (row.miss is None, row.miss or 0.0), default=None)


def with_arm(board: Board, factor: float) -> Board:
    """The board whose ARM takes `factor` times as long for every operator left to it."""
    costs = board.host.software
    scaled = SoftwareCosts(*(factor * getattr(costs, item.name) for item in fields(costs)))
    return replace(board, host=replace(board.host, software=scaled))


#: Parameters of the tornado with the factor of one step. Sizes go by powers of two, as hardware
#: does; the DDR's clock, latencies and powers by a quarter.
FACTORS: tuple[tuple[str, float], ...] = (
    ("input_words", 2), ("weight_words", 2), ("output_words", 2),
    ("accumulator_words", 2), ("board.ddr.data_bus_bits", 2), ("board.ddr.clock_hz", 1.25),
    ("board.host.start_c_ns", 1.25), ("board.power.ps_poll_w", 1.25),
    ("board.power.vccint_static_w", 1.25))
#: Parameters with few legal values; a step goes to the neighbour.
CHOICES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("columns", (1, 2, 3, 4)), ("dsp_packing", (False, True)), ("input_banks", (1, 2)),
    ("weight_banks", (1, 2)), ("output_banks", (1, 2)))
#: The costs of all operators left to the ARM together; they are guesses.
ARM = "board.host.software.*"
ARM_STEP = 1.25


def tornado(graph: Graph, overlay: Overlay, board: Board,
            memory: str = "flat") -> tuple[Evaluation, tuple[Sensitivity, ...]] | Infeasible:
    """The base design and the effect of each parameter one step down and one step up.

    Sorted by the largest effect on latency, then on energy. A step that is not legal or does not
    fit keeps its reason.
    """
    base = evaluate(graph, overlay, board, memory, frames=1)
    if isinstance(base, Infeasible):
        return base

    def side(path: str, text: str) -> Step:
        if not text:
            return Step("-", None, "no further legal value")
        try:
            design, on = changed(overlay, board, path, text)
            found = evaluate(graph, design, on, memory, frames=1)
        except FieldError as error:
            return Step(text, None, str(error))
        return Step(text, None, str(found)) if isinstance(found, Infeasible) else Step(text, found)

    def arm(factor: float) -> Step:
        found = evaluate(graph, overlay, with_arm(board, factor), memory, frames=1)
        text = f"x {factor:g}"
        return Step(text, None, str(found)) if isinstance(found, Infeasible) else Step(text, found)

    rows = [Sensitivity(path, now, side(path, down), side(path, up))
            for path, now, down, up in _moves(overlay, board)]
    rows.append(Sensitivity(ARM, "x 1", arm(1 / ARM_STEP), arm(ARM_STEP)))
    rows.sort(key=lambda row: (-row.reach(base), -row.reach(base, "energy_uj_per_pixel")))
    return base, tuple(rows)


def _rates(now_hz: int, board: Board) -> tuple[str, str, str]:
    """A rate, and the next that the board makes below and above; "" where there is none."""
    rates = board.clocks.rates_hz
    slower = [rate for rate in rates if rate < now_hz - RATE_TOLERANCE_HZ]
    faster = [rate for rate in rates if rate > now_hz + RATE_TOLERANCE_HZ]
    return str(now_hz), str(slower[-1]) if slower else "", str(faster[0]) if faster else ""


def _moves(overlay: Overlay, board: Board) -> list[tuple[str, str, str, str]]:
    """Path, value now, a step down, a step up; an empty text where there is no such value."""
    block = overlay.channel_block
    moves = [("clock_hz", *_rates(clocked(overlay, board).clock_hz, board))]
    for name in ("tm", "tn"):
        value = getattr(overlay, name)
        moves.append((name, str(value), str(value - block) if value > block else "",
                      str(value + block)))
    for name, legal in CHOICES:
        at = legal.index(getattr(overlay, name))
        moves.append((name, str(legal[at]), str(legal[at - 1]) if at else "",
                      str(legal[at + 1]) if at + 1 < len(legal) else ""))
    masters = [(f"masters.{master.name}.{name}", 2.0) for master in overlay.masters
               for name in ("outstanding", "width_bits")]
    for path, factor in (*FACTORS, *masters):
        value = _read(overlay, board, path)

        def text(moved: float, whole: bool = isinstance(value, int)) -> str:
            return str(round(moved)) if whole else f"{moved:.6g}"

        least = isinstance(value, int) and value == 1
        moves.append((path, text(value), "" if least else text(value / factor),
                      text(value * factor)))
    return moves


def _read(overlay: Overlay, board: Board, path: str) -> float:
    thing: object = board if path.startswith(BOARD_PREFIX) else overlay
    for part in path.removeprefix(BOARD_PREFIX).split("."):
        if isinstance(thing, tuple):
            thing = next(item for item in thing if item.name == part)
        else:
            thing = getattr(thing, part)
    assert isinstance(thing, int | float)
    return thing
