"""Predicts the clock that an overlay reaches in a board's fabric, with an interval.

It synthesizes nothing: the longest paths of parts are data (`timing_grid.csv`, from netlists of
the RTL), and a part between two rows of that grid is taken as the nearer one. `rates` says which
clocks a board makes.

A period is the longest of: a path inside a part; one that leaves a part for the control, or comes
from it, by pins of one kind (tokens, commands, counts, what a bus has); one that leaves an engine
or a master for what lies before the memories, and on into one; and the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache
from math import exp, inf, log2
from typing import Any, NamedTuple

import numpy as np

from .board import RATE_TOLERANCE_HZ, Board, Part
from .builds import build_of
from .channels import channels, engine_channels, master_channels
from .engines import MODELS
from .fields import FieldError
from .nets import NetModel, PartPath, Row, Way, read_clock_data, read_grid, read_net_model
from .overlay import NOMINAL_CLOCK_HZ, Overlay, Rate, Role
from .power.fabric import speed_ratio
from .resources import estimate

BEAT = 8  # channels
#: Nine of ten builds lie within so many standard deviations.
NINE_TENTHS = 1.645
#: Below this share of its nominal speed nobody has seen a part run.
LEAST_SPEED = 0.05


#: Ways that end at the control and begin there, for each kind of pins.
MEETINGS = ((Way.TOKENS_OUT, Way.TOKENS_IN), (Way.COMMANDS_OUT, Way.COMMANDS_IN),
            (Way.COUNTS_OUT, Way.COUNTS_IN), (Way.REQUESTS_OUT, Way.REQUESTS_IN),
            (Way.BURSTS_OUT, Way.BURSTS_IN), (Way.LENGTHS_OUT, Way.LENGTHS_IN),
            (Way.READS_OUT, Way.READS_IN), (Way.WORDS_OUT, Way.WORDS_IN),
            (Way.BEATS_OUT, Way.BEATS_IN))
#: Ways from units to memories, with what they are at the memory; and ways back.
INTO_MEMORY = {Way.READ_ADDRESS: Way.READ_ADDRESS, Way.STORE: Way.READ_ADDRESS,
               Way.WRITE: Way.WRITE, Way.LOAD: Way.WRITE}
OUT_OF_MEMORY = (Way.READ_DATA, Way.STORE_DATA)


@dataclass(frozen=True)
class Prediction:
    """The clock of an overlay in MHz; nine of ten builds are expected from `low` to `high`.

    `mhz` is what the netlist's longest path says, not raised by how much more public designs
    reached.

    `pieces`: what the longest path is made of, part by part; `parts`: the longest period of each
    part in ns, longest first. `share`: of the board's LUTs that the overlay uses.
    """

    mhz: float
    low_mhz: float
    high_mhz: float
    logic_ns: float
    nets_ns: float
    share: float
    pieces: tuple[PartPath, ...]
    parts: tuple[tuple[str, float], ...]

    @property
    def period_ns(self) -> float:
        """One cycle."""
        return 1000 / self.mhz

    @property
    def path(self) -> str:
        """The longest path in words: registers, part by part."""
        return ", ".join(f"{item.part}: {item.start} -> {item.end}" for item in self.pieces)


def predict(overlay: Overlay, board: Board) -> Prediction:
    """The clock of an overlay on a board, by the shipped grid and net model.

    The overlay's own `clock_hz` is not looked at. A core supply other than the nominal one makes it
    as much slower as measured designs were. Where it names a vendor's build, that build's
    clock is taken: from what it was asked for and met, to what the model holds possible; or just
    what it reached where it missed.
    """
    found = _predicted(replace(overlay, name="any", clock_hz=NOMINAL_CLOCK_HZ,
                              rate=Rate.PREDICTED, build=""), board.part)
    build = build_of(overlay)
    if build is None:
        return _at_voltage(found, _speed(board))
    mhz = build.reached_mhz
    return replace(found, mhz=mhz, low_mhz=build.asked_mhz if build.met else mhz,
                   high_mhz=max(mhz, found.high_mhz) if build.met else mhz)


def _speed(board: Board) -> float:
    """How fast the fabric is at its core supply; 1 at the nominal one."""
    return max(speed_ratio(board.power.vccint_ratio), LEAST_SPEED)


def _at_voltage(found: Prediction, ratio: float) -> Prediction:
    """The prediction at a core supply at which everything is `ratio` times as fast."""
    if ratio == 1:
        return found
    slower = 1 / ratio
    return replace(
        found, mhz=found.mhz / slower, low_mhz=found.low_mhz / slower,
        high_mhz=found.high_mhz / slower, logic_ns=found.logic_ns * slower,
        nets_ns=found.nets_ns * slower,
        parts=tuple((name, ns * slower) for name, ns in found.parts))


@lru_cache(4096)
def _predicted(overlay: Overlay, part: Part) -> Prediction:
    model, errors = read_clock_data().net, read_clock_data().errors
    share = _share(estimate(overlay).total.lut, part)
    slower = part.fabric_delay
    chains = [(chain.period_ns(model, share), chain) for chain in _chains(rows_of(overlay))]
    parts: dict[str, float] = {}
    for ns, chain in chains:
        for item in chain.pieces:
            parts[item.part] = max(parts.get(item.part, 0.0), ns)
    period, (pieces, _, _) = max(chains, key=lambda item: item[0])
    mhz = 1000 / (period * slower)
    low, high = (exp(errors.public_mean + side * NINE_TENTHS * errors.spread) for side in (-1, 1))
    return Prediction(
        mhz, mhz * min(1.0, low), mhz * max(1.0, high),
        slower * sum(item.logic_ns for item in pieces),
        slower * sum(item.nets_ns(model, share) for item in pieces), share, pieces,
        tuple(sorted(((name, ns * slower) for name, ns in parts.items()),
                     key=lambda item: -item[1])))


def _share(lut: float, part: Part) -> float:
    return min(1.0, lut / part.lut)


class ClockBasis(StrEnum):
    """What stands behind the rate that an overlay is evaluated at."""

    PREDICTED = "predicted"
    ASSUMED = "assumed"  # somebody asked for it
    MEASURED = "measured"  # a vendor's build of this design reached it


def rate_hz(overlay: Overlay, board: Board) -> int:
    """The fastest rate of the board that the overlay's predicted clock allows."""
    return board.clocks.fastest_hz(predict(overlay, board).mhz * 1e6)


