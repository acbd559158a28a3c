"""The measured picture quality of the shipped networks, as a small table.

It measures nothing; see `quality`, which made the table.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from studies.plain.errors import UserError

FILE = Path(__file__).parents[1] / "data" / "quality.csv"


def quality_db(workload: str) -> float:
    """PSNR in dB of a quantized network on held-out pictures; `UserError` if never measured.

    Only networks with trained weights have one. Figures compare within one kind of decoder.
    """
    table = _table()
    if workload not in table:
        raise UserError(f"the quality of {workload!r} was never measured; it is known for "
                        f"{', '.join(table)}.")
    return table[workload]


def quality_names() -> tuple[str, ...]:
    """The networks whose quality was measured."""
    return tuple(_table())


@cache
def _table() -> dict[str, float]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return {row["workload"]: float(row["psnr_db"]) for row in csv.DictReader(file)}
