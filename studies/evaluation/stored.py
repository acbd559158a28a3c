"""Reads results that `cosim simulate --json` wrote, with every number in its range.

It evaluates nothing; types are checked by `records`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from arch_models.fields import FieldError, prose, shortened
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.records import load

#: What something is divided by.
POSITIVE = ("clock_hz", "frames", "pixels", "latency_cycles", "period_cycles", "step_cycles",
            "peak_macs_per_cycle", "available")
MOST = 2**62


def load_evaluation(path: Path) -> Evaluation:
    """The result in a file; `UserError` names the field that is not what a result holds."""
    found = load(path, "evaluation", Evaluation)
    check_ranges(found, f"{path}: content")
    return found


def check_ranges(found: Evaluation, place: str) -> None:
    """Refuse a result with a number out of its range, or a text that is no line, by `UserError`.

    `place`: the file and where in it the result stands, for the message.
    """
    for where, value in _leaves(found, ""):
        name = where.rpartition(".")[2]
        if isinstance(value, str):
            if name != "design_file":
                _line(f"{place}.{where}", value)
        elif value is not None and not (name in POSITIVE) <= value <= MOST:
            raise UserError(f"{place}.{where}: {shortened(value)}, must be at least "
                            f"{int(name in POSITIVE)} and at most 2^62")
    if not found.energy.total_j > 0:
        raise UserError(f"{place}.energy: the parts sum to {found.energy.total_j}, must be more "
                        "than 0")


def _line(where: str, text: str) -> None:
    try:
        prose(text, where)
    except FieldError as error:
        raise UserError(str(error)) from None


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every value that is no collection, and every key, with its place."""
    if is_dataclass(value):
        for item in fields(value):
            yield from _leaves(getattr(value, item.name), f"{where}.{item.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{where}: key", key
            yield from _leaves(item, f"{where}.{shortened(key)}")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{where}[{index}]")
    else:
        yield where, value
