"""How the channels of each tensor lie in planes: dense, or in parts that each fill whole planes.

It gives no addresses; see `placement`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from arch_models.overlay import Overlay
from workloads.graph import Graph, Layer

#: 16-bit values in a beat of 8 bytes; a grid uses two of them, x and y.
GRID_CHANNELS = 2
GRID_LANES = 4


@dataclass(frozen=True)
class Layouts:
    """Parts (channels each) of every tensor, and what a concatenation is made of.

    A plane holds `channel_block` channels, or for 16-bit tensors one grid: (x, y, 0, 0).
    """

    graph: Graph
    channel_block: int
    position_bytes: int
    wide: bool  # the overlay's own data are 16 bits or more: no tensor is a grid
    channels: Mapping[str, tuple[int, ...]]
    concats: Mapping[str, tuple[str, ...]]
    #: What was worked out before: planes by tensor, real channels by lanes and parts.
    counts: dict[str, int] = field(default_factory=dict, compare=False)
    known_real: dict[tuple[int, tuple[int, ...]], np.ndarray] = field(
        default_factory=dict, compare=False)

    def known(self, name: str) -> bool:
        """Has the tensor a layout yet?"""
        return name in self.channels

    def parts(self, name: str) -> tuple[int, ...]:
        """Channels of each part; a part begins at a new plane."""
        return self.channels[name]

    def is_dense(self, name: str) -> bool:
        """Is channel c in place c?"""
        parts = self.channels[name]
        return all(part % self.channel_block == 0 for part in parts[:-1])

    def lanes(self, name: str) -> int:
        """Channels a plane can hold."""
        return GRID_CHANNELS if self.is_grid(name) else self.channel_block

    def is_grid(self, name: str) -> bool:
        """Does the tensor hold 16-bit coordinates, one (x, y) a beat?"""
        return self.graph.tensors[name].bits == 16 and not self.wide

    def planes(self, name: str) -> int:
        """Planes of the tensor."""
        found = self.counts.get(name)
        if found is None:
            lanes = self.lanes(name)
            found = self.counts[name] = sum(-(-part // lanes) for part in self.channels[name])
        return found

    def bytes_of(self, name: str) -> int:
        """Bytes of the tensor in memory."""
        step = 8 if self.is_grid(name) else self.position_bytes
        return self.planes(name) * self.graph.tensors[name].positions * step

    def real_channels(self, name: str) -> np.ndarray:
        """int64 (planes + 1): channels in the planes before each."""
        lanes = self.lanes(name)
        key = (lanes, self.channels[name])
        if key not in self.known_real:
            widths = [min(lanes, part - start) for part in self.channels[name]
                      for start in range(0, part, lanes)]
            self.known_real[key] = np.cumsum([0, *widths])
        return self.known_real[key]

    def places(self, name: str) -> np.ndarray:
        """int64 (channels): plane * lanes a beat + lane of each channel."""
        lanes = self.lanes(name)
        step = GRID_LANES if self.is_grid(name) else lanes
        found, plane = [], 0
        for part in self.channels[name]:
            found += [(plane + channel // lanes) * step + channel % lanes
                      for channel in range(part)]
            plane += -(-part // lanes)
        return np.array(found, np.int64)

    def leaves(self, name: str) -> tuple[str, ...]:
        """The tensors that a concatenation is made of in the end (or the tensor itself)."""
        if name not in self.concats:
            return (name,)
        return tuple(leaf for part in self.concats[name] for leaf in self.leaves(part))


class Drawing(Layouts):
    """Layouts while a mapping chooses them, tensor by tensor; `finished` makes a value of them."""

    channels: dict[str, tuple[int, ...]]
    concats: dict[str, tuple[str, ...]]

    @classmethod
    def start(cls, graph: Graph, overlay: Overlay) -> Drawing:
        """The inputs of the graph, each dense."""
        found = cls(graph, overlay.channel_block, overlay.position_bytes, overlay.data_bits != 8,
                    {}, {})
        for name in graph.inputs:
            found.dense(name)
        return found

    def finished(self) -> Layouts:
        """The layouts as they are now; later changes here leave them alone."""
        return Layouts(self.graph, self.channel_block, self.position_bytes, self.wide,
                       dict(self.channels), dict(self.concats), dict(self.counts),
                       self.known_real)

    def dense(self, name: str) -> None:
        """All channels behind one another."""
        self.counts.pop(name, None)
        self.channels[name] = (self.graph.tensors[name].channels,)

    def same(self, name: str, like: str) -> None:
        """As another tensor with the same channels."""
        self.channels[name] = self.parts(like)

    def repeated(self, name: str, source: str, times: int) -> None:
        """The source's parts, once for each grid."""
        self.channels[name] = self.parts(source) * times

    def concat(self, layer: Layer) -> None:
        """The parts of the inputs behind one another."""
        for name in layer.inputs:
            if not self.known(name):
                self.dense(name)
        self.channels[layer.output] = tuple(
            part for name in layer.inputs for part in self.parts(name))
        self.concats[layer.output] = layer.inputs
