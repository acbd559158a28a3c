"""The memory of a frame: constants in place, tensors put and read by name, layers of the host.

It runs no program; `interpret`, the C simulation and the RTL change its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from arch_models.overlay import Overlay
from cosim.lowering.lower import Lowered
from cosim.lowering.packing import memory_image, pack_tensor, unpack_tensor
from workloads.graph import Graph
from workloads.reference import execute_layer


@dataclass(frozen=True)
class MemoryImage:
    """The bytes of a lowered graph's memory (uint8), changed in place."""

    graph: Graph
    lowered: Lowered
    data: np.ndarray

    @classmethod
    def start(cls, graph: Graph, lowered: Lowered, overlay: Overlay,
              inputs: Mapping[str, np.ndarray]) -> MemoryImage:
        """The memory before a frame: constants and given tensors in place, the rest zero."""
        image = cls(graph, lowered, memory_image(graph, lowered.placement, overlay))
        for name, tensor in inputs.items():
            image.put(name, tensor)
        return image

    def over(self, data: np.ndarray) -> MemoryImage:
        """The same places in other bytes: a copy that something else runs on."""
        return replace(self, data=data)

    def put(self, name: str, tensor: np.ndarray) -> None:
        """Write a tensor (channels, rows, columns); `PlacementError` if it is not in memory."""
        place = self.lowered.placement.place(name)
        self.data[place.address : place.address + place.size_bytes] = np.frombuffer(
            pack_tensor(tensor, place), np.uint8)

    def get(self, name: str) -> np.ndarray:
        """Read a tensor; `PlacementError` if it is not in memory."""
        place = self.lowered.placement.place(name)
        return unpack_tensor(self.data[place.address : place.address + place.size_bytes], place)

    def run_host(self, index: int) -> None:
        """Do what a HOST operation with this argument does; the pseudo-layer `start` does
        nothing."""
        layers = self.lowered.mapping.layers
        if index < len(layers):
            layer = self.graph.layer(layers[index].name)
            values = [self.get(name) for name in layer.inputs]
            self.put(layer.output, execute_layer(self.graph, layer, values))
