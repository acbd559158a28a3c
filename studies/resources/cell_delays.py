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
    """`ns` from a pin to a pin; of a launch only `out` counts, of a capture only `pin`.

    Pins are patterns (`I*`, `S[0]`); one without an index means all its bits.
    """

    kind: Kind
    pin: str
    out: str
    ns: float


@dataclass(frozen=True)
class _Row:
    cell: str
    when: tuple[tuple[str, str, str], ...]
    delay: Delay


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
            found.setdefault(row["cell"], []).append(_Row(row["cell"], tuple(conditions), Delay(
                Kind(row["kind"]), row["from"], row["to"], float(row["ns"]))))
    return found


def _holds(parameters: Mapping[str, str], condition: tuple[str, str, str]) -> bool:
    name, sign, value = condition
    text = parameters.get(name, "0").strip()
    if value.isdigit():
        number = int(text, 2) if set(text) <= {"0", "1"} else 0
        return number > int(value) if sign == ">" else number == int(value)
    return (text == value) is (sign == "=")


def delays(kind: str, parameters: Mapping[str, str], path: Path = DELAY_FILE) -> list[Delay]:
    """The delays of a cell with its parameters; ValueError for a cell that the data lack."""
    rows = _rows(path)
    if kind in IGNORED:
        return []
    if kind not in rows:
        raise ValueError(f"no delays of {kind!r} in {path.name}; it knows {', '.join(rows)}")
    return [row.delay for row in rows[kind]
            if all(_holds(parameters, item) for item in row.when)]


def matches(pattern: str, port: str, index: int) -> bool:
    """Whether a pin of a cell is meant by a pattern."""
    name, _, bit = pattern.partition("[")
    return fnmatchcase(port, name) and (not bit or int(bit[:-1]) == index)
