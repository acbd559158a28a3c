"""The state of units and ports in the numba executor, and the walk through a transfer's bursts.

It holds no loop and no memory; see `cosim.executors.fast_loop` and `cosim.executors.fast_ddr3`.
"""

from __future__ import annotations

from cosim.memory.bursts import CACHED, FAR, burst_beats, burst_bytes, next_request
from cosim.program.table import Column, UnitKind

# Columns of the operation table as plain integers: numba freezes them into the kernel.
LAYER, FLAGS, WAIT, SIGNAL = (int(Column[n]) for n in ("LAYER", "FLAGS", "WAIT", "SIGNAL"))
ADDRESS, ROW_BYTES, ROWS, ROW_STRIDE, PLANES, PLANE_STRIDE, ADVANCE = (int(Column[n]) for n in (
    "ADDRESS", "ROW_BYTES", "ROWS", "ROW_STRIDE", "PLANES", "PLANE_STRIDE", "ADVANCE"))
FILL, INTERVAL, TRIPS, DRAIN = (int(Column[n]) for n in ("FILL", "INTERVAL", "TRIPS", "DRAIN"))
COMPUTE, READ = int(UnitKind.COMPUTE), int(UnitKind.READ)

# Columns of the unit table.
(U_KIND, U_PORT, U_OUTSTANDING, U_MAX_BEATS, U_SETUP, U_TAIL, U_OVERLAP, U_RUN_SETUP, U_WIDTH,
 U_LEAD, U_TRAIL, U_CHANNEL, U_ALONE, U_ACCEPT, U_REQUEST, U_RESPONSE, U_CONTROLLER,
 U_COLUMNS) = range(18)

# Columns of the state of a unit. X_LEFT is what remains of the present run, X_ISSUED counts
# accepted bursts, X_KNOWN those whose done cycle is known.
(X_SEGMENT, X_REPEAT, X_PLACE, X_ROW, X_SINCE, X_START, X_PLANE, X_RUN, X_HERE, X_LEFT, X_NEW_RUN,
 X_ISSUED, X_KNOWN, X_ACCEPTED, X_DONE, X_BEATS, X_PRESENTED, X_TRACE,
 X_COLUMNS) = range(19)

# Rows of the rings of a unit: done cycles, and what the controller said of a read that waits for
# its turn (beats, first and last DDR clock of its data).
G_DONE, G_BEATS, G_FIRST, G_LAST, G_ROWS = range(5)

# Columns of a data channel (port * 2, + 1 for writes) and, in the row of the same number, of a
# direction of a controller port (P_CROSSING).
P_ACCEPT, P_DATA, P_HELD, P_CROSSING, P_RESPONSE, P_COLUMNS = range(6)

# What a unit does now, and how many results of alone transfers are kept.
READY, ENDING, REQUESTING, WAITING, BLOCKED, FINISHED = range(6)
MEMO = 4096
(M_UNIT, M_BYTES, M_ROWS, M_ROW_STRIDE, M_PLANES, M_PLANE_STRIDE, M_OFFSET, M_DONE, M_BEATS,
 M_BURSTS, M_COLUMNS) = range(11)


@CACHED
def reschedule(unit, state, doing, due, settings, ring):
    """Set the next event of a unit in a transfer, as far as done cycles are known."""
    if doing[unit] == BLOCKED:
        return
    x = state[unit]
    issued, known = x[X_ISSUED], x[X_KNOWN]
    if x[X_LEFT] == 0:
        if known == issued:
            doing[unit] = ENDING
            due[unit] = x[X_DONE] + settings[U_TAIL]
            return
    else:
        leaver = issued - settings[U_OUTSTANDING]  # must be done before the next request
        serial = x[X_NEW_RUN] and not settings[U_OVERLAP]
        if known > leaver and (known == issued or not serial):
            freed = ring[G_DONE, leaver & (ring.shape[1] - 1)] if leaver >= 0 else 0
            doing[unit] = REQUESTING
            due[unit] = next_request(x[X_ACCEPTED], x[X_DONE], freed, x[X_NEW_RUN],
                                     settings[U_OVERLAP], settings[U_RUN_SETUP])
            return
    doing[unit] = WAITING
    due[unit] = FAR


@CACHED
def next_burst(x, settings, operation):
    """(bytes, beats) of the burst at X_HERE; X_HERE, X_LEFT and the run counters move on."""
    size = burst_bytes(x[X_HERE], x[X_LEFT], settings[U_WIDTH], settings[U_MAX_BEATS])
    beats = burst_beats(x[X_HERE], size, settings[U_WIDTH])
    x[X_HERE] += size
    x[X_LEFT] -= size
    x[X_NEW_RUN] = 0
    x[X_BEATS] += beats
    if x[X_LEFT] == 0:
        x[X_RUN] += 1
        if x[X_RUN] == operation[ROWS]:
            x[X_RUN] = 0
            x[X_PLANE] += 1
        if x[X_PLANE] < operation[PLANES]:
            x[X_LEFT] = operation[ROW_BYTES]
            x[X_NEW_RUN] = 1
            x[X_HERE] = (operation[ADDRESS] + x[X_REPEAT] * operation[ADVANCE]
                         + x[X_PLANE] * operation[PLANE_STRIDE]
                         + x[X_RUN] * operation[ROW_STRIDE])
    return size, beats
