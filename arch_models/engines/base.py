"""What every engine model answers: does it run a layer, what does a tile cost, what does it need.

It times no transfer and maps nothing. Times are fabric cycles; an engine runs one tile after
another, FILL + INTERVAL * TRIPS + DRAIN cycles each. The coefficients are data, by backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from arch_models.channels import engine_channels
from arch_models.fields import Coefficient, FieldError, build, nearest
from arch_models.files import read_toml
from arch_models.overlay import Engine, Overlay

DATA = Path(__file__).parent.parent / "data"
#: Cycles that a gated clock goes on after an operation's end: of the RTL, which is empty by then.
HOLD_CYCLES = 8
PARAMETER_BITS = 54  # of an entry that an engine reads: bias, multiplier, shift
VECTOR_LANES = 8  # channels of a beat


@dataclass(frozen=True, slots=True)
class Work:
    """What a layer asks of an engine, without its tensors. `operator` as in the graph."""

    operator: str
    kernel_rows: int = 1
    kernel_columns: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    relu: bool = False
    scaled_pool: bool = False  # an average pool with a multiplier of its own
    depthwise: bool = False  # a convolution whose groups have one channel in and one out
    wide: bool = False  # a convolution of values with more bits than the engines'


@dataclass(frozen=True, slots=True)
class Tile:
    """One operation's share. `planes`: channel blocks; words: `tn` or `tm` channels.

    `rows`, `columns`: output positions (of the convolution before a fused pool). `groups`: of a
    group norm whose entries are computed behind the tile's sums, of `channels` channels in all.
    """

    rows: int
    columns: int
    planes: int = 1
    channels: int = 1
    in_words: int = 1
    out_words: int = 1
    groups: int = 0


@dataclass(frozen=True, slots=True)
class TileCost:
    """Cycles of one operation: fill + interval * trips + drain."""

    fill: int
    interval: int
    trips: int
    drain: int

    @property
    def cycles(self) -> int:
        """The whole operation."""
        return self.fill + self.interval * self.trips + self.drain


@dataclass(frozen=True, slots=True)
class Timing:
    """Coefficients of one operator on one backend, in cycles.

    The interval between trips is `interval + interval_per_plane * planes +
    interval_per_channel * channels + interval_per_tap * kernel_rows * kernel_columns`. The drain
    of an operation that computes entries grows by `drain_per_group` and `drain_per_channel`; that
    of a convolution by `drain_per_result` for each of the overlay's `result_cycles` and by
    `drain_per_lane` for each of its `tn` input channels.
    """

    fill: int
    interval: int
    interval_per_plane: int
    interval_per_channel: int
    interval_per_tap: int
    drain: int
    drain_per_group: int = 0
    drain_per_channel: int = 0
    drain_per_result: int = 0
    drain_per_lane: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """Fabric sites. BRAM36 counts halves (one half is a RAMB18)."""

    dsp: int = 0
    bram36: float = 0.0
    lut: int = 0
    ff: int = 0

    def __rmul__(self, count: int) -> Resources:
        """Sites of several copies."""
        return Resources(count * self.dsp, count * self.bram36, count * self.lut, count * self.ff)

    def __add__(self, other: Resources) -> Resources:
        """Sites of both."""
        return Resources(self.dsp + other.dsp, self.bram36 + other.bram36,
                         self.lut + other.lut, self.ff + other.ff)


class Memory(NamedTuple):
    """A memory of an engine's own that the weight master fills: words of `lanes` beats, of which
    the engine reads `bits` each."""

    name: str
    words: int
    lanes: int
    bits: int = 64


class Grid(NamedTuple):
    """At which sizes the RTL of an engine is synthesized: rows of tm, tn, channels, and `own`.

    `sites`, `paths`: rows of the grid of sites (`resource_grid.csv`) and of the grid of longest
    paths (`timing_grid.csv`). `own`: columns of both grids that tell the engine's rows apart
    besides, each with the overlay's field that it stands for. `forms`: rows of paths with one more
    switch on, by the name of its field, which is the form of the row.
    """

    sites: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[int, ...], ...]
    own: Mapping[str, str] = MappingProxyType({})
    forms: Mapping[str, tuple[tuple[int, ...], ...]] = MappingProxyType({})

    @property
    def columns(self) -> tuple[str, ...]:
        """What the numbers of a row are."""
        return ("tm", "tn", "channels", *self.own)

    def form(self, overlay: Overlay) -> str:
        """The switch of `forms` that an overlay has on; "" if none."""
        return next((name for name in self.forms if getattr(overlay, name)), "")

    def row(self, overlay: Overlay) -> dict[str, int]:
        """What an overlay has in the engine's own columns."""
        return {column: int(getattr(overlay, field)) for column, field in self.own.items()}


#: Of an engine whose sites follow from the words' widths and the channels that end there.
STREAM_GRID = Grid(((8, 8, 4), (16, 8, 4), (8, 16, 4), (16, 16, 6), (24, 8, 4), (8, 8, 2)),
                   ((8, 8, 4), (24, 16, 4)))


