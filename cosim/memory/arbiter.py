"""The arbiter: the one rule that says who is served first when several ask.

It does not know what is asked for; memories and interconnects call it with integers.

The rule: the request of the earlier cycle goes first; of one cycle, the lower unit number.
A grant is decided after every other event of its cycle, so the order in which an executor
visits units inside a cycle cannot change an outcome.
"""

from __future__ import annotations


def precedes(cycle: int, unit: int, other_cycle: int, other_unit: int) -> bool:
    """Is the request (cycle, unit) served before (other_cycle, other_unit)?"""
    return cycle < other_cycle or (cycle == other_cycle and unit < other_unit)