def rates_of_rows(rows: Rows, memories: np.ndarray, luts: np.ndarray, board: Board
                  ) -> np.ndarray:
    """`rate_hz` of overlays (int64) that differ in memories and LUTs alone, and name no build.

    `rows`: of one of them; `memories`: int64 (kinds of memories, overlays), of each the places of
    its rows among `memory_grid`; `luts`: what each takes.
    """
    model = read_clock_data().net
    code = np.zeros(len(luts), np.int64)
    for places in memories:
        code = code * len(memory_grid()) + places
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    share = 1 + model.share_factor * np.minimum(1.0, luts / board.part.lut)
    longest = np.zeros(len(luts))
    rows = rows._replace(memories=())
    for logic_ns, nets_ns in _longest(rows):
        longest = np.maximum(longest, logic_ns + nets_ns * share)
    for logic, nets in _through_memories(rows, memories[:, first]):
        longest = np.maximum(longest, logic[which] + nets[which] * share)
    period = (longest + model.uncertainty_ns) * board.part.fabric_delay
    rates = np.array(board.clocks.rates_hz)
    found = np.searchsorted(rates, 1000 / period / (1 / _speed(board)) * 1e6, side="right")
    return rates[np.maximum(0, found - 1)]


def clocked(overlay: Overlay, board: Board) -> Overlay:
    """The overlay at its rate on a board: the predicted one, unless it is fixed.

    Raises `FieldError` with the nearest rates for one that the board cannot make.
    """
    if overlay.rate is Rate.PREDICTED:
        return replace(overlay, clock_hz=rate_hz(overlay, board))
    if not board.clocks.makes(overlay.clock_hz):
        near = " and ".join(str(rate) for rate in board.clocks.nearest_hz(overlay.clock_hz))
        raise FieldError(f"clock_hz is {overlay.clock_hz}, which {board.name} cannot make; "
                         f"nearest {near}; without it the predicted clock is taken")
    return overlay


def basis(overlay: Overlay, board: Board) -> ClockBasis:
    """Whether the overlay's rate is the predicted one. It is compared, however it came about."""
    if abs(overlay.clock_hz - rate_hz(overlay, board)) > RATE_TOLERANCE_HZ:
        return ClockBasis.ASSUMED
    return ClockBasis.MEASURED if overlay.build else ClockBasis.PREDICTED


