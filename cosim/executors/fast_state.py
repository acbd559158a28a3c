"""The state of units and ports in the numba executor, and the walk through a transfer's bursts.

It holds no loop and no memory; see `cosim.executors.fast_loop` and `cosim.executors.fast_ports`.
Every table is an array of int64 records: compiled code reads and writes their fields by name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import PLAIN_RULE, at
from cosim.memory.bursts import FAR, burst_beats, burst_bytes, next_request
from cosim.memory.controller import Controller, record_type
from cosim.program.table import Column, UnitKind

COMPUTE, READ, WRITE = map(int, (UnitKind.COMPUTE, UnitKind.READ, UnitKind.WRITE))
#: A row of `Program.operations`, by the names of its columns; two are methods of numpy's records.
_OTHER_NAMES = {"fill": "filling", "flags": "marks"}
OPERATION = record_type(*(_OTHER_NAMES.get(name, name) for name in (
    column.name.lower() for column in Column)))
#: What the loop asks of a unit and its port. `channel`: of the port (port * 2, + 1 for writes).
#: `alone`: it has a flat channel to itself. `accept`: bursts that the port's direction holds.
#: `sole`: nobody else asks for what its requests need on a DDR3 memory. `pace`: DDR clocks in
#: which its port moves a full burst, of two to the `shift` bytes, if it can be a stream, else 0
#: (`cosim.executors.fast_streams`).
UNIT = record_type("kind", "port", "outstanding", "max_beats", "setup", "tail", "overlap",
                   "run_setup", "width", "lead", "trail", "channel", "alone", "accept", "request",
                   "response", "controller", "sole", "pace", "shift")
#: Where a unit is. `turn`: repeat of its segment; `place`: in the order of its operations; `row`:
#: of its operation; `since`: end of the one before. Of the transfer it runs: `plane`, `run`,
#: `here` and `left` (bytes of the present run), `issued` (bursts accepted), `known` (bursts whose
#: done cycle is known), `accepted` and `done` of the last such burst, `presented`: its request;
#: `doing`: see below; `due`: the cycle of its next event. `oldest`: number of its oldest burst
#: outside the controller's windows; `arrival`: when that arrives, FAR if there is none.
#: `column`: command of a stream's next burst; `leaped`: so many of the unit's were in leaps;
#: `needed`: of a writer on a DDR3 memory, the lowest limit with which no burst would have waited
#: for it so far (`cosim.executors.fast_ports`).
PROGRESS = record_type("segment", "turn", "place", "row", "since", "start", "plane", "run", "here",
                       "left", "new_run", "issued", "known", "accepted", "done", "beats",
                       "presented", "traced", "doing", "due", "oldest", "arrival", "column",
                       "leaped", "needed")
#: One direction of a port; `crossing`, in the record of the same number: one direction of a
#: controller port.
CHANNEL = record_type("accepted", "data_free", "held", "crossing", "answered")
#: What a transfer with a flat channel to itself takes; the key first, then the answer.
KNOWN = record_type("unit", "offset", "row_bytes", "rows", "row_stride", "planes", "plane_stride",
                    "done", "beats", "bursts")
#: How many of those are kept.
MEMO = 4096
# What a unit does now.
READY, ENDING, REQUESTING, WAITING, BLOCKED, FINISHED = range(6)


#: A burst in flight: when it arrives at the controller, its address, bytes, beats and DRAM bursts;
#: first and last DDR clock of the data of a read that was served (`last` is -1 before); its done
#: cycle, and of a write when it was requested.
FLIGHT = record_type("arrival", "address", "moved", "beats", "atoms", "first", "last", "done",
                     "asked")


class Machine(NamedTuple):
    """Everything that moves: units with their progress, channels, the DDR controller."""

    operations: np.ndarray  # OPERATION
    units: np.ndarray  # UNIT
    progress: np.ndarray  # PROGRESS of members: units, and behind them background sources
    flight: np.ndarray  # (members, a power of two): FLIGHT of bursts by their number
    scratch: np.ndarray  # as many cycles as a member's
    movers: np.ndarray  # numbers of the units that move data, ascending
    readers: np.ndarray  # numbers of the members who read, ascending
    writers: np.ndarray  # of those who write
    known: np.ndarray  # KNOWN
    channels: np.ndarray  # CHANNEL
    dram: Controller


class Walk(NamedTuple):
    """Fields of PROGRESS that say how far a transfer is."""

    here: int
    left: int
    new_run: int
    issued: int
    known: int
    accepted: int
    done: int


@PLAIN_RULE
def flight_of(machine, member, number):
    """The record of a member's burst."""
    ring = machine.flight.shape[1]
    return machine.flight[np.uint64(member), np.uint64(number & (ring - 1))]


@PLAIN_RULE
def taken_up(x):
    """Where a unit is in its transfer."""
    return Walk(x.here, x.left, x.new_run, x.issued, x.known, x.accepted, x.done)


@PLAIN_RULE
def put_down(x, walk):
    """Write it back."""
    x.here, x.left, x.new_run, x.issued = walk.here, walk.left, walk.new_run, walk.issued
    x.known, x.accepted, x.done = walk.known, walk.accepted, walk.done


@PLAIN_RULE
def next_event(machine, unit, walk):
    """(what a unit in a transfer does next, when), as far as done cycles are known."""
    settings = at(machine.units, unit)
    if walk.left == 0:
        if walk.known == walk.issued:
            return ENDING, walk.done + settings.tail
        return WAITING, FAR
    leaver = walk.issued - settings.outstanding  # must be done before the next request
    if walk.known <= leaver or (walk.new_run and not settings.overlap
                                and walk.known != walk.issued):
        return WAITING, FAR
    freed = walk.done
    if leaver != walk.known - 1:
        freed = flight_of(machine, unit, leaver).done if leaver >= 0 else 0
    return REQUESTING, next_request(walk.accepted, walk.done, freed, walk.new_run,
                                    settings.overlap, settings.run_setup)


@PLAIN_RULE
def next_burst(machine, unit, walk):
    """(bytes, beats, where the unit is then) of a unit's next burst."""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    size = burst_bytes(walk.here, walk.left, settings.width, settings.max_beats)
    beats = settings.max_beats  # of a full one, without a division
    if size != beats * settings.width:
        beats = burst_beats(walk.here, size, settings.width)
    x.beats += beats
    here, left, new_run = walk.here + size, walk.left - size, 0
    if left == 0:
        operation = at(machine.operations, x.row)
        x.run += 1
        if x.run == operation.rows:
            x.run = 0
            x.plane += 1
        if x.plane < operation.planes:
            left, new_run = operation.row_bytes, 1
            here = (operation.address + x.turn * operation.advance
                    + x.plane * operation.plane_stride + x.run * operation.row_stride)
    return size, beats, Walk(here, left, new_run, walk.issued, walk.known, walk.accepted,
                             walk.done)
