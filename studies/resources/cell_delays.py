"""Delays of 7-series cells as data: what passes through a cell, leaves a register, arrives at one.

It holds no figure: `arch_models/data/xc7_delays.csv` does, with a source for each.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from arch_models.fields import shortened
from studies.plain.errors import UserError

DELAY_FILE = Path(__file__).parents[2] / "arch_models" / "data" / "xc7_delays.csv"
#: Cells that hold no path between registers.
IGNORED = frozenset({"BUFG", "GND", "VCC"})


class Kind(Enum):
    """What a delay is of."""

    THROUGH = "through"  # from an input to an output
    LAUNCH = "launch"  # from the clock to an output
    CAPTURE = "capture"  # before the clock, at an input


@dataclass(frozen=True)
class Delay:
    """`ns` from any of `pins` to any of `outs`, each a port and a bit.

    Of a launch there are outs only, of a capture pins only.
    """

    kind: Kind
    pins: tuple[tuple[str, int], ...]
    outs: tuple[tuple[str, int], ...]
    ns: float


@dataclass(frozen=True)
class _Row:
    when: tuple[tuple[str, str, str], ...]
    kind: Kind
    pin: str
    out: str
    ns: float


@cache
def _rows(path: Path) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            conditions = []
            for word in row["when"].split():
                sign = next(sign for sign in "=!>" if sign in word)
                name, _, value = word.partition(sign)
                conditions.append((name, sign, value))
            found.setdefault(row["cell"], []).append(_Row(
                tuple(conditions), Kind(row["kind"]), row["from"], row["to"], float(row["ns"])))
    return found


def delays(kind: str, parameters: Mapping[str, str], widths: tuple[tuple[str, int], ...],
           path: Path = DELAY_FILE) -> list[Delay]:
    """The delays of a cell with its parameters and its ports (name, bits).

    `UserError` for a cell that the data lack.
    """
    if kind in IGNORED:
        return []
    rows = _rows(path)
    if kind not in rows:
        raise UserError(f"no delays of {shortened(kind)!r} in {path.name}; it knows "
                        f"{', '.join(rows)}")
    values = tuple((name, parameters.get(name, "0")) for name in _conditions(kind, path))
    return _delays(kind, values, widths, path)


@cache
def _conditions(kind: str, path: Path) -> tuple[str, ...]:
    """The parameters that a cell's delays depend on."""
    return tuple(dict.fromkeys(name for row in _rows(path)[kind] for name, _, _ in row.when))


@cache
def _delays(kind: str, parameters: tuple[tuple[str, str], ...],
            widths: tuple[tuple[str, int], ...], path: Path) -> list[Delay]:
    known = dict(parameters)
    return [Delay(row.kind, _pins(row.pin, widths), _pins(row.out, widths), row.ns)
            for row in _rows(path)[kind] if all(_holds(known, item) for item in row.when)]


def _holds(parameters: Mapping[str, str], condition: tuple[str, str, str]) -> bool:
    name, sign, value = condition
    text = parameters[name].strip()
    if value.isdigit():
        number = int(text, 2) if set(text) <= {"0", "1"} else 0
        return number > int(value) if sign == ">" else number == int(value)
    return (text == value) is (sign == "=")


def _pins(pattern: str, widths: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The pins that a pattern means: `I*`, `S[0]`; without an index all bits of a port."""
    name, _, bit = pattern.partition("[")
    return tuple((port, index) for port, width in widths if fnmatchcase(port, name)
                 for index in (range(width) if not bit else (int(bit[:-1]),)))
