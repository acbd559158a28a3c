"""The register map of the overlay's control port: one table for HLS, RTL and the driver.

It writes no registers; `hw.driver` does.

Start, done and interrupt bits are those of the vendor's block-level protocol, and arguments lie
8 bytes apart in the order of the top function, as its compiler lays out 32-bit arguments. The
offsets are to be compared with the header that the vendor's run writes (unchecked here).
"""

from __future__ import annotations

CONTROL = 0x00  # bit 0 start, bit 1 done, bit 2 idle, bit 3 ready
GLOBAL_INTERRUPT = 0x04
INTERRUPT_ENABLE = 0x08
INTERRUPT_STATUS = 0x0C  # write ones to clear
FIRST_ARGUMENT = 0x10
ARGUMENT_BYTES = 8
MAP_BYTES = 0x1000

#: Operations [first, first + count) of the table run `repeats` times, from repeat
#: `repeat_first` on. `initialize`: 1 at the first start after a reset, then 0.
SCALARS = ("first", "count", "repeats", "repeat_first", "initialize")


def register_map(memory_ports: tuple[str, ...]) -> dict[str, int]:
    """Byte offsets by name: control, the base address of each memory port, the scalars.

    `memory_ports`: `descriptors` first, then one for each master, in the program's order.
    """
    names = ("control", "global_interrupt", "interrupt_enable", "interrupt_status")
    found = dict(zip(names, (CONTROL, GLOBAL_INTERRUPT, INTERRUPT_ENABLE, INTERRUPT_STATUS),
                     strict=True))
    for index, name in enumerate((*(f"base_{port}" for port in memory_ports), *SCALARS)):
        found[name] = FIRST_ARGUMENT + ARGUMENT_BYTES * index
    return found
