"""What a design file may say of hardware that is somebody else's: where it comes from, its sites.

It decides nothing; `overlay` reads it, `resources` and `cosim.lowering.phases` act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arch_models.fields import FieldError, nearest


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
    SERIAL = "serial"  # load, compute, store in one loop body: each waits for the one before


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


NOT_STATED = Sites()
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


def check_origin(origin: Origin, phases: Phases, reads: Reads, sites: Sites) -> None:
    """Refuse what only somebody else's hardware can be, of a design that is ours."""
    if origin is Origin.OWN and (phases, reads, sites) != (Phases.OVERLAPPED, Reads.FREE,
                                                           NOT_STATED):
        raise FieldError("phases, reads and sites describe somebody else's hardware; with them "
                         f"origin must be {Origin.LITERATURE.value!r}")


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
    return found


def _with_preset(master: Mapping[str, Any], where: str) -> dict[str, Any]:
    preset = master.get("preset")
    if preset is None:
        return dict(master)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise FieldError(f"{where}.preset is {preset!r}; {nearest(str(preset), list(PRESETS))}")
    return {**PRESETS[preset], **{name: value for name, value in master.items()
                                  if name != "preset"}}
