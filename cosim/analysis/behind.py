"""What a frame takes at least behind the end of each of its operations, of a program that is there.

It simulates no memory. Which token an operation takes does not depend on times: a channel has one
unit that gives and one that takes, and each does so in its own order. So an operation starts no
sooner than the one before it on its unit ends, and those that give its tokens. If each takes its
cycles or longer, a frame goes on behind an operation for the longest chain of others behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED_RULE
from cosim.executors.fast_loop import bit_index
from cosim.program.table import Column, Program, Segment, rows_by_unit
from cosim.recurrence.cpu import Prepared, Timer, prepare


@dataclass(frozen=True)
class Chains:
    """A program, repeats written out, by what its operations wait for.

    `order`: by place (see `Prepared`), the operation's number in a trace.
    """

    prepared: Prepared
    links: Links
    order: np.ndarray

    @classmethod
    def of(cls, program: Program) -> Chains | None:
        """None where a token never comes, or a channel starts with more than `prepare` takes."""
        program = written_out(program)
        prepared = prepare(program)
        if prepared is None:
            return None
        order, starts = rows_by_unit(program)
        table = program.operations
        gives, takes = (_counts(table[:, column], len(program.channels))
                        for column in (Column.SIGNAL, Column.WAIT))
        count, bases = len(table), np.concatenate(([0], np.cumsum(gives)))
        links = Links(np.empty(count, np.int64), np.zeros(count + 1, np.int64),
                      np.empty(count + int(takes.sum()), np.int64))
        done = _link(prepared, links, Given(np.empty(bases[-1], np.int64), bases[:-1],
                                            np.zeros(len(gives), np.int64),
                                            -prepared.tokens), starts[0, :-1].copy())
        return cls(prepared, links, order) if done == count else None

    def behind(self, units: np.ndarray, timer: Timer) -> tuple[int, np.ndarray]:
        """(cycles of the frame, by operation of a trace the cycles behind its end), at least.

        `units`: of `cosim.executors.fast.unit_table` for a flat memory on which no transfer takes
        longer than it may. `timer`: keeps what transfers take.
        """
        rows = self.prepared.rows
        cycles = np.append(timer.transfers(self.prepared, units), 0)[rows["form"]]
        cycles = np.where(rows["form"] < 0, rows["cycles"], cycles)
        behind = np.zeros(len(rows), np.int64)
        total = _go_back(self.links, cycles, behind)
        found = np.empty(len(rows), np.int64)
        found[self.order] = behind
        return int(total), found


class Links(NamedTuple):
    """Operations in an order in which they can run: their `places`, and places of those that they
    wait for, the i-th for `givers[ends[i] : ends[i + 1]]`: the one before, who gives tokens."""

    places: np.ndarray
    ends: np.ndarray
    givers: np.ndarray


class Given(NamedTuple):
    """Tokens by channel: places of those that gave them, from `bases` on; numbers given, and
    taken. Tokens that were there at the start have negative numbers."""

    places: np.ndarray
    bases: np.ndarray
    given: np.ndarray
    taken: np.ndarray


def written_out(program: Program) -> Program:
    """The same operations with every segment run once."""
    parts = program.segments
    rows = np.concatenate([np.tile(np.arange(part.first, part.last), part.repeat)
                           for part in parts])
    turns = np.concatenate([np.repeat(np.arange(part.repeat), part.last - part.first)
                            for part in parts])
    table = program.operations[rows]
    table[:, Column.ADDRESS] += turns * table[:, Column.ADVANCE]
    table[:, Column.ADVANCE] = 0
    return replace(program, operations=table, arguments=program.arguments[rows],
                   segments=(Segment(0, len(rows)),))


def _counts(masks: np.ndarray, channels: int) -> np.ndarray:
    """How many masks have each channel."""
    return np.array([int((masks >> channel & 1).sum()) for channel in range(channels)], np.int64)


@CACHED_RULE
def _runs(step, given):
    """Are all its tokens there?"""
    wait = step.wait
    while wait:
        low = wait & -wait
        wait ^= low
        channel = bit_index(low)
        if given.taken[channel] >= given.given[channel]:
            return False
    return True


@CACHED_RULE
def _link(program, links, given, cursors):
    """Run a program without times and fill `links`; how many operations ran.

    `cursors`: the place of each unit's first operation.
    """
    count, used, moved = 0, 0, True
    while moved:
        moved = False
        for unit in range(len(cursors)):
            while cursors[unit] < program.starts[0, unit + 1]:
                place = cursors[unit]
                step = program.rows[place]
                if not _runs(step, given):
                    break
                if place > program.starts[0, unit]:
                    links.givers[used] = place - 1
                    used += 1
                wait = step.wait
                while wait:
                    low = wait & -wait
                    wait ^= low
                    channel = bit_index(low)
                    number = given.taken[channel]
                    given.taken[channel] += 1
                    if number >= 0:
                        links.givers[used] = given.places[given.bases[channel] + number]
                        used += 1
                signal = step.signal
                while signal:
                    low = signal & -signal
                    signal ^= low
                    channel = bit_index(low)
                    given.places[given.bases[channel] + given.given[channel]] = place
                    given.given[channel] += 1
                links.places[count] = place
                count += 1
                links.ends[count] = used
                cursors[unit] += 1
                moved = True
    return count


@CACHED_RULE
def _go_back(links, cycles, behind):
    """Fill `behind`, zeros before, from the last operation on; the longest chain of all."""
    total = 0
    for index in range(len(links.places) - 1, -1, -1):
        place = links.places[index]
        chain = cycles[place] + behind[place]
        total = max(total, chain)
        for giver in range(links.ends[index], links.ends[index + 1]):
            before = links.givers[giver]
            behind[before] = max(behind[before], chain)
    return total
