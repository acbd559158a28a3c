"""The state of units and ports in the numba executor, and the walk through a transfer's bursts.

It holds no loop and no memory; see `cosim.executors.fast_loop` and `cosim.executors.fast_ports`.
Every table is an array of int64 records: compiled code reads and writes their fields by name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import PLAIN_RULE
from cosim.memory.bursts import FAR, burst_beats, burst_bytes, next_request
from cosim.memory.controller import Controller, record_type
from cosim.program.table import Column, UnitKind

COMPUTE, READ = int(UnitKind.COMPUTE), int(UnitKind.READ)
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
#: `column`: command of a stream's next burst; `leaped`: so many of the unit's were in leaps.
PROGRESS = record_type("segment", "turn", "place", "row", "since", "start", "plane", "run", "here",
                       "left", "new_run", "issued", "known", "accepted", "done", "beats",
                       "presented", "traced", "column", "leaped")
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
#: first and last DDR clock of the data of a read that was served (`last` is -1 before).
FLIGHT = record_type("arrival", "address", "moved", "beats", "atoms", "first", "last")
#: The burst of each direction that arrives first: whose it is (-1: none), when, its place in
#: `flight` and its DRAM bursts.
FRONT = record_type("member", "arrival", "place", "atoms")


class Lines(NamedTuple):
    """Who waits for the controller's windows: units, and behind them background sources.

    A member's bursts arrive in their order, so its oldest stands for it. `members` (2, n) and
    `sizes` (2,): numbers of those who read and of those who write, ascending; `oldest`: number of
    a member's oldest burst outside the windows; `arrival`: when it arrives, FAR if there is none.
    """

    members: np.ndarray
    sizes: np.ndarray
    oldest: np.ndarray
    arrival: np.ndarray
    front: np.ndarray  # FRONT, of reads and of writes


class Machine(NamedTuple):
    """Everything that moves: units with their progress, channels, the DDR controller."""

    operations: np.ndarray  # OPERATION
    units: np.ndarray  # UNIT
    progress: np.ndarray  # PROGRESS
    doing: np.ndarray
    due: np.ndarray  # the cycle of each unit's next event
    done: np.ndarray  # (units, a power of two): done cycles of the bursts in flight by number
    flight: np.ndarray  # (members times that): FLIGHT, see `place_of`
    lines: Lines
    known: np.ndarray  # KNOWN
    channels: np.ndarray  # CHANNEL
    dram: Controller


@PLAIN_RULE
def place_of(machine, member, number):
    """Place in `flight` of a member's burst."""
    ring = machine.done.shape[1]
    return member * ring + (number & (ring - 1))


@PLAIN_RULE
def reschedule(machine, unit):
    """Set the next event of a unit in a transfer, as far as done cycles are known."""
    if machine.doing[unit] == BLOCKED:
        return
    x, settings = machine.progress[unit], machine.units[unit]
    if x.left == 0:
        if x.known == x.issued:
            machine.doing[unit] = ENDING
            machine.due[unit] = x.done + settings.tail
            return
    else:
        leaver = x.issued - settings.outstanding  # must be done before the next request
        serial = x.new_run and not settings.overlap
        if x.known > leaver and (x.known == x.issued or not serial):
            done = machine.done
            freed = done[unit, leaver & (done.shape[1] - 1)] if leaver >= 0 else 0
            machine.doing[unit] = REQUESTING
            machine.due[unit] = next_request(x.accepted, x.done, freed, x.new_run,
                                             settings.overlap, settings.run_setup)
            return
    machine.doing[unit] = WAITING
    machine.due[unit] = FAR


@PLAIN_RULE
def next_burst(machine, unit):
    """(bytes, beats) of the unit's burst at `here`; `here`, `left` and the run move on."""
    x, settings = machine.progress[unit], machine.units[unit]
    operation = machine.operations[x.row]
    size = burst_bytes(x.here, x.left, settings.width, settings.max_beats)
    beats = settings.max_beats  # of a full one, without a division
    if size != beats * settings.width:
        beats = burst_beats(x.here, size, settings.width)
    x.here += size
    x.left -= size
    x.new_run = 0
    x.beats += beats
    if x.left == 0:
        x.run += 1
        if x.run == operation.rows:
            x.run = 0
            x.plane += 1
        if x.plane < operation.planes:
            x.left = operation.row_bytes
            x.new_run = 1
            x.here = (operation.address + x.turn * operation.advance
                      + x.plane * operation.plane_stride + x.run * operation.row_stride)
    return size, beats
