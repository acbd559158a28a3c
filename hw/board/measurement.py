"""Measurement: what hardware said about a design, with its provenance; and its JSON.

It holds no prediction and is no SimResult; nothing here computes what should have come out.
Standard library only, and the syntax of Python 3.8: this file also runs on the board.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field, fields

FORMAT = 1


class MeasurementError(ValueError):
    """A measurement file is not one. The message names the file and the field."""


@dataclass(frozen=True)
class StepTime:
    """Wall-clock seconds of one step of a frame, one entry a repeat.

    `kind`: "fabric" (one start, until its interrupt) or "host" (one layer on the processor).
    `first`, `count`, `repeats`, `repeat_first`: the operations of a fabric step, as
    `hw.interface.plan` has them; `layer`: the layer of a host step, or -1.
    """

    kind: str
    seconds: tuple[float, ...]
    first: int = 0
    count: int = 0
    repeats: int = 1
    repeat_first: int = 0
    layer: int = -1


@dataclass(frozen=True)
class UnitCounters:
    """Cycles of one unit over one frame, read from the fabric, with the meaning of SimResult.

    `stall` maps a cause to cycles. The counts are those of the last repeat.
    """

    unit: str
    busy_cycles: int
    idle_cycles: int
    stall_cycles: dict[str, int]


@dataclass(frozen=True)
class Measurement:
    """What was measured. `source`: "board", "rtl simulation" or "c simulation".

    `manifest_sha256`, `program_sha256`, `bitstream_sha256` say of what. `frame_seconds`: whole
    frames, one entry a repeat, without the first one if `warm_up`. `power_w`: mean of a meter
    at the plug over the repeats, or None if there was no meter; `rails_w`: of every column of its
    file. `values_compared`, `values_differing`: the
    outputs against those shipped with the project.
    """

    source: str
    board: str
    design: str
    manifest_sha256: str
    program_sha256: str
    bitstream_sha256: str
    clock_hz: int
    taken_utc: str
    repeats: int
    warm_up: bool
    frame_seconds: tuple[float, ...]
    steps: tuple[StepTime, ...]
    counters: tuple[UnitCounters, ...]
    values_compared: int
    values_differing: int
    power_w: float | None = None
    power_samples: int = 0
    rails_w: dict[str, float] = field(default_factory=dict)


def measurement_text(measurement: Measurement) -> str:
    """JSON with sorted keys; `parse_measurement` gives back an equal value."""
    return json.dumps({"format": FORMAT, **asdict(measurement)}, indent=1, sort_keys=True) + "\n"


def check_output(path: str) -> None:
    """Refuse, before anything is measured, a file that `save_measurement` could not write."""
    place = os.path.realpath(path)
    folder = os.path.dirname(place)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise MeasurementError(f"{path}: the folder {folder} is not there or cannot be written")
    if not os.path.lexists(place):
        return
    found = os.stat(place)
    if not stat.S_ISREG(found.st_mode):
        raise MeasurementError(f"{path}: is not a plain file; name another")
    if not found.st_mode & 0o222 or not os.access(place, os.W_OK):
        raise MeasurementError(f"{path}: is read-only; name another, or make it writable")
    if found.st_nlink > 1:
        raise MeasurementError(f"{path}: has a second name (a hard link); name another file")


def save_measurement(measurement: Measurement, path: str) -> None:
    """Write a measurement file (`write_whole`)."""
    write_whole(path, measurement_text(measurement).encode())


def write_whole(path: str, data: bytes) -> None:
    """Write a file whole or not at all; an older one keeps its mode.

    Raises `MeasurementError` if that cannot be, on a full disk for example.
    """
    check_output(path)
    place = os.path.realpath(path)
    mode = stat.S_IMODE(os.stat(place).st_mode) if os.path.exists(place) else 0o644
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(dir=os.path.dirname(place),
                                           prefix="." + os.path.basename(place) + ".")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, mode)
        os.replace(partial, place)
    except BaseException as error:
        if partial and os.path.exists(partial):
            os.unlink(partial)
        if isinstance(error, OSError):
            raise MeasurementError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def load_measurement(path: str) -> Measurement:
    """Read a measurement file; `MeasurementError` names what is wrong with it."""
    with open(path, encoding="utf-8") as file:
        return parse_measurement(file.read(), path)


def parse_measurement(text: str, where: str = "measurement") -> Measurement:
    """A measurement from its JSON."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise MeasurementError(f"{where}: not JSON ({error})") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise MeasurementError(f"{where}: format must be {FORMAT}; is this a measurement file?")
    known = {item.name for item in fields(Measurement)}
    for name in sorted(set(raw) ^ known):
        if name in raw:
            raise MeasurementError(f"{where}: unknown field {name!r}")
        if name not in ("power_w", "power_samples", "rails_w"):
            raise MeasurementError(f"{where}: field {name!r} is missing")
    try:
        raw["frame_seconds"] = tuple(float(value) for value in raw["frame_seconds"])
        raw["steps"] = tuple(StepTime(**{**item, "seconds": tuple(item["seconds"])})
                             for item in raw["steps"])
        raw["rails_w"] = {str(rail): float(watts)
                          for rail, watts in dict(raw.get("rails_w") or {}).items()}
        raw["counters"] = tuple(UnitCounters(**item) for item in raw["counters"])
    except (TypeError, KeyError, ValueError) as error:
        raise MeasurementError(f"{where}: {error}") from None
    if len(raw["frame_seconds"]) != raw["repeats"]:
        raise MeasurementError(f"{where}: frame_seconds has {len(raw['frame_seconds'])} entries, "
                               f"must have repeats ({raw['repeats']})")
    return Measurement(**raw)
