"""Measurement: what hardware said about a design, with its provenance; and its JSON.

It holds no prediction and is no SimResult; nothing here computes what should have come out.
Standard library only, and the syntax of Python 3.8: this file also runs on the board.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

FORMAT = 1
#: Beyond these a file is no measurement: bytes, seconds or watts, counts.
MOST_BYTES, MOST_NUMBER, MOST_INTEGER = 1 << 28, 1e9, (1 << 63) - 1


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
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise MeasurementError(f"{path}: the folder {folder} is not there or cannot be written")
    if not os.path.lexists(target):
        return
    found = os.stat(target)
    if not stat.S_ISREG(found.st_mode):
        raise MeasurementError(f"{path}: is not a plain file; name another")
    if not found.st_mode & 0o222 or not os.access(target, os.W_OK):
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
    target = os.path.realpath(path)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else 0o644
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(dir=os.path.dirname(target),
                                           prefix="." + os.path.basename(target) + ".")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, mode)
        os.replace(partial, target)
    except BaseException as error:
        if partial and os.path.exists(partial):
            os.unlink(partial)
        if isinstance(error, OSError):
            raise MeasurementError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def load_measurement(path: str) -> Measurement:
    """Read a measurement file; `MeasurementError` names what is wrong with it."""
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise MeasurementError(f"{path}: has more than {MOST_BYTES} bytes; is this a "
                                   "measurement file?")
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path}: cannot be read ({error})") from None
    return parse_measurement(text, path)


def parse_measurement(text: str, where: str = "measurement") -> Measurement:
    """A measurement from its JSON: types, ranges and names are checked."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MeasurementError(f"{where}: not JSON ({error})") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise MeasurementError(f"{where}: format must be {FORMAT}; is this a measurement file?")
    found: Measurement = _record(Measurement, raw, where)
    rows = {"frame_seconds": found.frame_seconds}
    rows.update({f"steps[{index}].seconds": step.seconds
                 for index, step in enumerate(found.steps)})
    for name, row in rows.items():
        if len(row) != found.repeats:
            raise MeasurementError(f"{where}: {name} has {len(row)} entries, must have repeats "
                                   f"({found.repeats})")
    return found


def _record(kind: Any, raw: Any, where: str) -> Any:
    """A record of this module from a JSON object, field by field."""
    if not isinstance(raw, dict):
        raise MeasurementError(f"{where}: must be an object")
    items = {item.name: item for item in fields(kind)}
    for name in sorted(set(raw) - set(items)):
        raise MeasurementError(f"{where}: unknown field {name!r}")
    values = {}
    for name, item in items.items():
        if name in raw:
            values[name] = _value(str(item.type), raw[name], f"{where}: {name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise MeasurementError(f"{where}: field {name!r} is missing")
    return kind(**values)


def _value(kind: str, raw: Any, where: str) -> Any:
    """A JSON value as what a field's annotation says."""
    if kind == "float | None":
        return None if raw is None else _value("float", raw, where)
    if kind.startswith("tuple["):
        if not isinstance(raw, list):
            raise MeasurementError(f"{where}: must be a list")
        inner = kind[len("tuple["):].split(",")[0]
        return tuple(_value(inner, item, f"{where}[{index}]") for index, item in enumerate(raw))
    if kind.startswith("dict["):
        if not isinstance(raw, dict):
            raise MeasurementError(f"{where}: must be an object")
        inner = kind[:-1].split(", ")[1]
        return {name: _value(inner, item, f"{where}.{name}") for name, item in raw.items()}
    if kind in ("StepTime", "UnitCounters"):
        return _record({"StepTime": StepTime, "UnitCounters": UnitCounters}[kind], raw, where)
    if kind == "float" and isinstance(raw, (int, float)) and not isinstance(raw, bool):
        if not 0 <= raw <= MOST_NUMBER:  # nor nan
            raise MeasurementError(f"{where} is {raw}, must be from 0 to {MOST_NUMBER:g}")
        return float(raw)
    plain: dict[str, type] = {"str": str, "int": int, "bool": bool}
    if type(raw) is not plain.get(kind):  # True is an int, to isinstance
        raise MeasurementError(f"{where}: {ascii(raw)[:60]} must be of type {kind}")
    if isinstance(raw, int) and not -1 <= raw <= MOST_INTEGER:
        raise MeasurementError(f"{where} is {ascii(raw)[:60]}, must be from -1 to {MOST_INTEGER}")
    return raw
