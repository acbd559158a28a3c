"""Weights one behind the other: what one master brings for each layer, and how much of it may be
there before a layer begins.

It times no design; what a layer takes by itself comes from `floors`, `tables` and `layers`. Times
are cycles, numbers or arrays of them by banks and words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, islice
from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np

from arch_models.overlay import Engine
from arch_models.units import NS_PER_S, ceil_div
from cosim.analysis.hosts import HostStep
from cosim.engines import SLICES
from cosim.engines.base import Mapped
from cosim.mapping.tiles import ConvolutionTile, PlaneTile
from cosim.mapping.words import convolution_words, narrow, weight_word_bytes
from workloads.graph import Operator

#: Engines that have all of their constants before their first operation.
WHOLE = frozenset({Engine.ELEMENTWISE, Engine.LOOKUP, Engine.SOFTMAX})


class Brought(NamedTuple):
    """How long the master of weights works for a layer at least, and how: `constants` first, then
    so many `blocks` of WEIGHT, of which each takes no longer than a `block`. None: it waits for no
    bank. `first`: what no operation of the layer comes before."""

    cycles: Any = 0.0
    constants: Any = 0.0
    first: Any = 0.0
    blocks: Any = 0
    block: Any = 0.0

    def at(self, rate: float) -> Brought:
        """Of what is in bytes, at so many a cycle."""
        return Brought(self.cycles / rate, self.constants / rate, self.first / rate, self.blocks,
                       self.block / rate)


class Turn(NamedTuple):
    """A layer among others. `cycles`: from its barrier on; `computed`: from the end of what is
    brought `first` for it; `after`: from the end of all that is brought for it, `weights`.
    `ahead`: the work of the master for it and those behind it that may be done at its barrier."""

    cycles: Any
    weights: Any = 0.0
    first: Any = 0.0
    computed: Any = 0.0
    after: Any = 0.0
    ahead: Any = 0.0


class Stretch(NamedTuple):
    """Layers in order, each with nanoseconds of the processor, which it may take in place of the
    cycles of the fabric; infinite where it cannot be the one or the other. They come so many
    `times`, nothing of a time before all of the one before is done, but for what the master of
    weights may be ahead. `before`: see `in_turn`."""

    layers: Sequence[tuple[float, Turn]]
    times: int = 1
    before: float = 0.0

    def cycles(self, layers: Iterable[Turn], greater: Callable = max) -> Any:
        """All times, of these layers in place of its own."""
        return self.times * in_turn(layers, greater, self.before)


class Turns(NamedTuple):
    """Layers of stretches, one behind the other, each field an array."""

    stretches: tuple[Stretch, ...]
    host_ns: np.ndarray
    turns: Turn

    @classmethod
    def together(cls, weights: float) -> Turns:
        """The weights of all layers by themselves."""
        return cls.of([Stretch([(inf, Turn(0.0, weights))])])

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> Turns:
        """Of some, one behind the other."""
        layers = [layer for stretch in stretches for layer in stretch.layers]
        host_ns, turns = zip(*layers, strict=True) if layers else ((), ())
        return cls(tuple(stretches), np.array(host_ns, float),
                   Turn(*np.array(turns, float).reshape(-1, 6).T))

    def hosted(self, number: int) -> Turns:
        """The same where the processor runs a layer."""
        cycles = self.turns.cycles.copy()
        cycles[number] = inf
        return self._replace(turns=self.turns._replace(cycles=cycles))

    def least(self, clock_hz: Any) -> Any:
        """Cycles of all at the least at a clock, or at each of some."""
        clocks_hz = np.asarray(clock_hz, float)
        each = np.minimum(self.turns.cycles, self.host_ns * clocks_hz[..., None] / NS_PER_S)
        alone = each.ndim == 1
        layers = map(Turn, each.tolist() if alone else np.moveaxis(each, -1, 0),
                     *(item.tolist() for item in self.turns[1:]))
        return sum(stretch.cycles(islice(layers, len(stretch.layers)),
                                  max if alone else np.maximum) for stretch in self.stretches)


def in_turn(layers: Iterable[Turn], greater: Callable = max, before: float = 0.0) -> Any:
    """Cycles of layers that lie one behind the other. `greater`: of two numbers, or arrays;
    `before`: since when the master may have worked for them; -inf: for as long as it may be ahead.
    """
    end, brought = 0.0, 0.0
    for layer in layers:
        before = greater(before, end - brought - layer.ahead)
        end = greater(end + layer.cycles, before + brought + layer.first + layer.computed)
        brought = brought + layer.weights
        end = greater(end, before + brought + layer.after)
    return end


def ahead(layers: Sequence[Brought], banks: int) -> list[Any]:
    """Of each layer what may be brought for it and those behind it before it begins: all until so
    many banks are taken, and what waits for none behind that."""
    held: list[Any] = [0.0] * (banks + 1)  # by how many banks are left
    found = []
    for layer in reversed(layers):
        if np.any(layer.blocks):
            held = [0.0, *(_held(layer, left, held) for left in range(1, banks + 1))]
        else:
            held = [item + layer.cycles for item in held]
        found.append(held[banks])
    return found[::-1]


def _held(layer: Brought, left: int, behind: Sequence[Any]) -> Any:
    """Of a layer that waits for banks, of which so many are left, and of those behind it."""
    most: Any
    if isinstance(layer.blocks, int):
        return (layer.cycles + behind[left - layer.blocks] if layer.blocks <= left
                else min(layer.cycles, layer.constants + left * layer.block))
    most = np.minimum(layer.cycles, layer.constants + left * layer.block)
    for taken in range(1, left + 1):
        most = np.where(layer.blocks == taken, layer.cycles + behind[left - taken], most)
    return most


def most_ahead(layers: Sequence[Brought], holds: Mapping[int, float]) -> list[float]:
    """The most that may be ahead with any number of banks: by that the cycles that one holds."""
    found = [0.0] * len(layers)
    for banks, block in holds.items():
        each = [item if not item.blocks else item._replace(
            blocks=ceil((item.cycles - item.constants) / block),
            block=block) for item in layers]
        found = list(map(max, found, ahead(each, banks)))
    return found


def with_hosts(layers: Sequence[Turn], steps: Iterable[HostStep]) -> list[tuple[float, Turn]]:
    """The processor's steps among the layers in fabric: nanoseconds of those, infinite for
    these."""
    found: list[tuple[float, Turn]] = []
    waits = [(step.behind, step.time_ns) for step in steps]
    for number, layer in enumerate([*layers, Turn(inf)]):
        found += [(time_ns, Turn(inf, ahead=layer.ahead)) for behind, time_ns in waits
                  if behind == number]
        found.append((inf, layer))
    return found[:-1]


def stretches(layers: Sequence[tuple[int, Turn]], steps: Sequence[HostStep]) -> list[Stretch]:
    """Layers in fabric, of each how often a frame has it, and the processor's steps among them.
    Those that repeat together are a stretch; a step that is alone less often comes once before."""
    found, first = list[Stretch](), 0
    for times, group in groupby(layers, lambda item: item[0]):
        turns = [turn for _, turn in group]
        mine = [step._replace(behind=step.behind - first) for step in steps
                if step.times == times and 0 <= step.behind - first <= len(turns)]
        found += [Stretch([(step.time_ns, Turn(inf))], step.alone)
                  for step in mine if 0 < step.alone < times]
        found.append(Stretch(with_hosts(turns, [step for step in mine if step.alone == times]),
                             times, -inf if times > 1 or first else 0.0))
        first += len(turns)
    return found


def ordered(each: Sequence[tuple[int, Turn, Brought]], holds: Mapping[int, float],
            steps: Sequence[HostStep]) -> Turns:
    """Layers in fabric and the processor's steps; see `most_ahead` and `stretches`."""
    held = most_ahead([brought for *_, brought in each], holds)
    return Turns.of(stretches([(times, turn._replace(ahead=most)) for (times, turn, _), most in zip(
        each, held, strict=True)], steps))


