"""The register map of the overlay's control port: one table for HLS, RTL and the driver.

It writes no registers; `hw.board.driver` does.

Start, done and interrupt bits are those of the vendor's block-level protocol, and arguments lie
8 bytes apart in the order of the top function, as its compiler lays out 32-bit arguments. The
offsets are to be compared with the header that the vendor's run writes (unchecked here).
"""

from __future__ import annotations

from typing import TypedDict

from cosim.program.table import Program
from hw.interface.descriptors import local_channels

CONTROL = 0x00  # bit 0 start, bit 1 done, bit 2 idle, bit 3 ready
GLOBAL_INTERRUPT = 0x04
INTERRUPT_ENABLE = 0x08
INTERRUPT_STATUS = 0x0C  # write ones to clear
FIRST_ARGUMENT = 0x10
ARGUMENT_BYTES = 8
MAP_BYTES = 0x2000

#: Where the block design puts the control port and the interrupt controller, in the processor's
#: addresses; each has a window of `CONTROL_BYTES`.
CONTROL_ADDRESS, INTERRUPTS_ADDRESS, CONTROL_BYTES = 0x43C00000, 0x41800000, 0x10000

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


#: Cycle counters of units, 64 bits each, cleared by a start: busy, idle, memory stall, then one
#: for each channel that ends at the unit. The RTL has them; HLS C++ cannot count cycles.
FIRST_COUNTER = 0x400
UNIT_STRIDE_BYTES = 0x100
COUNTER_BITS = 40


class Register(TypedDict):
    """A counter's place: byte offset and bits."""

    offset: int
    bits: int


class UnitRegisters(TypedDict):
    """Counters of one unit by name: busy, idle, memory and its channels."""

    unit: str
    registers: dict[str, Register]


def counter_registers(program: Program) -> list[UnitRegisters]:
    """The manifest's `counters`: for each unit a map from busy, idle, memory and channel names
    to byte offset and bits. The counts mean what they mean in `SimResult`."""
    found: list[UnitRegisters] = []
    for unit, item in enumerate(program.units):
        names = ["busy", "idle", "memory"]
        names += [program.channels[index].name for index in local_channels(program, unit)[0]]
        first = FIRST_COUNTER + unit * UNIT_STRIDE_BYTES
        found.append({"unit": item.name, "registers": {
            name: {"offset": first + 8 * index, "bits": COUNTER_BITS}
            for index, name in enumerate(names)}})
    return found
