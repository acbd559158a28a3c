"""Small graphs with random integers, for tests of mapping and lowering."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arch_models.overlay import default_overlay
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, Layer, Operator, TensorSpec, Window
from workloads.reference import execute

#: A design whose buffers force tiles on the smallest layers.
SMALL = replace(default_overlay(), input_words=180, weight_words=64, output_words=40,
                accumulator_words=64)
TINY_AGC = AgcConfig(width=8, blocks=2, motion_width=8, motion_max=32, motion_blocks=3,
                     keypoints=4, rows=32, cols=32)


def tiny_agc() -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The whole decoder at 32 x 32, inputs, and every tensor that the reference makes of them."""
    graph, draw = agc_graph(TINY_AGC), np.random.default_rng(0)
    points = {name: draw.integers(-9000, 9000, (2, 4, 1)).astype(np.int16)
              for name in ("keypoints_source", "keypoints_driving")}
    inputs = {"source": draw.integers(-128, 128, (3, 32, 32), np.int8), **points}
    return graph, inputs, execute(graph, inputs)


class TinyGraph:
    """Builds a graph layer by layer; constants are drawn so that results use the whole range."""

    def __init__(self, seed: int, channels: int, rows: int, columns: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.tensors = {"in": TensorSpec("in", channels, rows, columns)}
        self.layers: list[Layer] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, name: str, operator: Operator, inputs: tuple[str, ...],
            shape: tuple[int, int, int], constants: dict[str, np.ndarray] | None = None,
            **fields) -> str:
        self.tensors[name] = TensorSpec(name, *shape, scale=2.0**-7)
        roles = {}
        for role, array in (constants or {}).items():
            self.constants[f"{name}.{role}"] = array
            roles[role] = f"{name}.{role}"
        self.layers.append(Layer(name, operator, inputs, name, constants=roles, **fields))
        return name

    def convolution(self, name: str, source: str, out: int, kernel: int, stride: int = 1,
                    padding: int = 0, relu: bool = False, groups: int = 1,
                    weights: tuple[int, int] = (-127, 127)) -> str:
        spec = self.tensors[source]
        rows = (spec.rows + 2 * padding - kernel) // stride + 1
        columns = (spec.columns + 2 * padding - kernel) // stride + 1
        draw = self.draw
        inner = spec.channels // groups
        fan = inner * kernel * kernel
        shift = round(np.log2(73 * 73 * np.sqrt(fan) / 50))
        return self.add(name, Operator.CONVOLUTION, (source,), (out, rows, columns), {
            "weights": draw.integers(weights[0], weights[1], (out, inner, kernel, kernel), np.int8,
                                     endpoint=True),
            "bias": draw.integers(-(8 << shift), 8 << shift, out, np.int32),
            "multiplier": draw.integers(1, 4, out).astype(np.int32),
            "shift": np.full(out, shift + 1, np.int32)},
            window=Window(kernel, kernel, stride, padding, groups), relu=relu)

    def upsample(self, name: str, source: str) -> str:
        channels, rows, columns = self.tensors[source].shape
        return self.add(name, Operator.UPSAMPLE, (source,), (channels, 2 * rows, 2 * columns))

    def pool(self, name: str, source: str) -> str:
        channels, rows, columns = self.tensors[source].shape
        return self.add(name, Operator.AVERAGE_POOL, (source,), (channels, rows // 2, columns // 2),
                        window=Window(2, 2, 2))

    def max_pool(self, name: str, source: str, kernel: int, stride: int, padding: int) -> str:
        channels, rows, columns = self.tensors[source].shape
        size = tuple((length + 2 * padding - kernel) // stride + 1 for length in (rows, columns))
        return self.add(name, Operator.MAX_POOL, (source,), (channels, *size),
                        window=Window(kernel, kernel, stride, padding))

    def sum(self, name: str, first: str, second: str) -> str:
        return self.add(name, Operator.ADD, (first, second), self.tensors[first].shape, {
            "multiplier": self.draw.integers(1, 8, 2).astype(np.int32),
            "shift": np.array([3], np.int32)})

    def affine(self, name: str, source: str) -> str:
        shape = self.tensors[source].shape
        return self.add(name, Operator.AFFINE, (source,), shape, {
            "multiplier": self.draw.integers(-9000, 9000, shape[0]).astype(np.int32),
            "offset": self.draw.integers(-90000, 90000, shape[0]).astype(np.int32),
            "shift": np.full(shape[0], 13, np.int32)}, relu=True)

    def lookup(self, name: str, source: str) -> str:
        return self.add(name, Operator.LOOKUP, (source,), self.tensors[source].shape, {
            "table": self.draw.integers(-128, 128, 256, np.int8)})

    def concat(self, name: str, *parts: str) -> str:
        channels = sum(self.tensors[part].channels for part in parts)
        return self.add(name, Operator.CONCAT, parts,
                        (channels, *self.tensors[parts[0]].shape[1:]))

    def graph(self, *outputs: str) -> Graph:
        return Graph("tiny", ("in",), outputs, self.tensors, tuple(self.layers), self.constants)

    def inputs(self) -> dict[str, np.ndarray]:
        return {"in": self.draw.integers(-128, 128, self.tensors["in"].shape, np.int8)}