def brings(mapped: Mapped, rate: float, wait: float) -> Brought:
    """What is brought for a mapped layer with its tile; without one, whatever it is, unless the
    array runs it. `rate`: bytes a cycle; `wait`: cycles that each transfer takes besides."""
    engine, tile = mapped.item.engine, mapped.item.tile
    assert engine is not None
    array = engine is Engine.CONVOLUTION
    known = [size for role, size in SLICES[engine].constants(mapped)
             if size and not (array and role == "weights")]
    constants = sum(known) / rate + len(known) * wait
    if not array:
        if isinstance(tile, PlaneTile) and mapped.layer.operator is Operator.CONVOLUTION:
            # For each block of planes.
            blocks = ceil_div(mapped.planes(mapped.item.inputs[0]), tile.planes)
            constants += (blocks - 1) * len(known) * wait
        return Brought(constants, constants, constants if engine in WHOLE else 0.0)
    assert isinstance(tile, ConvolutionTile)
    in_words, out_words, taps = convolution_words(
        mapped.layer, mapped.graph, mapped.overlay, mapped.layouts, mapped.item.inputs[0])
    out = mapped.graph.tensors[mapped.layer.output]
    work = SLICES[engine].least(mapped)
    blocks = ceil_div(out_words, tile.out_words) * ceil_div(in_words, tile.in_words)
    if blocks > 1 and not tile.weights_outer:
        blocks *= ceil_div(out.rows, tile.rows) * ceil_div(out.columns, tile.columns)
    if not work.weight_bytes:  # an activation, not counted
        return Brought(constants, constants, constants, blocks)
    word = weight_word_bytes(mapped.overlay, narrow(mapped.layer, mapped.graph, mapped.overlay))
    block = tile.out_words * tile.in_words * taps * word / rate + wait
    return Brought(constants + work.weight_bytes / rate + blocks * wait, constants,
                   constants + (wait if mapped.layer.window.groups > 1 else block), blocks, block)
