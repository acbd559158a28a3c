"""The measured picture quality of the shipped networks, as a small table.

It measures nothing; see `quality`, which made the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from studies.plain.errors import UserError

FILE = Path(__file__).parents[1] / "data" / "quality.csv"


def quality_db(workload: str) -> float:
    """PSNR in dB of a quantized network on held-out pictures; `UserError` if never measured.

    Only networks with trained weights have one. Figures compare where `measured_on` is the same.
    """
    table = _table()
    if workload not in table:
        raise UserError(f"the quality of {workload!r} was never measured; it is known for "
                        f"{', '.join(table)}.")
    return table[workload]


def measured_on(workload: str) -> str:
    """What names the pictures of a network's quality: "agc", or "unicorn-n256" for that set."""
    family, _, rest = workload.partition("-")
    return f"{family}-{rest.partition('-')[0]}" if family == "unicorn" else family


def comparable(workloads: Iterable[str]) -> None:
    """Refuse networks whose quality was never measured, or not on the same pictures."""
    sets = {}
    for name in workloads:
        quality_db(name)
        sets[measured_on(name)] = name
    if len(sets) > 1:
        raise UserError(f"quality cannot compare {' and '.join(map(repr, sets.values()))}: they "
                        "are measured on different pictures; search each for itself.")


def quality_names() -> tuple[str, ...]:
    """The networks whose quality was measured."""
    return tuple(_table())


@cache
def _table() -> dict[str, float]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return {row["workload"]: float(row["psnr_db"]) for row in csv.DictReader(file)}
