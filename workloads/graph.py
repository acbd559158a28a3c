"""The graph: a quantized network as frozen values (layers, tensor specs, integer constants).

It does not execute, quantize or time anything; see `reference`, `quantize` and the cosim room.

A graph is stored *decomposed*: upsample, convolution, pooling and addition are layers of their
own. Fusing them is a mapping choice made while lowering. It changes cost and never a value,
because every layer's integer arithmetic is written down once (`workloads.arithmetic`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

#: Least and greatest weight of 4 bits.
NARROW = (-8, 7)


class GraphError(ValueError):
    """A graph breaks a rule. The message names the layer, the value, the rule."""


class Operator(StrEnum):
    """What a layer computes. The integer meaning of each is in `workloads.reference`."""

    CONVOLUTION = "convolution"  # int8 x int8 -> int32, bias, requantize, optional ReLU
    MATMUL = "matmul"  # two activations; attention
    UPSAMPLE = "upsample"  # nearest, x2 in rows and columns
    AVERAGE_POOL = "average_pool"
    DOWNSAMPLE = "downsample"  # one low-pass kernel for every channel, then every n-th sample
    MAX_POOL = "max_pool"
    ADD = "add"
    MULTIPLY = "multiply"  # by a map with one channel, broadcast over channels, or elementwise
    AFFINE = "affine"  # per-channel multiply and offset, optional ReLU (batch norm not folded)
    LOOKUP = "lookup"  # 256-entry int8 table: sigmoid, SiLU, ...
    SOFTMAX = "softmax"  # over channels
    GRID_SAMPLE = "grid_sample"  # bilinear, zero padding, int16 pixel coordinates
    CONCAT = "concat"  # over channels; an address change, no work
    HEAT_MAPS = "heat_maps"  # keypoints -> Gaussian difference maps
    DISPLACEMENTS = "displacements"  # keypoints -> how far each moves, in grid steps
    SPARSE_FLOW = "sparse_flow"  # displacements -> one translated grid a keypoint
    FLOW_SUM = "flow_sum"  # masks, displacements -> one dense grid
    GROUP_NORM = "group_norm"  # two passes: sums, then an affine step for each channel
    REQUANTIZE = "requantize"  # another scale or width, nothing else
    SAMPLER = "sampler"  # c0 * latent + c1 * velocity with coefficients of the step
    ROW = "row"  # the row of a table that a counter names: inputs that differ by sampler step
    RESHAPE = "reshape"  # same elements, other shape: an address change
    TRANSPOSE = "transpose"
    GATHER = "gather"  # elements moved by a list of places: slices, other orders, zero padding


class Phase(StrEnum):
    """How often a layer runs."""

    GROUP = "group"  # once per group of pictures (AGC source branch), or before the sampler
    FRAME = "frame"  # once per frame or image
    STEP = "step"  # once per sampler step


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: logical shape (channels, rows, columns), batch one, and its number format.

    `scale` is the real value of one integer step. `bits` is 8, 16 or 32, always signed.
    """

    name: str
    channels: int
    rows: int
    columns: int
    bits: int = 8
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns)."""
        return (self.channels, self.rows, self.columns)

    @property
    def elements(self) -> int:
        """Values in the tensor."""
        return self.channels * self.rows * self.columns

    @property
    def positions(self) -> int:
        """Rows times columns: the places that share one channel vector."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Window:
    """The sliding window of a convolution or a pooling layer, in elements.

    `pad_value`: what the padding of a convolution or a mean holds, or a gather where it reads
    nothing, in steps of its input: 0 but where the input holds a zero point, then what stands for
    real zero.
    """

    rows: int = 1
    columns: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    pad_value: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator applied to named tensors.

    `constants` maps a role to the name of an array in the graph. Roles by operator:
    convolution: weights int8 (out, in, rows, columns), bias int32 (out), multiplier int32
    (out), shift int32 (out). add: multiplier (2), shift (1), and offset int32 (1) where zero points
    are held. multiply: multiplier (1), shift (1), and where zero points are held both zeros int32
    (2), in steps of its inputs, and offset int32 (1). affine: multiplier (channels), offset
    (channels), shift (channels). lookup: table int8 (256), or (channels, 256), indexed by value
    + 128; for int16 values int16 (257) or (channels, 257), interpolated. matmul: multiplier (1),
    shift (1).
    softmax: table uint16 (256), exp of a difference. heat_maps: table uint16 (1024), row_axis
    int16 (rows), column_axis int16 (columns). downsample: weights int16 (rows, columns),
    shift (1). requantize: multiplier (1), shift (1). group_norm: scale int32 (channels), offset
    int32 (channels), epsilon int64 (1), film int32 (2). average_pool: multiplier (1) and
    shift (1), or none if the window is a power of two; offset as in an add. row: table int8 or
    int16 (rows, elements). gather: places int32 (elements of the output). `arithmetic` has the
    integer formulas.
    `fraction_bits`: binary digits after the point of grid coordinates (grid layers only).
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    output: str
    window: Window = Window()
    relu: bool = False
    fraction_bits: int = 0
    phase: Phase = Phase.FRAME
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A whole network. Layers are in execution order; every tensor is written once.

    `inputs` are supplied from outside, `outputs` are read at the end. `constants` maps array
    names to numpy arrays; treat them as read-only. `steps`: how often the layers of the phase
    `step` run for one frame. `carried`: pairs (input, output): what one step makes is the next
    step's input, and both lie in one place. Without any, the steps are the caller's.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, TensorSpec]
    layers: tuple[Layer, ...]
    constants: Mapping[str, np.ndarray]
    steps: int = 1
    carried: tuple[tuple[str, str], ...] = ()

    def layer(self, name: str) -> Layer:
        """The layer of that name; `GraphError` with the nearest name if there is none."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        close = difflib.get_close_matches(name, [layer.name for layer in self.layers], 1, 0.0)
        raise GraphError(f"graph {self.name!r} has no layer {name!r}; nearest: {close}")

    @cached_property
    def _by_name(self) -> Mapping[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def producers(self) -> Mapping[str, Layer]:
        """The layer that makes each tensor that is no input."""
        return {layer.output: layer for layer in self.layers}

    def constant(self, layer: Layer, role: str) -> np.ndarray:
        """The array a layer uses in a role, e.g. `weights`."""
        return self.constants[layer.constants[role]]

    @cached_property
    def narrow_layers(self) -> frozenset[str]:
        """Convolutions whose weights all have 4 bits (`NARROW`), by the weights themselves."""
        least, most = NARROW
        return frozenset(
            layer.name for layer in self.layers if layer.operator is Operator.CONVOLUTION
            and self.constant(layer, "weights").min() >= least
            and self.constant(layer, "weights").max() <= most)

    def phase(self, *phases: Phase) -> tuple[Layer, ...]:
        """The layers that run in the given phases, in order."""
        return tuple(layer for layer in self.layers if layer.phase in phases)


def multiply_accumulates(graph: Graph, layer: Layer) -> int:
    """Useful multiply-accumulates of one layer (convolution and matmul; others count none)."""
    out = graph.tensors[layer.output]
    if layer.operator is Operator.CONVOLUTION:
        source = graph.tensors[layer.inputs[0]]
        window = layer.window
        per_output = source.channels // window.groups * window.rows * window.columns
        return out.elements * per_output
    if layer.operator is Operator.MATMUL:
        inner = graph.tensors[layer.inputs[0]].channels
        return out.elements * inner
    return 0
