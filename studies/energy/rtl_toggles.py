"""Counts the bits that toggle in our own array's RTL, for the same operands as `toggles` walks.

It predicts nothing. The array (products, cascades, running sums) runs in Amaranth's simulator,
signal by signal; memories, addresses and requantizers are not in it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.sim import Simulator

from hw.rtl.engines.array import SUM_BITS, array_cycles, lag, running_sums, trip_sums, weight_cycles
from hw.rtl.pipeline import signed_bytes
from studies.energy.toggles import LANES, trips_of

CYCLE_S = 1e-8


class Array(Elaboratable):
    """One column of `tm` x `tn` multipliers, not packed, with its running sums."""

    def __init__(self, tm: int, tn: int) -> None:
        self.tm, self.tn = tm, tn
        self.pixels, self.weights = Signal(8 * tn), Signal(8 * tm * tn)
        self.opens, self.valid = Signal(), Signal()
        self.sums = [Signal(signed(SUM_BITS), name=f"sum_{channel}") for channel in range(tm)]

    def elaborate(self, platform: object) -> Module:
        """The array as the convolution engine builds it, with seeds of zero."""
        m = Module()
        pixels = signed_bytes(self.pixels, self.tn)
        trips, = trip_sums(m, self.weights, [pixels], self.tm, packed=False)
        seeds = [Signal(signed(SUM_BITS), name=f"seed_{index}") for index in range(self.tm)]
        found = running_sums(m, trips, seeds, self.opens, self.valid, "running")
        m.d.comb += [mine.eq(value) for mine, value in zip(self.sums, found, strict=True)]
        return m


def run_array(pixels: np.ndarray, weights: np.ndarray, position_trips: int
              ) -> tuple[np.ndarray, int]:
    """(running sums at the end of each position, bits that changed in all registers and wires).

    `pixels`: int (trips, tn), `weights`: int (trips, tn, tm); a position takes `position_trips`.
    """
    trips, tn = pixels.shape
    tm = weights.shape[2]
    array = Array(tm, tn)
    ahead = -weight_cycles(tn, False)  # cycles by which channel 0's weights come before the pixels
    late = ahead + array_cycles(tn)
    total = trips + late + 2
    ends: list[list[int]] = []

    async def drive(context) -> None:  # type: ignore[no-untyped-def]
        for cycle in range(total):
            trip = cycle - ahead
            context.set(array.pixels, _packed(pixels[trip] if 0 <= trip < trips
                                              else np.zeros(tn, int)))
            rows = [cycle - lag(lane, False) for lane in range(tn)]
            context.set(array.weights, _packed(np.concatenate([
                weights[row, lane] if 0 <= row < trips else np.zeros(tm, int)
                for lane, row in enumerate(rows)])))
            trip = cycle - late
            context.set(array.valid, int(0 <= trip < trips))
            context.set(array.opens, int(trip % position_trips == 0))
            await context.tick()
            if 0 <= trip < trips and trip % position_trips == position_trips - 1:
                ends.append([context.get(value) for value in array.sums])

    simulator = Simulator(array)
    simulator.add_clock(CYCLE_S)
    simulator.add_testbench(drive)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.vcd"
        with simulator.write_vcd(str(path)):
            simulator.run()
        return np.array(ends), flipped_bits(path)


def _packed(values: np.ndarray) -> int:
    """Bytes as one number, the first lowest."""
    return int.from_bytes(np.asarray(values).astype(np.int8).tobytes(), "little")


def flipped_bits(path: Path) -> int:
    """Bits that changed over a waveform file, each variable once, the clock left out."""
    names: dict[str, str] = {}
    state: dict[str, int] = {}
    total = 0
    for line in path.read_text().splitlines():
        if line.startswith("$var"):
            names[line.split()[3]] = line.split()[4]
        elif line[:1] in "01b" and line:
            text, key = line[1:].split() if line[0] == "b" else (line[0], line[1:])
            if names.get(key) in ("clk", "rst"):
                continue
            value = int(text.replace("x", "0").replace("z", "0"), 2)
            total += (value ^ state.get(key, 0)).bit_count()
            state[key] = value
    return total


def factor(pixels: np.ndarray, weights: np.ndarray, stride: int, padding: int, seed: int) -> float:
    """Bits that toggle in the RTL for a stretch of one convolution's output, over those of noise.

    `pixels`: int8 (in, rows, columns), `weights`: int8 (out, in, kernel rows, kernel columns).
    """
    draw = np.random.default_rng(seed)
    counts = []
    for noise in (False, True):
        if noise:
            pixels = draw.integers(-128, 128, pixels.shape, np.int8)
            weights = draw.integers(-128, 128, weights.shape, np.int8)
        trips, mine, position = stretch(pixels, weights, stride, padding)
        ends, bits = run_array(trips, mine, position)
        wanted = np.einsum("tn,tnm->tm", trips, mine).reshape(-1, position, mine.shape[2]).sum(1)
        if not np.array_equal(ends, wanted):
            raise RuntimeError("the array's sums are not those of the operands")
        counts.append(bits)
    return counts[0] / counts[1]


def stretch(pixels: np.ndarray, weights: np.ndarray, stride: int, padding: int,
            positions: int = 4) -> tuple[np.ndarray, np.ndarray, int]:
    """(trips, lanes) of pixels, (trips, lanes, channels) of weights, and trips a position: the
    middle of the middle row, `LANES` output channels."""
    taps_r, taps_c = weights.shape[2:]
    padded = np.pad(pixels, ((0, -pixels.shape[0] % LANES), (padding, padding),
                             (padding, padding)))
    kept = np.pad(weights[:LANES], ((0, 0), (0, -pixels.shape[0] % LANES), (0, 0), (0, 0)))
    row = (padded.shape[1] - taps_r) // stride // 2 * stride
    first = (padded.shape[2] - taps_c) // stride // 2
    trips = [trips_of(padded[:, row : row + taps_r,
                             column * stride : column * stride + taps_c])
             for column in range(first, first + positions)]
    lanes = np.stack([trips_of(channel) for channel in kept], axis=2)
    return np.concatenate(trips), np.tile(lanes, (positions, 1, 1)), len(lanes)