class EngineModel(ABC):
    """The seam. Implementations hold no state.

    What is written out here holds for an engine that streams beats and has nothing of its own.
    """

    #: Which engine this models.
    engine: Engine
    #: Sizes of the grids of its sites and paths.
    grid: ClassVar[Grid] = STREAM_GRID
    #: Which of `terms` the fit of each kind of sites takes; the others move none of them.
    fitted: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({
        "dsp": ("wide", "mixed", "channel"), "lut": ("wide", "mixed", "channel"),
        "ff": ("channel",)})
    #: Fields of the overlay that are this engine's alone, with the values of a search.
    axes: ClassVar[Mapping[str, tuple[int, ...]]] = MappingProxyType({})

    @abstractmethod
    def supports(self, work: Work) -> bool:
        """Can the engine run this layer at all (capacity is the mapping's question)?"""

    @abstractmethod
    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of one tile. `FieldError` if the engine does not support the work."""

    def terms(self, overlay: Overlay) -> dict[str, float]:
        """What the sites of the engine's logic grow with, besides a constant."""
        return stream_terms(overlay, self.engine)

    def resources(self, overlay: Overlay) -> Resources:
        """Sites of the engine's logic, without its memories."""
        return logic(self.engine.value, self.terms(overlay))

    def padded_bytes(self, overlay: Overlay) -> int:
        """Bytes a cycle that padding may stand in for."""
        return 0

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """Memories that only this engine reads; those that engines share are not among them."""
        return ()


@cache
def coefficients(file: str) -> tuple[Coefficient, ...]:
    """Every number of a data file with unit, source and status."""
    found: list[Coefficient] = []
    _walk(read_toml(DATA / file), "", found)
    return tuple(found)


def _walk(table: dict, path: str, found: list[Coefficient]) -> None:
    for name, value in table.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict) and "value" in value:
            found.append(build(_Row, {**value, "name": where}, where).coefficient())
        elif isinstance(value, dict):
            _walk(value, where, found)
        else:
            raise FieldError(f"{where}: {value!r} must be a table with value, unit, source, status")


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    value: float
    unit: str
    source: str
    status: str
    error: float = 0.0

    def coefficient(self) -> Coefficient:
        from arch_models.fields import Status

        return Coefficient(self.name, self.value, self.unit, self.source, Status(self.status),
                           self.error)


@cache
def values(file: str) -> dict[str, float]:
    """The numbers of a data file by dotted name; read only."""
    return {item.name: item.value for item in coefficients(file)}


def backends() -> tuple[str, ...]:
    """The backends that have engine timings."""
    return tuple(sorted({name.split(".")[0] for name in values("engines.toml")}))


@cache
def backend_timing(backend: str, operator: str) -> Timing:
    """The coefficients of an operator; `FieldError` with the nearest backend if unknown.

    `backend`: a table of `data/engines.toml`, or a file of coefficients with one table.
    """
    if backend.endswith(".toml"):
        return _file_timing(backend, operator)
    if backend not in backends():
        raise FieldError(f"backend: {backend!r}; {nearest(backend, backends())}")
    table = values("engines.toml")
    return Timing(*(int(table.get(f"{backend}.{operator}.{item.name}", 0))
                    for item in fields(Timing)))


def _file_timing(file: str, operator: str) -> Timing:
    """From a file outside the package, where nothing may be missing."""
    try:
        table = {name.partition(".")[2]: value
                 for name, value in values(str(Path(file).resolve())).items()}
    except ValueError as error:
        raise FieldError(f"backend: {file}: {error}") from None
    for name in ("fill", "interval", "drain"):
        if f"{operator}.{name}" not in table:
            raise FieldError(f"backend: {file} has no {operator}.{name}; calibrate it from a "
                             "report that holds this operator, or leave its engine out")
    return Timing(*(int(table.get(f"{operator}.{item.name}", 0)) for item in fields(Timing)))


def timing(overlay: Overlay, engine: Engine, operator: str) -> Timing:
    """The coefficients that hold for an overlay: its own pipeline if it names one."""
    for own in overlay.pipelines:
        if own.engine is engine:
            return Timing(own.fill_cycles, own.interval_cycles, 0, 0, 0, own.drain_cycles)
    return _with_drain(backend_timing(overlay.backend, operator), overlay.result_cycles, overlay.tn)


@cache
def _with_drain(found: Timing, results: int, lanes: int) -> Timing:
    """With the whole drain of a design's convolution."""
    return replace(found, drain=found.drain + found.drain_per_result * results
                   + found.drain_per_lane * lanes)


def interval_cycles(found: Timing, work: Work, planes: int, channels: int) -> int:
    """Cycles between two trips."""
    taps = work.kernel_rows * work.kernel_columns
    return (found.interval + found.interval_per_plane * planes
            + found.interval_per_channel * channels + found.interval_per_tap * taps)


def refuse(engine: Engine, work: Work) -> FieldError:
    """The error of an engine that is asked for work it does not support."""
    return FieldError(f"engine {engine.value!r} does not run {work}")


def logic(name: str, terms: Mapping[str, float]) -> Resources:
    """Sites of a part: `name.<site>`, and `name.<site>_per_<term>` for each term, as data.

    From `engine_sites.toml`, fitted to synthesis. Raises `FieldError` for a part it does not have.
    """
    table = values("engine_sites.toml")
    if f"{name}.lut" not in table:
        raise FieldError(f"engine_sites.toml: has no part {name!r}; synthesize it with "
                         "`cosim study resources`")

    def site(kind: str) -> float:
        return table.get(f"{name}.{kind}", 0) + sum(
            table.get(f"{name}.{kind}_per_{term}", 0) * value for term, value in terms.items())

    return Resources(round(site("dsp")), site("bram36"), round(site("lut")), round(site("ff")))


def stream_terms(overlay: Overlay, engine: Engine) -> dict[str, float]:
    """What the sites of an engine that reads single beats grow with, besides a constant.

    Those of `beat_terms`, and the token channels that end at it.
    """
    return {**beat_terms(overlay), "channel": float(engine_channels(overlay, engine))}


def beat_terms(overlay: Overlay) -> dict[str, float]:
    """How beats lie in the words of an overlay.

    `wide`: one beat of an INPUT word is selected; `mixed`: places in INPUT and OUTPUT are computed
    apart.
    """
    return {"wide": float(overlay.tn > overlay.channel_block),
            "mixed": float(overlay.tm != overlay.tn)}
