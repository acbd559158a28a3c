"""Holds the DRAM rules against the column commands of another simulator, clock by clock.

It fits nothing and runs no other simulator: its clocks are carried (`studies/data/README.md`).

Our RTL's `ddr3` memory runs these very rules, so that RTL and model agree says nothing about them;
somebody else's controller does. What was fitted to a vendor's figures, clocks a written burst and
an opened row, is left out here: DRAMsim3 knows no such thing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from arch_models.board import load_board
from arch_models.memory import Ddr3Timing, Memory, Port, board_memory
from cosim.memory import ddr3 as rules
from cosim.memory.bursts import FAR
from cosim.memory.controller import controller
from studies.plain.truth import CARRIED

TABLE = CARRIED / "dram_commands.csv"
#: DRAMsim3 takes a request two clocks before it can act on it, our controller at once.
FRONT_CLOCKS = 2
#: Where the two differ, by how many clocks our last command comes earlier, and why. A gap that
#: closes or grows must change this table.
WHOLE = "we serve an AXI burst whole, DRAMsim3 one DRAM burst after another in turn"
ONE_WAY = "we open rows only for the direction that is being served"
SLOT = "a row and a column command ask for one slot of the command bus, which we do not model"
KNOWN = {
    ("pynq-z1", "eight banks and two bursts each"): (0, WHOLE),
    ("pynq-z1", "read and write and read over banks"): (0, WHOLE),
    ("pynq-z1", "rows of three banks in turn"): (0, WHOLE),
    ("pynq-z1", "long read into a refresh"): (
        0, "we finish an AXI burst before a refresh that is due"),
    ("pynq-z1", "write before a refresh"): (
        28, "the same, so the row need not be opened again for the rest of the burst"),
    **{("kria-kv260", name): (1, WHOLE) for name in (
        "long read", "long write", "long write then long read", "refresh while idle")},
    **{("kria-kv260", name): (-4, WHOLE) for name in (
        "row change after a long read", "row change after a long write")},
    ("kria-kv260", "unaligned read"): (-3, WHOLE),
    ("kria-kv260", "read before and after a refresh"): (2, WHOLE),
    ("kria-kv260", "rows of three banks in turn"): (0, SLOT),
    ("zcu104", "rows of three banks in turn"): (1, SLOT),
    **{(board, "rows of one group"): (1, SLOT) for board in ("kria-kv260", "zcu104")},
    **{(board, "read then write"): (-4, ONE_WAY) for board in ("kria-kv260", "zcu104")},
}


@dataclass(frozen=True)
class Burst:
    """A burst as it is asked for, and its first and last column command elsewhere."""

    arrival: int
    address: int
    size: int
    write: int
    first: int
    last: int


@dataclass(frozen=True)
class CommandCheck:
    """One scenario on a board's DRAM. `gaps`: our first and last column command less theirs, of
    each burst, in DDR clocks; `end_gap`: of the last command of all. Both after the clocks of their
    front end."""

    board: str
    scenario: str
    gaps: tuple[tuple[int, int], ...]
    end_gap: int

    @property
    def known(self) -> tuple[int, str] | None:
        """What `KNOWN` says of it."""
        return KNOWN.get((self.board, self.scenario))

    @property
    def equal(self) -> bool:
        """Is every burst where the other simulator has it?"""
        return all(gap == (0, 0) for gap in self.gaps)

    @property
    def as_known(self) -> bool:
        """Equal, or different by what `KNOWN` says and no more."""
        if self.known is None:
            return self.equal
        return not self.equal and self.end_gap == -self.known[0]


def told(checks: Sequence[CommandCheck]) -> list[str]:
    """Of each board: how many scenarios are equal to the clock, then each that is not, and why."""
    lines = []
    for board in dict.fromkeys(item.board for item in checks):
        mine = [item for item in checks if item.board == board]
        bursts = sum(len(item.gaps) for item in mine)
        lines.append(f"DRAM commands of {board} against DRAMsim3: "
                     f"{sum(item.equal for item in mine)} of {len(mine)} scenarios ({bursts} "
                     "bursts) equal to the DDR clock")
        for item in mine:
            if not item.equal:
                reason = item.known[1] if item.known else "not explained"
                lines.append(f"  {item.scenario}: the last command {item.end_gap:+d} clocks; "
                             f"{reason}")
    return lines


class Scenario(TypedDict):
    """A `CommandCheck` in a file."""

    board: str
    scenario: str
    equal: bool
    as_known: bool
    gaps_clocks: list[tuple[int, int]]
    end_gap_clocks: int


def as_json(checks: Sequence[CommandCheck]) -> list[Scenario]:
    """Every scenario as JSON values."""
    return [{"board": item.board, "scenario": item.scenario, "equal": item.equal,
             "as_known": item.as_known, "gaps_clocks": list(item.gaps),
             "end_gap_clocks": item.end_gap}
            for item in checks]


def board_timing(board: str = "pynq-z1") -> Ddr3Timing:
    """A board's DRAM without the fitted clocks that the other simulator does not have, nor a tRC of
    its own."""
    ddr = board_memory(load_board(board), 100_000_000).ddr
    assert ddr is not None
    return replace(ddr, write_gap_eighths=0, miss_gap_clocks=0, idle_gap=0,
                   t_rc=ddr.t_ras + ddr.t_rp)


def served(bursts: Sequence[Burst], timing: Ddr3Timing) -> list[tuple[int, int]]:
    """First and last column command of each burst by our rules, in DDR clocks."""
    dram = controller(Memory("ddr3", (Port("p"),), timing), len(bursts))
    for index, item in enumerate(bursts):
        rules.ddr_insert(dram, item.arrival, 0, index, item.address, item.size, item.write)
        dram.s[0].inside += 1
    found: dict[int, tuple[int, int]] = {}
    while rules.ddr_next(dram, 1) != FAR:
        what, entry, _, first, last = rules.ddr_step(dram, 1)
        if what == rules.SERVED:
            found[int(dram.pool[entry].number)] = int(first), int(last)
    return [found[index] for index in range(len(bursts))]


def check_commands(path: Path = TABLE) -> tuple[CommandCheck, ...]:
    """Every scenario of the carried table."""
    scenarios: dict[tuple[str, str], list[Burst]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            scenarios.setdefault((row["board"], row["scenario"]), []).append(
                Burst(*(int(row[name]) for name in (
                    "arrival", "address", "bytes", "write", "first_column", "last_column"))))
    timings = {board: board_timing(board) for board, _ in scenarios}
    found = []
    for (board, name), bursts in scenarios.items():
        # Requests reach their controller later; a refresh is due at the same clock in both.
        late = [replace(item, arrival=item.arrival + FRONT_CLOCKS) for item in bursts]
        ours = served(late, timings[board])
        gaps = tuple((first - item.first, last - item.last)
                     for (first, last), item in zip(ours, bursts, strict=True))
        end = max(last for _, last in ours) - max(item.last for item in bursts)
        found.append(CommandCheck(board, name, gaps, end))
    return tuple(found)
