"""From the fabric's cycles to the DDR's clocks and back, and how data pass the ports between them.

It knows no queue and no bank; see `cosim.memory.ddr3`. `t`: an array of one TIMING record.
"""

from __future__ import annotations

import numpy as np

from cosim.compiled import CACHED_RULE

#: Clocks are below 3.2 GHz (`arch_models.boards.rules`), so products of smaller times fit 63 bits.
SMALL = 1 << 31


@CACHED_RULE
def _quotient(number, divisor):
    """number // divisor of what is not below 0: a division with signs takes twice as long."""
    return np.int64(np.uint64(number) // np.uint64(divisor))


@CACHED_RULE
def _scaled(time, numerator, denominator, up):
    """time * numerator / denominator, rounded down or up, where the product would run over too."""
    if time < SMALL:
        return _quotient(time * numerator + up * (denominator - 1), denominator)
    whole = time // denominator
    rest = time - whole * denominator
    return whole * numerator + (rest * numerator + up * (denominator - 1)) // denominator


@CACHED_RULE
def to_ddr(cycle: int, t: np.ndarray) -> int:
    """First DDR clock at or after the start of a fabric cycle; `t`: one TIMING record."""
    return _scaled(cycle, t[0].clock, t[0].cycle, 1)


@CACHED_RULE
def to_fabric(clock: int, t: np.ndarray) -> int:
    """First fabric cycle that starts at or after a DDR clock."""
    return _scaled(clock, t[0].cycle, t[0].clock, 1)


@CACHED_RULE
def decided_in(clock: int, t: np.ndarray) -> int:
    """The fabric cycle during which a DDR clock begins: the controller acts at its end."""
    return _scaled(clock, t[0].cycle, t[0].clock, 0)


@CACHED_RULE
def controller_port(t: np.ndarray, clock: int, free: int, size: int) -> tuple[int, int]:
    """(start, end) of the passage of `size` bytes through one direction of a controller port."""
    start = max(clock, free)
    if t[0].word == 0:
        return start, start
    clocks = ((size + 7) >> 3) * t[0].word
    if t[0].word_per == 2:  # a shift is faster than a division
        return start, start + ((clocks + 1) >> 1)
    return start, start + _quotient(clocks + t[0].word_per - 1, t[0].word_per)


@CACHED_RULE
def passage(t: np.ndarray, first: int, last: int, free: int, size: int) -> tuple[int, int]:
    """(start, end) of the passage of read data, of a first and a last column command."""
    ready = t[0].t_cl + t[0].t_ccd + t[0].pipeline
    begin, end = controller_port(t, first + ready, free, size)
    return begin, max(end, last + ready)


@CACHED_RULE
def ddr_write_data(accepted: int, lead: int, data_free: int, beats: int) -> int:
    """End of the beats of a write on its port: the next write's beats follow."""
    return max(accepted + lead, data_free) + beats


@CACHED_RULE
def ddr_read_data(t: np.ndarray, first: int, last: int, response: int, data_free: int,
                  beats: int) -> int:
    """Done cycle of a read whose data leave the controller port from `first` to `last`.

    The beats follow the port's earlier beats; the last one not before the last data arrived.
    """
    start, end = data_free - response, data_free + beats - response
    if (start >= 0 and last < SMALL and end < SMALL and first * t[0].cycle <= start * t[0].clock
            and last * t[0].cycle <= end * t[0].clock):
        return data_free + beats  # the port delays, not the DRAM: the same without a division
    begin = max(to_fabric(first, t) + response, data_free)
    return max(begin + beats, to_fabric(last, t) + response)
