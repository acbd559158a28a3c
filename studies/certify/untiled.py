"""What layers take at the least whatever their tiles.

It times no design; `floors` and `layers` say what each layer asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from arch_models.overlay import Overlay, Rate
from arch_models.units import NS_PER_S, ROUNDING
from cosim.analysis.hosts import HostStep
from cosim.analysis.least import Least
from cosim.engines.base import Mapped
from cosim.mapping.choose import Chooser
from cosim.mapping.tiles import LayerMapping, Mapping
from studies.certify.boxes import Box, quickest
from studies.certify.parts import PORTS, ROLES, Parts
from studies.certify.sizes import held_bytes
from studies.certify.times.turns import Brought, Turn, Turns, ordered
from studies.search.space import Choice
from studies.search.space_overlays import width_axis


class Untiled(NamedTuple):
    """Whatever the tile: the layers of a mapping, cycles of each, of all of them, and as weights
    come one behind the other."""

    whole: Whole
    least: tuple[int, ...]
    cycles: int
    turns: Turns


class Rates(NamedTuple):
    """Bytes a cycle that the masters of input, output and weights move at the most."""

    read: float
    write: float
    weights: float


class Each(NamedTuple):
    """Of each layer in fabric: how often a frame has it; its cycles, without the `overhead` of an
    operation where a cut of the input may add to that; bytes that it loads and stores;
    `first_bytes`: see there; bytes of weights that the array waits for."""

    repeats: np.ndarray
    cycles: np.ndarray
    overhead: np.ndarray
    load_bytes: np.ndarray
    store_bytes: np.ndarray
    first_bytes: np.ndarray
    weight_bytes: np.ndarray


class Whole(NamedTuple):
    """A mapping, each convolution as one tile: what is so whatever the masters move in a cycle.

    `chooser`: with the layouts and shapes that it has found. `banks`: those that WEIGHT may have.
    `items`: the layers in fabric. `brought`: for each of them, in bytes. `serial`: layers lie one
    behind the other. `work`: what all of them do. `steps`: the processor's. `movable`: layers that
    may move there where buffers are smaller.
    """

    chooser: Chooser
    mapping: Mapping
    banks: frozenset[int]
    items: tuple[LayerMapping, ...]
    each: Each
    brought: tuple[Brought, ...]
    serial: bool
    work: Least
    steps: tuple[HostStep, ...]
    movable: tuple[str, ...]

    def at(self, rates: Rates, bram36: float) -> Untiled:
        """With such masters, and so much block RAM for WEIGHT."""
        each, overlay = self.each, self.chooser.overlay
        held = {banks: held_bytes(overlay, bram36, (overlay.tm, overlay.tn),
                                  overlay.weight_words * banks) for banks in self.banks}
        paths = with_tiles(each.cycles, each.overhead, each.first_bytes, rates.read)
        least = np.maximum.reduce([
            paths, each.load_bytes / rates.read, each.store_bytes / rates.write,
            np.maximum(0, each.weight_bytes - max(held.values())) / rates.weights
        ]).astype(np.int64).tolist()
        brought = [item.at(rates.weights) for item in self.brought]
        turns = Turns.together(sum(
            times * item.cycles for times, item in zip(each.repeats.tolist(), brought, strict=True)
        )) if not self.serial else ordered(
            [(times, Turn(cycles, item.cycles, item.first, path), item)
             for times, cycles, item, path in zip(
                 each.repeats.astype(int).tolist(), least, brought, paths.tolist(), strict=True)],
            {banks: most / banks / rates.weights for banks, most in held.items()}, self.steps)
        return Untiled(self, tuple(least), int(each.repeats @ np.array(least, np.int64)), turns)


class Ahead(NamedTuple):
    """What may be loaded of a layer's weights before it begins: so many words of a bank of WEIGHT
    at the most, so many banks, in so many RAMB36; `halved`: some designs keep two narrow weights a
    byte."""

    words: int
    banks: tuple[int, ...]
    halved: bool
    bram36: float

    @property
    def most(self) -> int:
        """Words of all banks."""
        return self.words * max(self.banks)


class Floor(NamedTuple):
    """Cycles of the fabric, nanoseconds of the processor, and what is one or the other: of each
    of some layers both. All lie one behind the other. `turns`: all of them, as weights come one
    behind the other; `names`: of those that may be one or the other."""

    cycles: int
    host_ns: float
    either: np.ndarray  # float64 (2, layers): cycles, nanoseconds
    turns: Turns
    names: tuple[str, ...] = ()

    def ms(self, clock_hz: Any, away: str = "", more_cycles: float = 0.0) -> Any:
        """At a clock, or at each of some. `away`: a layer that the processor runs, so that the sum
        of layers has so many cycles more."""
        clocks_hz = np.asarray(clock_hz, float)
        either_ns = np.minimum(self.either[0] / clocks_hz[..., None] * NS_PER_S,
                               self.either[1]).sum(-1)
        turns = self.turns
        if away and away in self.names:
            turns = turns.hosted(self.names.index(away))
        return np.maximum((self.cycles + more_cycles) / clocks_hz * 1e3
                          + (self.host_ns + either_ns) / 1e6,
                          turns.least(clocks_hz) / clocks_hz * 1e3)

    def at(self, clock_hz: int, away: str = "", more_cycles: float = 0.0) -> int:
        """Whole cycles of a clock."""
        return int(self.ms(clock_hz, away, more_cycles) * clock_hz / 1e3 * (1 - ROUNDING))


def with_tiles(compute_cycles: Any, overhead: Any, first_bytes: Any, rate: float) -> Any:
    """Whole cycles of a convolution, or of each of some, at the least, whatever its tiles.
    `compute_cycles`: of its trips.

    With n tiles of its input there are n operations or more, each with an `overhead`, and the
    first waits for an n-th of what is loaded. The sum of both is least where they are equal.
    """
    alone = np.asarray(first_bytes / rate)
    tiles = np.maximum(1.0, np.sqrt(alone / np.maximum(1, overhead)))
    return compute_cycles + (tiles * overhead + alone / tiles).astype(np.int64)


def first_bytes(mapped: Mapped) -> float:
    """What `with_tiles` asks for, from a convolution's tensors alone: with n tiles of its input, at
    least an n-th of these bytes is loaded before its first trip.

    The first tile is none that an edge cuts off, but it may read less by the padding: as many
    rows as its own outputs step over, if windows overlap by as much as is padded.
    """
    item, layer = mapped.item, mapped.layer
    source, out = (mapped.graph.tensors[name] for name in (item.inputs[0], layer.output))
    window, found = layer.window, mapped.bytes_of(item.inputs[0]) / source.positions
    for count, taps, limit in ((out.rows, window.rows, source.rows),
                               (out.columns, window.columns, source.columns)):
        if taps - window.padding < window.stride:
            return 0.0
        found *= min(limit, count * window.stride / (2 if item.upsample else 1))
    return found


def widest(parts: Parts, box: Box, sizes: Choice) -> Overlay:
    """A design of some sizes with as many masters as there may be, each at the port that lets it be
    widest, and the quickest pace."""
    choice: Choice = {**sizes, **quickest(box)}
    for name in PORTS:
        bits = box.values(width_axis(ROLES[name], box.names))
        if not box.may_have_named(name):
            continue
        known = (parts.base.masters_of(ROLES[name]) or parts.base.masters)[0].width_bits
        widths = {port: max(parts.board.port(str(port)).nearest_width(int(wanted))
                            for wanted in bits or (known,))
                  for port in box.values(name)}
        choice[name] = max(widths, key=lambda port: widths[port])
        if bits:
            choice[width_axis(ROLES[name], box.names)] = max(bits)
    if box.values("input_masters"):
        choice["input_masters"] = max(box.values("input_masters"))
    return replace(parts.overlay(box.design(choice)), rate=Rate.FIXED)