class Rows(NamedTuple):
    """The rows of the grid that stand for an overlay's parts."""

    units: tuple[Row, ...]
    memories: tuple[Row, ...]
    control: tuple[Row, ...]
    places: tuple[Row, ...]


def rows_of(overlay: Overlay) -> Rows:
    """The rows of an overlay: engines and masters, buffers, control, the places between."""
    return Rows(tuple(_units(overlay)), memory_rows(overlay),
                (_nearest(*_control(overlay)),), (_nearest(*_places(overlay)),))


#: Paths that cross parts: each is gone through one of the kinds of parts (fields of `Rows`) after
#: another, in each by the part that is slowest in that way.
LEGS: tuple[tuple[tuple[str, Way], ...], ...] = (
    *(leg for out, into in MEETINGS for leg in (
        (("control", out), ("units", into)), (("units", out), ("control", into)))),
    *((("units", way), ("places", way), ("memories", met)) for way, met in INTO_MEMORY.items()),
    *((("units", way), ("places", Way.ENTERS)) for way in (Way.READ_ADDRESS, Way.WRITE)),
    *((("units", way), ("places", Way.ARRIVES)) for way in (Way.LOAD, Way.STORE)),
    (("places", Way.ASKS), ("memories", Way.READ_ADDRESS)),
    (("places", Way.FILLS), ("memories", Way.WRITE)),
    (("memories", Way.READ_DATA), ("places", Way.TAKES)),
    *((("places", Way.HANDS), ("units", way)) for way in OUT_OF_MEMORY),
    *((("memories", Way.READ_DATA), ("places", way), ("units", way)) for way in OUT_OF_MEMORY))


class Chain(NamedTuple):
    """Pieces of a path that follow each other: their cells, and their nets in an empty fabric."""

    pieces: tuple[PartPath, ...]
    logic_ns: float
    nets_ns: float

    def period_ns(self, model: NetModel, share: float) -> float:
        """The cycle that it allows at a share (0 to 1) of the fabric used."""
        return (self.logic_ns + self.nets_ns * (1 + model.share_factor * share)
                + model.uncertainty_ns)


def _chains(rows: Rows) -> tuple[Chain, ...]:
    """Every path that may be the longest."""
    return (*_inside(rows), *(chain for leg in LEGS for chain in _joined(
        *((getattr(rows, kind), way) for kind, way in leg))))


@lru_cache(4096)
def _longest(rows: Rows) -> tuple[tuple[float, float], ...]:
    """Cells and nets of the paths that may be the longest at some share."""
    found: list[tuple[float, float]] = []
    for chain in sorted(_chains(rows), key=lambda item: (-item.nets_ns, -item.logic_ns)):
        if not found or chain.logic_ns > found[-1][0]:
            found.append((chain.logic_ns, chain.nets_ns))
    return tuple(found)


@cache
def memory_grid() -> dict[Row, int]:
    """The places of all rows of memories in the grid."""
    return {row: place for place, row in enumerate(
        row for row in read_grid() if row.part == "buffer")}


@cache
def _memory_paths(way: Way) -> np.ndarray:
    """Of each row of `memory_grid` in one way (float64 (3, rows)): what it takes in an empty
    fabric, below 0 where there is no such way; of that the cells, and the nets."""
    model = read_net_model()
    return np.array([(-1.0, 0.0, 0.0) if (path := row.path(way)) is None else (
        path.ns(model, 0.0), path.logic_ns, path.nets_ns(model, 0.0))
        for row in memory_grid()]).T


