"""Golden figures: what the shipped networks are predicted to take on the shipped designs.

It judges nothing; `tests/golden/test_golden_networks.py` compares. After a change that moves them,

    python -m tests.support.golden --reason "why they move" [--demo out/demo/best.toml]

writes `tests/golden/networks.csv` anew. Rows that stay equal keep their commit, date and reason.
`--demo`: the design that `make demo` chose, kept in `demo.toml` beside it.
"""

from __future__ import annotations

import csv
import io
import math
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from arch_models.board import load_board
from arch_models.output import write_text
from arch_models.overlay import Overlay, Rate, load_overlay
from studies.evaluation.evaluate import evaluate, feasible
from workloads.library import load

FOLDER = Path(__file__).parents[1] / "golden"
TABLE, DEMO = FOLDER / "networks.csv", FOLDER / "demo.toml"
BOARD = "pynq-z1"
#: Joules and megahertz are sums of floats: equal on every machine to so much, not to the bit.
TOLERANCE = 1e-9
KINDS: Mapping[str, Callable] = {"str": str, "int": int, "float": float}
#: Network, design, and the rate in Hz that is asked for (0: the fastest that is predicted).
CASES = (
    *((network, design, 0)
      for network in ("agc-w16", "agc-w32", "agc-w64", "agc-t32b4", "unicorn-n256-int8",
                      "unicorn-n256-one-step", "unicorn-n1024")
      for design in ("default", "diffusion")),
    ("agc-w16", "default", 200_000_000), ("unicorn-n256-int8", "diffusion", 100_000_000),
    ("agc-w64", "demo", 0))


@dataclass(frozen=True)
class Figures:
    """One frame of a network on a design (`ddr3`, one frame alone), from first in to last out.

    `energy_*`: microjoules a pixel of the whole board, `low` and `high` its 80 % limits;
    `fabric_*`: the predicted clock in MHz with its limits.
    """

    network: str
    design: str
    asked_hz: int
    clock_hz: int
    cycles: int
    operations: int
    bursts: int
    bytes_read: int
    bytes_written: int
    energy_uj: float
    energy_low_uj: float
    energy_high_uj: float
    fabric_mhz: float
    fabric_low_mhz: float
    fabric_high_mhz: float
    program_sha256: str

    @property
    def case(self) -> tuple[str, str, int]:
        """What was asked."""
        return self.network, self.design, self.asked_hz

    @property
    def latency_ms(self) -> float:
        """First in to last out."""
        return self.cycles / self.clock_hz * 1e3


@dataclass(frozen=True)
class Provenance:
    """Since which change the figures are these: a commit that lies before it, day and reason."""

    commit: str
    date: str
    reason: str


def overlay_of(design: str, asked_hz: int) -> Overlay:
    """A shipped design, or the demo's, at a rate."""
    overlay = load_overlay(DEMO if design == "demo" else design)
    return replace(overlay, clock_hz=asked_hz, rate=Rate.FIXED) if asked_hz else overlay


def measured(network: str, design: str, asked_hz: int) -> Figures:
    """The figures as this program predicts them now."""
    found = feasible(evaluate(load(network), overlay_of(design, asked_hz), load_board(BOARD),
                              "ddr3", frames=1, detail=True))
    pixel = 1e6 / found.pixels
    return Figures(network, design, asked_hz, found.clock_hz, found.latency_cycles,
                   found.operations, found.bursts, found.bytes_read, found.bytes_written,
                   found.energy.total_j * pixel, found.energy.low * pixel,
                   found.energy.high * pixel, found.clock.predicted_mhz, found.clock.low_mhz,
                   found.clock.high_mhz, found.program_hash)


def differences(one: Figures, other: Figures) -> list[str]:
    """Fields that differ: integers and hashes exactly, floats beyond the tolerance."""
    pairs = [(item.name, getattr(one, item.name), getattr(other, item.name))
             for item in fields(Figures)]
    return [f"{name} was {was}, is {now}" for name, was, now in pairs
            if not (math.isclose(was, now, rel_tol=TOLERANCE) if isinstance(was, float)
                    else was == now)]


def stored() -> dict[tuple[str, str, int], tuple[Figures, Provenance]]:
    """The golden figures by case."""
    found = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            figures = Figures(**{item.name: KINDS[str(item.type)](row[item.name])
                                 for item in fields(Figures)})
            found[figures.case] = figures, Provenance(
                *(row[item.name] for item in fields(Provenance)))
    return found


def text(rows: dict[tuple[str, str, int], tuple[Figures, Provenance]]) -> str:
    """The table as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [item.name for kind in (Figures, Provenance)
                                   for item in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(figures) | asdict(why) for figures, why in rows.values())
    return file.getvalue()


def last_commit() -> str:
    """The last commit of the main line that the tree rests on."""
    for words in (("merge-base", "HEAD", "main"), ("rev-parse", "HEAD")):
        done = subprocess.run(["git", *words], cwd=FOLDER, capture_output=True, text=True,
                              check=False)
        if done.returncode == 0:
            return done.stdout.strip()[:10]
    return "unknown"


def write(reason: Annotated[str, typer.Option(help="Why the figures move.")],
          demo: Annotated[Path | None, typer.Option(
              help="The design that `make demo` chose now.", show_default=False)] = None) -> None:
    """Predict every case anew and write what moved, with the reason."""
    if not reason.strip():
        raise typer.BadParameter("must say why the figures move", param_hint="--reason")
    if demo is not None:
        write_text(DEMO, demo.read_text(encoding="utf-8"))
    before = stored() if TABLE.exists() else {}
    now = Provenance(last_commit(), date.today().isoformat(), reason.strip())
    rows = {}
    for case in CASES:
        figures = measured(*case)
        told = differences(before[case][0], figures) if case in before else ["new"]
        rows[case] = (figures, now) if told else before[case]
        if told:
            print(" ".join(str(part) for part in case), "; ".join(told), sep=": ")
    write_text(TABLE, text(rows))


if __name__ == "__main__":
    typer.run(write)
