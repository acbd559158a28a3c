"""What the DRAM devices of a board take: reading, writing, opening rows, refresh, standby.

It counts nothing. The formulas are those of the makers' power notes: currents above the standby
that holds meanwhile, times the supply. Pads and termination are not in these currents; their
energy a byte is `ddr.pads_pj_per_byte` of `data/fitted_energy.toml`, measured at the supply of such
memories.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dram:
    """The devices behind the bus, and the currents of one of them at `rated_mts` in mA.

    `idd0` opens and closes one row after another, `idd2n` and `idd3n` wait with all rows closed
    and one open, `idd4r` and `idd4w` stream, `idd5b` refreshes. `vdd_v`: the supply on the board.
    """

    chips: int
    chip_bits: int
    rated_mts: int
    vdd_v: float
    idd0_ma: float
    idd2n_ma: float
    idd3n_ma: float
    idd4r_ma: float
    idd4w_ma: float
    idd5b_ma: float
    t_rfc_ns: float

    @property
    def read_pj_per_byte(self) -> float:
        """Reading one byte from open rows, in all devices together, without pads."""
        return self._stream(self.idd4r_ma)

    @property
    def write_pj_per_byte(self) -> float:
        """Writing one byte into open rows, in all devices together, without pads."""
        return self._stream(self.idd4w_ma)

    def _stream(self, current_ma: float) -> float:
        # mA * V = mW; over MB/s is nJ a byte.
        megabytes = self.rated_mts * self.chip_bits / 8
        return (current_ma - self.idd3n_ma) * self.vdd_v / megabytes * 1e3

    def activate_pj(self, t_ras_ns: float, t_rp_ns: float) -> float:
        """Opening and closing one row in all devices."""
        cycle = self.idd0_ma * (t_ras_ns + t_rp_ns)
        standby = self.idd3n_ma * t_ras_ns + self.idd2n_ma * t_rp_ns
        return self.chips * self.vdd_v * (cycle - standby)

    @property
    def refresh_pj(self) -> float:
        """One refresh command in all devices."""
        return self.chips * self.vdd_v * (self.idd5b_ma - self.idd3n_ma) * self.t_rfc_ns

    @property
    def standby_w(self) -> float:
        """Waiting with rows open, which is what a controller does that closes none by itself."""
        return self.chips * self.vdd_v * self.idd3n_ma * 1e-3