def _through_memories(rows: Rows, memories: np.ndarray
                      ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Paths inside memories, and into or out of one, for each column of places in `memory_grid`:
    cells and nets of one path, 0 where there is none."""
    for places in memories:
        _, logic, nets = _memory_paths(Way.INSIDE)
        yield logic[places], nets[places]
    for leg in LEGS:
        if not any(kind == "memories" for kind, _ in leg):
            continue
        total: tuple[Any, Any] = (0.0, 0.0)
        for kind, way in leg:
            if kind == "memories":
                ns, logic, nets = _memory_paths(way)
                slowest = memories[np.argmax(ns[memories], axis=0), np.arange(memories.shape[1])]
                total = total[0] + logic[slowest], total[1] + nets[slowest]
                there = ns[slowest] >= 0
            elif pieces := _joined((getattr(rows, kind), way)):
                total = total[0] + pieces[0].logic_ns, total[1] + pieces[0].nets_ns
            else:
                break
        else:
            yield np.where(there, total[0], 0.0), np.where(there, total[1], 0.0)


def _inside(rows: Rows) -> Iterator[Chain]:
    for kind in rows:
        for row in kind:
            yield from _joined(((row,), Way.INSIDE))


@lru_cache(2**16)
def _joined(*legs: tuple[tuple[Row, ...], Way]) -> tuple[Chain, ...]:
    """The slowest way through parts that follow each other; none if one does not let it pass."""
    model = read_net_model()
    pieces = []
    for rows, way in legs:
        found = [path for row in rows if (path := row.path(way))]
        if not found:
            return ()
        pieces.append(max(found, key=lambda item: item.ns(model, 0.0)))
    return (Chain(tuple(pieces), sum(item.logic_ns for item in pieces),
                  sum(item.nets_ns(model, 0.0) for item in pieces)),)


def _units(overlay: Overlay) -> Iterator[Row]:
    """Engines and masters."""
    for model in MODELS:
        if model.engine in overlay.engines:
            numbers = {"tm": overlay.tm, "tn": overlay.tn,
                       "channels": engine_channels(overlay, model.engine)}
            yield _nearest(model.engine.value,
                           tuple((numbers | model.grid.row(overlay)).items()),
                           model.grid.form(overlay))
    for master in dict.fromkeys((item.role, item.width_bits) for item in overlay.masters):
        role, width = master
        part = "write_master" if role is Role.OUTPUT else "read_master"
        yield _nearest(part, (("width", width), ("channels", master_channels(overlay, role))))


def memory_rows(overlay: Overlay) -> tuple[Row, ...]:
    """INPUT, OUTPUT, WEIGHT and accumulators, by their form, lanes and words (`hw.rtl.buffers`)."""
    inputs, weights = overlay.masters_of(Role.INPUT), overlay.masters_of(Role.WEIGHT)
    wide = max(item.width_bits for item in overlay.masters) > 64
    form = ("two" if len(inputs) > 1 else "pair") if wide else (
        "two" if len(inputs) > 1 else "plain")
    return (
        _buffer(form, overlay.tn // BEAT, overlay.input_words * overlay.input_banks),
        _buffer("pairs_read" if wide else "plain", overlay.tm // BEAT,
                overlay.output_words * overlay.output_banks),
        _buffer("pair_bytes" if weights and weights[0].width_bits > 64 else "bytes",
                overlay.tm * overlay.tn // BEAT, overlay.weight_words * overlay.weight_banks),
        _buffer("plain", overlay.tm // 2, overlay.accumulator_words))


def _buffer(form: str, lanes: int, depth: int) -> Row:
    return _nearest("buffer", (("lanes", lanes), ("depth", depth)), form)


def _control(overlay: Overlay) -> tuple[str, tuple[tuple[str, int], ...]]:
    return "control", (
        ("engines", len(overlay.engines)), ("inputs", len(overlay.masters_of(Role.INPUT))),
        ("outputs", len(overlay.masters_of(Role.OUTPUT))), ("width", _width(overlay)),
        ("channels", channels(overlay)))


def _places(overlay: Overlay) -> tuple[str, tuple[tuple[str, int], ...]]:
    _, numbers = _control(overlay)
    return "places", (
        ("tm", overlay.tm), ("tn", overlay.tn), ("columns", overlay.columns),
        ("requantize_cycles", overlay.requantize_cycles), *numbers)


def _width(overlay: Overlay) -> int:
    return max(item.width_bits for item in overlay.masters)


@cache
def _nearest(part: str, numbers: tuple[tuple[str, int], ...], form: str = "") -> Row:
    """The row of the grid most like a part; of rows alike, the slower one.

    Numbers count by doublings, a form or a switch that differs as two.
    """
    model = read_net_model()

    def key(row: Row) -> tuple[float, float]:
        known = dict(row.numbers)
        far = 2.0 * (row.form != form)
        for name, value in numbers:
            other = known.get(name, 0)
            if name == "dsp_packing" or not value or not other:
                far += 2.0 * (value != other and name == "dsp_packing")
            else:
                far += abs(log2(value / other))
        inside = row.path(Way.INSIDE)
        return far, -inside.ns(model, 0.0) if inside else inf

    return min((row for row in read_grid() if row.part == part), key=key)
