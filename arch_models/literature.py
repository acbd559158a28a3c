"""What a design file may say of hardware that is somebody else's: origin, sites, what loops do.

It decides nothing; `overlay` reads it, `resources`, the convolution's cost and `cosim.lowering`
(`phases`, `copies`, `calls`) act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arch_models.fields import FieldError, nearest, one_of, shortened


class Origin(StrEnum):
    """Whose hardware a design is."""

    OWN = "own"  # built from the RTL of this project
    LITERATURE = "literature"  # somebody else's, described; it was built, so it fits its part


class Reads(StrEnum):
    """Do several input masters run each on its own, or row by row together?"""

    FREE = "free"
    JOINED = "joined"  # one loop starts a row on every port and waits for all of them


class Phases(StrEnum):
    """Do loads, work and stores of a tile run beside those of others?"""

    OVERLAPPED = "overlapped"  # as far as the banks of the buffers let them
    DRAINED = "drained"  # results of an output tile leave before the next one begins
    SERIAL = "serial"  # load, compute, store in one loop body: each waits for the one before


class Copies(StrEnum):
    """How a tile of a tensor is copied."""

    RUNS = "runs"  # rows that touch in DRAM are one run
    ROWS = "rows"  # each row of a tile is a run of its own, whatever its width


class WeightCopies(StrEnum):
    """How a block of weights, which lies together in DRAM, is copied."""

    BLOCK = "block"  # one run
    CHANNELS = "channels"  # a run for each output channel: `tn` kernels
    KERNELS = "kernels"  # a run for each kernel


class Reuse(StrEnum):
    """Does an output tile find on chip what the tile before it read?"""

    MAPPED = "mapped"  # the mapping chooses: inputs or weights may stay
    NONE = "none"  # each output tile reads its inputs and its weights again


class WeightPath(StrEnum):
    """Which master loads weights and parameters?"""

    OWN = "own"  # that with role weight
    INPUT = "input"  # the first input master, in turn with the tiles


class Calls(StrEnum):
    """How often does the host start the hardware inside a layer?"""

    WHOLE = "whole"  # never
    TILE = "tile"  # for each tile that is stored
    PASS = "pass"  # for each pass over input channels of a tile


@dataclass(frozen=True, slots=True)
class Sites:
    """What a built design takes of its part, as published; zeros: not stated."""

    dsp: int = 0
    bram36: float = 0.0
    lut: int = 0
    ff: int = 0

    @property
    def stated(self) -> bool:
        """Is anything stated?"""
        return bool(self.dsp or self.bram36 or self.lut or self.ff)


@dataclass(frozen=True, slots=True)
class Loops:
    """What the loops of described hardware do beside their tiles; by default nothing.

    `stream_rows`, `stream_columns`: output rows and columns of a tile of an engine that is no
    convolution, at most (0: the mapping chooses). `read_rows`, `read_columns`: more rows and
    columns that a convolution's tile is loaded with, as a stream of (rows + a)(columns + b);
    `work_rows`, `work_columns`: more output rows and columns that the array goes through.
    `taps_per_cycle`: taps of a kernel in a cycle. `partial_bits`: of a partial sum, if sums go to
    DRAM and back between passes over input channels (0: they stay on chip). `call_us`: of the
    driver, in each start, besides the board's start and register writes. `call_cache`: does each
    call flush what it reads and invalidate what it writes?
    """

    copies: Copies = Copies.RUNS
    weight_copies: WeightCopies = WeightCopies.BLOCK
    weights: WeightPath = WeightPath.OWN
    reuse: Reuse = Reuse.MAPPED
    stream_rows: int = 0
    stream_columns: int = 0
    read_rows: int = 0
    read_columns: int = 0
    work_rows: int = 0
    work_columns: int = 0
    taps_per_cycle: int = 1
    fused_max_pool: bool = False
    partial_bits: int = 0
    calls: Calls = Calls.WHOLE
    call_us: float = 0.0
    call_cache: bool = False


NOT_STATED = Sites()
AS_TILED = Loops()
MOST_EDGE, MOST_TAPS, MOST_CALL_US = 4096, 1024, 1e6
#: Least and most of the numbers of `Loops`.
LOOP_BOUNDS: Mapping[str, tuple[float, float]] = {
    **{name: (0, MOST_EDGE) for name in ("stream_rows", "stream_columns", "read_rows",
                                         "read_columns", "work_rows", "work_columns")},
    "taps_per_cycle": (1, MOST_TAPS), "call_us": (0, MOST_CALL_US)}
PARTIAL_BITS = (0, 8, 16, 32)
#: A master that an HLS compiler makes of a copy loop (`preset = "hls"`). Every row is one copy,
#: which begins when the row before has come: VTA's rows take 46 cycles from request to first beat
#: (`data/vta.toml`) where a bare HP read takes 21 (ammrat13/pynqz2-ram-tester), so its adapter and
#: loop take 25. Bursts of 16 beats, up to 16 in flight inside a row: AMD UG902's defaults. The
#: two cycles at the end are a guess.
HLS_MASTER: Mapping[str, object] = {
    "outstanding": 16, "max_burst_beats": 16, "setup_cycles": 25, "tail_cycles": 2,
    "overlap_runs": False, "run_setup_cycles": 25}
PRESETS = {"hls": HLS_MASTER}
#: Defaults of a described design: results leave as fast as they are made, while the requantizers of
#: our RTL take eight cycles for the results of a position, which every 1x1 kernel would wait for.
DESCRIBED: Mapping[str, object] = {"requantize_cycles": 1}


def check_origin(origin: Origin, phases: Phases, reads: Reads, sites: Sites, loops: Loops,
                 start: str) -> None:
    """Refuse what only somebody else's hardware can be, of a design that is ours, and loops that
    no hardware has. `start`: how often the host starts it (`control.start`)."""
    if origin is Origin.OWN and (phases, reads, sites, loops) != (
            Phases.OVERLAPPED, Reads.FREE, NOT_STATED, AS_TILED):
        raise FieldError("phases, reads, sites and loops describe somebody else's hardware; with "
                         f"them origin must be {Origin.LITERATURE.value!r}")
    if loops.calls is not Calls.WHOLE and start != "layer":
        raise FieldError(f"control.start is {start!r} with loops.calls "
                         f"{loops.calls.value!r}; must be 'layer'")
    for name, (least, most) in LOOP_BOUNDS.items():
        value = getattr(loops, name)
        if not least <= value <= most:
            raise FieldError(f"loops.{name} is {shortened(value)}, must be at least {least} and "
                             f"at most {most:g}; nearest {min(max(value, least), most):g}")
    one_of("loops.partial_bits", loops.partial_bits, PARTIAL_BITS)


def filled_in(table: Mapping[str, Any]) -> dict[str, Any]:
    """A design file's table with the defaults of its origin and of its masters' presets.

    What the table says itself stays. Raises `FieldError` for a preset that there is not.
    """
    found = dict(table)
    if found.get("origin") == Origin.LITERATURE:
        found = {**DESCRIBED, **found}
    masters = found.get("masters")
    if isinstance(masters, list):
        found["masters"] = [_with_preset(item, f"masters[{index}]")
                            if isinstance(item, Mapping) else item
                            for index, item in enumerate(masters)]
        loops = found.get("loops")
        if isinstance(loops, Mapping) and loops.get("weights") == WeightPath.INPUT:
            found["masters"] += _weight_stand_in(found["masters"])
    return found


def _weight_stand_in(masters: list[Any]) -> list[dict[str, Any]]:
    """A weight master like the first input master, whose work that one does; none if there is."""
    given = [item for item in masters if isinstance(item, Mapping)]
    inputs = [item for item in given if item.get("role") == "input"]
    if not inputs or any(item.get("role") == "weight" for item in given):
        return []
    return [{**inputs[0], "name": f"{inputs[0].get('name')}_weights", "role": "weight"}]


def _with_preset(master: Mapping[str, Any], where: str) -> dict[str, Any]:
    preset = master.get("preset")
    if preset is None:
        return dict(master)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise FieldError(f"{where}.preset is {preset!r}; {nearest(str(preset), list(PRESETS))}")
    return {**PRESETS[preset], **{name: value for name, value in master.items()
                                  if name != "preset"}}
