"""Keeps what the nodes of an ONNX model have become while they are walked in order.

It gives no operator a meaning; the rules do.

An ONNX tensor is a *view* of a graph tensor: which of its elements stands where, and a function
of one variable that is still to be applied. Reshapes, transposes and slices only change views,
and a chain of functions becomes one table. Elements are moved when an operator needs them in
another order, functions are applied when somebody reads the values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from arch_models.fields import made_label
from workloads.graph import Graph, Layer, Operator, TensorSpec, Window
from workloads.onnx.fold import MOST_ELEMENTS
from workloads.onnx.read import Model, Node
from workloads.onnx.rules.curves import Linear
from workloads.quantization.float_network import FloatNetwork, Function

Shape = tuple[int, ...]
Shape3 = tuple[int, int, int]


class Unsupported(Exception):
    """One node cannot be imported; the message says why. Collected, never shown alone."""


@dataclass(frozen=True)
class View:
    """An ONNX tensor of `shape` seen in a graph tensor.

    `moved`: int array of `shape`, the place of each element in the tensor's order (channel, row,
    column), -1 for a zero; None if the order is the same. `function`: not yet applied.
    """

    tensor: str
    shape: Shape
    moved: np.ndarray | None = None
    function: Function | None = None

    @property
    def places(self) -> np.ndarray:
        """`moved`, or the plain order."""
        if self.moved is not None:
            return self.moved
        return np.arange(int(np.prod(self.shape)), dtype=np.int32).reshape(self.shape)


@dataclass(frozen=True)
class Counted:
    """Integers: value = (integer - zero) * step."""

    step: float
    zero: int
    kind: np.dtype[Any]

    def real(self, integer: float) -> float:
        """The value that an integer stands for."""
        return (integer - self.zero) * self.step


@dataclass
class Walk:
    """What the nodes seen so far have become. `symmetric`: ranges that a file states with a
    zero point are widened to symmetric ones."""

    model: Model
    symmetric: bool = False
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    weight_steps: dict[str, np.ndarray] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    #: ONNX activations that are integers, from QuantizeLinear to DequantizeLinear.
    counted: dict[str, Counted] = field(default_factory=dict)
    #: ONNX activations that are integers from an input of the file on; they are their own values.
    integers: dict[str, Counted] = field(default_factory=dict)
    #: Steps of dequantized constants by name, shaped to broadcast to the constant.
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    #: Tensors of the inputs, in their order.
    entrances: list[str] = field(default_factory=list)
    #: The input that constants as tensors are made from, "" for the first.
    held_from: str = ""
    #: Graph constants that follow from the structure alone.
    structure: dict[str, np.ndarray] = field(default_factory=dict)
    widened: int = 0
    #: Tensors that hold values with a zero point exactly: what each adds to its values.
    shifts: dict[str, float] = field(default_factory=dict)
    #: Where the values of such tensors end below, since their integers do.
    least: dict[str, float] = field(default_factory=dict)
    #: Quantized activations that are held so.
    exact: int = 0
    #: Ranges that the file would take from each input.
    dynamic: int = 0
    #: Does the file state scales of activations?
    stated: bool = False
    #: Tensors of the steps of recurrences, and those that they begin with.
    recurrent: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    #: Nodes that were walked although something about them cannot be kept.
    problems: list[tuple[Node, str]] = field(default_factory=list)
    _applied: dict[tuple[str, int], tuple[str, Function]] = field(default_factory=dict)
    _moved: dict[tuple[str, Shape3, bytes], str] = field(default_factory=dict)
    _readers: dict[str, list[Node]] = field(default_factory=dict)
    _makers: dict[str, Node] = field(default_factory=dict)
    _ahead: dict[str, Sequence[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants.update(self.model.constants)
        self.expand(self.model.nodes)

    def consumers(self, name: str) -> list[Node]:
        """The nodes that read an ONNX tensor; none an output that is left out."""
        return self._readers.get(name, [])

    def constant(self, name: str) -> np.ndarray:
        """A constant by its ONNX name."""
        if name not in self.constants:
            raise Unsupported(f"{name!r} must be a constant")
        return self.constants[name]

    def optional(self, node: Node, index: int) -> np.ndarray | None:
        """The constant at an optional input, None if it is absent."""
        if len(node.inputs) <= index or not node.inputs[index]:
            return None
        return self.constant(node.inputs[index])

    def lazy(self, name: str) -> View:
        """The view of an ONNX activation; its function may still have to be applied. A constant
        that stands where an activation is read becomes one."""
        if name not in self.views:
            self.views[name] = self._held(name)
        return self.views[name]

    def shape(self, name: str) -> Shape:
        """The shape of a tensor of the file."""
        return self.views[name].shape if name in self.views else self.constant(name).shape

    def rank(self, name: str) -> int:
        """How many axes a tensor of the file has."""
        return len(self.shape(name))

    def _held(self, name: str) -> View:
        """A constant as a tensor: an affine step that reads zeros and adds the values."""
        array = self.constant(name)
        if array.dtype.kind not in "iufb" or not self.entrances:
            raise Unsupported(f"{name!r} must hold numbers")
        if not array.size:
            raise Unsupported(f"{name!r} has no elements")
        source = self.held_from or self.entrances[0]
        nothing = self._move(source, Operator.GATHER, (array.size, 1, 1),
                             np.full(array.size, -1))
        made = self.add(name or "constant", Operator.AFFINE, (nothing,),
                        ("multiplier", "offset", "shift"))
        self.weights[f"{made}.scale"] = np.zeros(array.size, np.float32)
        self.weights[f"{made}.offset"] = array.reshape(-1).astype(np.float32)
        return View(made, array.shape)

    def put(self, name: str, tensor: str, places: np.ndarray) -> None:
        """An ONNX tensor is these places of a graph tensor; plain if nothing is moved."""
        plain = bool((places.reshape(-1) == np.arange(places.size)).all())
        self.views[name] = View(tensor, places.shape, None if plain else places)

    def expand(self, nodes: Sequence[Node]) -> None:
        """Nodes that stand for one of the file's: from now on they read what they read."""
        for node in nodes:
            for name in node.reads:
                self._readers.setdefault(name, []).append(node)
            self._makers.update(dict.fromkeys(filter(None, node.outputs), node))

    def expand_ahead(self, node: Node, nodes: Sequence[Node]) -> None:
        """Nodes that stand for one of the file's which is not walked yet: they alone read."""
        for name in node.reads:
            self._readers[name] = [other for other in self._readers[name] if other is not node]
        self._ahead[node.outputs[0]] = nodes
        self.expand(nodes)

    def ahead(self, node: Node) -> Sequence[Node] | None:
        """Nodes that stood for this one before it was walked; told once, since the last of them
        makes the same."""
        return self._ahead.pop(node.outputs[0], None)

    def maker(self, name: str) -> Node | None:
        """The node that makes an ONNX tensor; None of what the file gives."""
        return self._makers.get(name)

    def view(self, name: str) -> View:
        """The view of an ONNX activation with its function applied."""
        found = self.settled(self.lazy(name), name)
        self.views[name] = found
        return found

    def settled(self, view: View, name: str) -> View:
        """The view with its function applied, by a table named after an ONNX tensor."""
        function = view.function
        if function is None:
            return view
        if not self.whole(view):
            places = as_three(view.places)
            view = View(self.arranged(view.tensor, places), view.shape)
        key = (view.tensor, id(function))
        if key not in self._applied:
            made = self.add(name, Operator.LOOKUP, (view.tensor,), ("table",))
            self.functions[made] = function
            self._applied[key] = (made, function)  # holds the function, so that its id stays
        return replace(view, tensor=self._applied[key][0], function=None)

    def whole(self, view: View) -> bool:
        """Does every element of the tensor stand in the view exactly once?"""
        return view.moved is None or (
            view.moved.size == self.tensors[view.tensor].elements and self.once(view))

    def once(self, view: View) -> bool:
        """Does no element of the tensor stand in the view twice, and no zero beside them?"""
        if view.moved is None:
            return True
        flat = view.moved.reshape(-1)
        return bool(flat.min() >= 0 and np.bincount(flat).max() == 1)

    def producer(self, tensor: str) -> int | None:
        """Index of the layer that makes a graph tensor."""
        return next((index for index in range(len(self.layers) - 1, -1, -1)
                     if self.layers[index].output == tensor), None)

    def alone(self, view: View, node: Node) -> bool:
        """Does nothing but this node read the view's tensor? Several pictures of a batch leave
        rows between them that nobody reads."""
        if not self.once(view) or any(view.tensor in layer.inputs for layer in self.layers):
            return False
        names = {name for name, other in self.views.items() if other.tensor == view.tensor}
        if names.intersection(self.model.outputs):
            return False
        return all(other is node or names.issuperset(other.outputs)
                   for name in names for other in self.consumers(name))

    def fresh(self, name: str) -> str:
        """A tensor's name that is not taken; a file may have called it anything."""
        return made_label(name, self.tensors)

    def add(self, name: str, operator: Operator, inputs: tuple[str, ...],
            roles: tuple[str, ...] = (), shape: Shape3 | None = None, bits: int = 8,
            **fields: Any) -> str:
        """Append a layer named after an ONNX tensor; return its tensor, by default shaped as its
        first input."""
        out = self.declare(self.fresh(name), shape or self.tensors[inputs[0]].shape, bits)
        constants = {role: f"{out}.{role}" for role in roles}
        self.layers.append(Layer(out, operator, inputs, out, constants=constants, **fields))
        return out

    def declare(self, name: str, shape: Shape3, bits: int = 8) -> str:
        """A new tensor."""
        elements = int(np.prod(shape, dtype=np.int64))
        if not 0 < elements <= MOST_ELEMENTS:
            raise Unsupported(f"{elements} elements, must be from 1 to {MOST_ELEMENTS}")
        self.tensors[name] = TensorSpec(name, *shape, bits=bits)
        return name

    def keep_scale(self, tensor: str, source: str) -> str:
        """The tensor counts in its source's steps and holds its zero point."""
        if source in self.fixed:
            self.fixed[tensor] = self.fixed[source]
        if source in self.shifts:
            self.shifts[tensor] = self.shifts[source]
        self.tensors[tensor] = replace(self.tensors[tensor], bits=self.tensors[source].bits)
        return tensor

    def arranged(self, tensor: str, places: np.ndarray, free: bool = False) -> str:
        """The tensor that holds the elements at `places` (channels, rows, columns) of a tensor.

        `free`: any rows and columns will do that hold the positions in this order.
        """
        spec, flat = self.tensors[tensor], places.reshape(-1)
        shape = (places.shape[0], places.shape[1], places.shape[2])
        if flat.size == spec.elements and bool((flat == np.arange(flat.size)).all()):
            if shape == spec.shape or (free and shape[0] == spec.channels):
                return tensor
            return self._move(tensor, Operator.RESHAPE, shape, flat)
        turned = np.arange(spec.elements).reshape(spec.channels, -1).T
        if flat.size == spec.elements and bool((flat == turned.reshape(-1)).all()):
            found = self._move(tensor, Operator.TRANSPOSE, (spec.positions, 1, spec.channels), flat)
            return self.arranged(found, np.arange(flat.size).reshape(shape), free)
        return self._move(tensor, Operator.GATHER, shape, flat)

    def _move(self, tensor: str, operator: Operator, shape: Shape3, flat: np.ndarray) -> str:
        flat = np.ascontiguousarray(flat, np.int32)
        key = (tensor, shape, hashlib.sha256(flat.tobytes()).digest())
        if key not in self._moved:
            roles = ("places",) if operator is Operator.GATHER else ()
            made = self.add(f"{tensor}.{operator.value}", operator, (tensor,), roles, shape,
                            window=Window(pad_value=self.pad_value(tensor) if roles else 0))
            if roles:
                self.structure[f"{made}.places"] = flat
            self._moved[key] = self.keep_scale(made, tensor)
        return self._moved[key]

    def added(self, view: View) -> float:
        """What a tensor adds to the values of a view that only has to take that away; else 0."""
        offset = self.shifts.get(view.tensor, 0.0)
        return offset if view.function == Linear(1.0, -offset) else 0.0

    def pad_value(self, tensor: str) -> int:
        """What stands for real zero in a tensor, in its steps."""
        return round(self.shifts[tensor] / self.fixed[tensor]) if tensor in self.shifts else 0

    def summed(self, tensor: str, offset: float, bits: int) -> str:
        """A layer that adds an offset to the values of a tensor."""
        channels = self.tensors[tensor].channels
        made = self.add(f"{tensor}.affine", Operator.AFFINE, (tensor,),
                        ("multiplier", "offset", "shift"), bits=bits)
        self.weights[f"{made}.scale"] = np.ones(channels, np.float32)
        self.weights[f"{made}.offset"] = np.full(channels, offset, np.float32)
        return made

    def network(self) -> FloatNetwork:
        """All that was walked, as a float network. Its outputs hold no zero point."""
        outputs = []
        for name in self.model.outputs:
            offset = self.added(self.lazy(name))
            view = self.lazy(name) if offset else self.view(name)
            made = view.tensor if view.moved is None else self.arranged(
                view.tensor, as_three(view.places), free=True)
            if offset:
                step = self.fixed[made]
                made = self.summed(made, -offset, bits=16)
                self.fixed[made] = step
                self.views[name] = View(made, view.shape)
            elif self.producer(made) is None:  # an input, handed through
                made = self.keep_scale(self.add(name, Operator.RESHAPE, (made,)), made)
                self.views[name] = View(made, view.shape)
            outputs.append(made)
        inputs = tuple(self.entrances)
        graph = Graph(made_label(self.model.name), inputs, tuple(dict.fromkeys(outputs)),
                      self.tensors, tuple(self.layers), self.structure)
        return FloatNetwork(graph, self.weights, self.functions, self.fixed, self.weight_steps,
                            least=self.least)


def three(shape: Shape) -> Shape3:
    """(channels, rows, columns) that hold a tensor of any rank in its own order; a leading one
    is the batch."""
    rest = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    if len(rest) > 3:
        return int(np.prod(rest[:-2])), rest[-2], rest[-1]
    padded = (*rest, 1, 1, 1)
    return padded[0], padded[1], padded[2]


def as_three(places: np.ndarray) -> np.ndarray:
    """Places in the shape of `three`."""
    return places.reshape(three(places.shape))


def first_axes(places: np.ndarray, axes: tuple[int, ...]) -> tuple[
    np.ndarray, Callable[[np.ndarray], np.ndarray]
]:
    """Places with some axes first, and what brings such an array back to the old order."""
    order = (*axes, *(axis for axis in range(places.ndim) if axis not in axes))
    moved = places.transpose(order)
    back = np.argsort(order)
    shape = moved.shape
    return moved, lambda array: array.reshape(shape).transpose(back)
