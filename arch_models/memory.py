"""Memory parameters: ports, the flat memory and the DDR3 controller as frozen integers.

It does not simulate; the rules that use these numbers are in `cosim.memory_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

AXI3_MAX_BEATS = 16  # longest AXI3 burst
AXI_BOUNDARY_BYTES = 4096  # no burst crosses a multiple of this


class MemoryParameterError(ValueError):
    """A memory parameter breaks a rule. The message names the field, the value and the rule."""


@dataclass(frozen=True, slots=True)
class Port:
    """One AXI slave port; a read and a write channel that work independently.

    Times are fabric cycles. `flat` uses the two latencies as the whole path:
    a read's first beat moves at least `read_latency_cycles` after its acceptance; a write's
    first beat moves at least `write_lead_cycles` after its acceptance and its response comes
    `write_latency_cycles` after its last beat.
    """

    name: str
    width_bytes: int = 8
    read_latency_cycles: int = 20
    write_latency_cycles: int = 8
    write_lead_cycles: int = 1

    def __post_init__(self) -> None:
        width = self.width_bytes
        if width < 1 or width & (width - 1) or width > AXI_BOUNDARY_BYTES:
            raise MemoryParameterError(f"port {self.name!r}: width_bytes is {width}, must be a "
                                       f"power of two from 1 to {AXI_BOUNDARY_BYTES}")
        for name, least in (("read_latency_cycles", 1), ("write_latency_cycles", 0),
                            ("write_lead_cycles", 0)):
            if getattr(self, name) < least:
                raise MemoryParameterError(f"port {self.name!r}: {name} is "
                                           f"{getattr(self, name)}, must be at least {least}")


@dataclass(frozen=True, slots=True)
class Memory:
    """What an executor knows of the memory: a model (`flat` or `ddr3`) and its ports."""

    model: str
    ports: tuple[Port, ...]

    def __post_init__(self) -> None:
        if self.model not in ("flat", "ddr3"):
            raise MemoryParameterError(f"model is {self.model!r}, must be 'flat' or 'ddr3'")


def flat_memory(ports: int = 4, width_bytes: int = 8, read_latency_cycles: int = 20,
                write_latency_cycles: int = 8) -> Memory:
    """A flat memory with equal ports, for teaching and tests."""
    return Memory("flat", tuple(
        Port(f"port{index}", width_bytes, read_latency_cycles, write_latency_cycles)
        for index in range(ports)))
