"""A test model that runs any timed-only program of limited size: routing and units by input.

It computes no data and is never emitted; it lets one compiled model run thousands of programs.

Masters take their numbers from inputs, and inputs route each channel from a bit of one unit's
signal mask to a bit of one unit's wait mask.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Signal

from hw.interface.descriptors import MAX_LOCAL_CHANNELS
from hw.rtl.ports import CONFIG_BITS, Ports, connect_units
from hw.rtl.timed import TimedUnit
from hw.rtl.tokens import TokenBank
from hw.rtl.transfers.bursts import MasterConfig
from hw.rtl.transfers.masters import ReadMaster, WriteMaster

CONFIG_NAMES = {"setup": 8, "tail": 8, "outstanding": 8, "burst_bytes": 16, "width_log2": 3,
                "overlap": 1, "run_setup": 8}


class TimedTop(Elaboratable):
    """`counts` timed units, read masters and write masters, in this order, and `channels`."""

    def __init__(self, counts: tuple[int, int, int] = (4, 4, 4), channels: int = 14) -> None:
        local = MAX_LOCAL_CHANNELS
        self.channels = channels
        self.config: dict[str, Signal] = {}
        self.units: list[TimedUnit | ReadMaster | WriteMaster] = []
        for index in range(sum(counts)):
            if index < counts[0]:
                self.units.append(TimedUnit(local, local))
                continue
            numbers = MasterConfig(*(self._input(f"u{index}_{name}")[:bits]
                                     for name, bits in CONFIG_NAMES.items()))
            if index < counts[0] + counts[1]:
                self.units.append(ReadMaster(numbers, local, local))
            else:
                self.units.append(WriteMaster(numbers, local, local, streams=False))
        self.routes = [(self._input(f"c{number}_source")[:8], self._input(f"c{number}_target")[:8],
                        self._input(f"c{number}_initial")[:16]) for number in range(channels)]
        self.ports = Ports(self.units, self.config)

    def _input(self, name: str) -> Signal:
        self.config[name] = Signal(CONFIG_BITS, name=name)
        return self.config[name]

    def elaborate(self, platform: object) -> Module:
        """Connect units, channels and routes."""
        m = Module()
        m.submodules.bank = bank = TokenBank(self.channels)
        connect_units(m, self.ports)
        takes, gives = Signal(16 * len(self.units)), Signal(16 * len(self.units))
        m.d.comb += [
            takes.eq(Cat(unit.shell.take for unit in self.units)),
            gives.eq(Cat(unit.shell.give for unit in self.units)),
            bank.go.eq(self.ports.go),
            self.ports.overflow.eq(bank.overflow),
        ]
        available = Signal(16 * len(self.units))
        for number, (source, target, initial) in enumerate(self.routes):
            m.d.comb += [
                bank.initial[number].eq(initial),
                bank.give[number].eq(gives.bit_select(source, 1)),
                bank.take[number].eq(takes.bit_select(target, 1)),
            ]
            with m.If(bank.available[number]):
                m.d.comb += Array(available)[target].eq(1)
        for index, unit in enumerate(self.units):
            m.d.comb += unit.shell.available.eq(available[16 * index : 16 * index + 16])
        return m
