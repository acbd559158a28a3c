"""The on-chip memories of an overlay as arrays, and how often operations that stream reach them.

It executes nothing; an engine's `EngineSlice.compute` does. An access takes the whole width of a
memory, a beat (8 channels of a position) is one lane of it; it knows no joules and no times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from arch_models.overlay import Overlay
from cosim.program.table import BEAT_MEMORIES, Buffer, Opcode, beats_of

BEAT = 8


class InterpretError(RuntimeError):
    """The program stops before its end, or an operation leaves its buffer."""


class Buffers:
    """int8 words of every memory, all banks behind one another; operations change them in place.

    `beats`: those of `BEAT_MEMORIES`, (beats, 8). `accumulator`: int64 (words, tm). `sums`,
    `entries`: what the norm keeps of each channel.
    """

    def __init__(self, overlay: Overlay) -> None:
        self.overlay, self.tm, self.tn = overlay, overlay.tm, overlay.tn
        # Stale contents must not matter, so buffers start with garbage.
        garbage = np.random.default_rng(7)

        def buffer(*shape: int) -> np.ndarray:
            return garbage.integers(-128, 128, shape, np.int8)

        self.input = buffer(overlay.input_words * overlay.input_banks, self.tn)
        self.output = buffer(overlay.output_words * overlay.output_banks, self.tm)
        self.weight = buffer(overlay.weight_words * overlay.weight_banks, self.tm * self.tn)
        self.beats = {kind: buffer(beats_of(kind, overlay), BEAT) for kind in BEAT_MEMORIES}
        self.sums = np.zeros((2, overlay.vector_entries), np.int64)
        self.entries = np.zeros((3, overlay.vector_entries), np.int64)
        self.accumulator = np.zeros((overlay.accumulator_words, self.tm), np.int64)

    def read(self, base: int, positions: int, planes: int) -> np.ndarray:
        """int64 (planes, positions, 8) of a tile in INPUT."""
        lanes = self.tn // BEAT
        found = np.empty((planes, positions, BEAT), np.int64)
        for plane in range(planes):
            lane = plane % lanes * BEAT
            found[plane] = self.input[span_of(self.input, base + plane // lanes * positions,
                                             positions), lane : lane + BEAT]
        return found

    def write(self, base: int, value: np.ndarray) -> None:
        """Put (planes, positions, 8) int8 values into OUTPUT."""
        lanes = self.tm // BEAT
        planes, positions = value.shape[:2]
        for plane in range(planes):
            lane = plane % lanes * BEAT
            self.output[span_of(self.output, base + plane // lanes * positions, positions),
                        lane : lane + BEAT] = value[plane].astype(np.int8)

    def constants(self, buffer: Buffer, base: int, count: int) -> np.ndarray:
        """int8 (count, 8): beats of one of `BEAT_MEMORIES`."""
        return self.beats[buffer][span_of(self.beats[buffer], base, count)]


def span_of(buffer: np.ndarray, base: int, count: int) -> slice:
    """Words of a buffer; `InterpretError` for words that it does not have."""
    if base < 0 or base + count > len(buffer):
        raise InterpretError(f"words {base} to {base + count} of a buffer of {len(buffer)}")
    return slice(base, base + count)


def entries_of(beats: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset, multiplier and shift of 8-byte entries, int64."""
    data = np.ascontiguousarray(beats)
    return (data.view("<i4")[:, 0].astype(np.int64), data.view("<i2")[:, 2].astype(np.int64),
            data.view(np.uint8)[:, 6].astype(np.int64))


#: Accesses by memory, an array of one value an operation each.
Accesses = dict[str, np.ndarray]


class Beats(NamedTuple):
    """The beats of an operation: the product of these arguments, in which the last may count
    channels; `reads` of INPUT and `writes` of OUTPUT for each; `constants`: a memory that is read
    with every beat."""

    of: tuple[str, ...]
    reads: int = 1
    writes: int = 1
    constants: str = ""


PLANES, CHANNELS = ("positions", "planes"), ("positions", "channels")
IMAGE = ("in_rows", "in_columns", "planes")
#: A bilinear sample reads four corners.
STREAMED: Mapping[Opcode, Beats] = {
    Opcode.ADD: Beats(PLANES, reads=2), Opcode.MULTIPLY: Beats(PLANES, reads=2),
    Opcode.AFFINE: Beats(PLANES, constants="vector parameters"),
    Opcode.FLOW_SUM: Beats(CHANNELS, constants="vector parameters"),
    Opcode.LOOKUP: Beats(PLANES, constants="table"),
    Opcode.SOFTMAX: Beats(CHANNELS, constants="table"),
    Opcode.AVERAGE_POOL: Beats(IMAGE), Opcode.MAX_POOL: Beats(IMAGE),
    Opcode.UPSAMPLE: Beats(IMAGE, writes=4), Opcode.GRID_SAMPLE: Beats(PLANES, reads=4),
    Opcode.GROUP_SUMS: Beats(PLANES, writes=0),
    Opcode.GROUP_NORM: Beats(PLANES, constants="norm parameters"),
}


def streamed(opcode: Opcode, values: Mapping[str, np.ndarray], trips: np.ndarray,
             overlay: Overlay) -> Accesses:
    """Accesses of operations with these arguments (int64), whose trips do not matter."""
    rule = STREAMED[opcode]
    beats = np.ones(len(trips), np.int64)
    for name in rule.of:
        beats = beats * values[name]
    if "channels" in rule.of:
        beats = -(-beats // BEAT)
    found = {"input": rule.reads * beats / (overlay.tn // BEAT * overlay.columns),
             "output": rule.writes * beats / (overlay.tm // BEAT)}
    return {**found, rule.constants: beats} if rule.constants else found
