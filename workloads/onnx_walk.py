"""Keeps what the nodes of an ONNX model have become while they are walked in order.

It gives no operator a meaning; `onnx_operators` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .float_network import FloatNetwork
from .graph import Graph, Layer, Operator, TensorSpec, Window
from .onnx_read import Model, Node


class Unsupported(Exception):
    """One node cannot be imported; the message says why. Collected, never shown alone."""


@dataclass
class Walk:
    """What the nodes seen so far have become."""

    model: Model
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    weight_steps: dict[str, np.ndarray] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    #: Steps of dequantized constants, by the constant's name.
    steps: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants.update(self.model.constants)

    def tensor(self, name: str, shape: tuple[int, int, int] | None = None) -> str:
        """Declare a graph tensor for an ONNX tensor."""
        self.tensors[name] = TensorSpec(name, *(shape or logical_shape(self.model.shapes[name])))
        self.alias[name] = name
        return name

    def value(self, name: str) -> str:
        """The graph tensor that an ONNX activation has become."""
        if name not in self.alias:
            raise Unsupported(f"input {name!r} is a constant or was not imported")
        return self.alias[name]

    def constant(self, name: str) -> np.ndarray:
        """The array of an ONNX constant."""
        if name not in self.constants:
            raise Unsupported(f"input {name!r} must be a constant")
        return self.constants[name]

    def consumers(self, name: str) -> list[Node]:
        """The nodes that read an ONNX tensor."""
        return [node for node in self.model.nodes if name in node.inputs]

    def producer(self, tensor: str) -> int | None:
        """Index of the layer that makes a graph tensor."""
        return next((index for index, layer in enumerate(self.layers)
                     if layer.output == tensor), None)

    def add(self, node: Node, operator: Operator, inputs: tuple[str, ...],
            roles: tuple[str, ...] = (), shape: tuple[int, int, int] | None = None,
            **fields: Any) -> str:
        """Append a layer named after the node's first output; return that tensor."""
        out = self.tensor(node.outputs[0], shape)
        constants = {role: f"{out}.{role}" for role in roles}
        self.layers.append(Layer(out, operator, inputs, out, constants=constants, **fields))
        return out

    def keep_scale(self, name: str) -> None:
        """The tensor counts in its source's steps."""
        source = self.layers[-1].inputs[0]
        if source in self.fixed:
            self.fixed[name] = self.fixed[source]

    def lookup(self, node: Node, function: str, source: str) -> None:
        """Append a table of a function of one variable."""
        name = self.add(node, Operator.LOOKUP, (source,), ("table",))
        self.functions[name] = function

    def network(self) -> FloatNetwork:
        """All that was walked, as a float network."""
        outputs = tuple(self.value(name) for name in self.model.outputs)
        graph = Graph(self.model.name, self.model.inputs, outputs, self.tensors,
                      tuple(self.layers), {})
        return FloatNetwork(graph, self.weights, self.functions, self.fixed, self.weight_steps)


def logical_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, rows, columns) of an ONNX shape; `Unsupported` for another rank or batch."""
    if len(shape) not in (2, 4) or shape[0] != 1 or min(shape) < 1:
        raise Unsupported(f"shape {shape} must be (1, channels, rows, columns) or (1, features)")
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else (shape[1], 1, 1)


def even(values: Sequence[int], what: str) -> int:
    """The one value of a list that must not vary."""
    if len(set(values)) != 1:
        raise Unsupported(f"{what} {list(values)} must be equal on all sides")
    return int(values[0])


def sliding_window(node: Node, kernel: Sequence[int], groups: int = 1) -> Window:
    """The window of a convolution or a pool, if it is one of ours."""
    if node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise Unsupported("auto_pad must be NOTSET")
    if set(node.attribute("dilations", [1])) != {1}:
        raise Unsupported("dilations must be 1")
    if node.attribute("ceil_mode", 0):
        raise Unsupported("ceil_mode must be 0")
    if len(kernel) != 2:
        raise Unsupported(f"kernel {list(kernel)} must have rows and columns")
    stride = even(node.attribute("strides", [1, 1]), "strides")
    padding = even(node.attribute("pads", [0, 0, 0, 0]), "pads")
    return Window(int(kernel[0]), int(kernel[1]), stride, padding, groups)
