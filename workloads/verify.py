"""Checks that a graph is well formed: names, order, shapes, number formats and constants.

It runs nothing and judges no quality. Large weights are checked by shape, not by value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from arch_models.fields import FieldError, label
from workloads.arithmetic import MAX_SHIFT, MULTIPLIER_BITS
from workloads.graph import Graph, GraphError, Layer, Operator, TensorSpec
from workloads.seeded import SeededConstants

#: A tensor's channels, rows or columns; its elements, counted in 32 bits; windows; steps.
MOST_SIZE, MOST_ELEMENTS, MOST_WINDOW, MOST_STEPS = 1 << 24, (1 << 31) - 1, 1 << 12, 1 << 16
MOST_FRACTION_BITS = 15
Specs = tuple[TensorSpec, ...]
Shape = tuple[int, int, int]
#: Operators whose output counts in the steps of their (first) input.
SAME_SCALE = frozenset({
    Operator.UPSAMPLE, Operator.AVERAGE_POOL, Operator.MAX_POOL, Operator.DOWNSAMPLE,
    Operator.GRID_SAMPLE, Operator.CONCAT, Operator.RESHAPE, Operator.TRANSPOSE, Operator.GATHER,
})
#: Constants that an operator must have.
ROLES: Mapping[Operator, tuple[str, ...]] = {
    Operator.CONVOLUTION: ("weights", "bias", "multiplier", "shift"),
    Operator.MATMUL: ("multiplier", "shift"),
    Operator.DOWNSAMPLE: ("weights", "shift"),
    Operator.GROUP_NORM: ("scale", "offset", "epsilon"),
    Operator.REQUANTIZE: ("multiplier", "shift"),
    Operator.SAMPLER: ("multiplier", "shift"),
    Operator.ROW: ("table",),
    Operator.ADD: ("multiplier", "shift"),
    Operator.MULTIPLY: ("multiplier", "shift"),
    Operator.AFFINE: ("multiplier", "offset", "shift"),
    Operator.LOOKUP: ("table",),
    Operator.SOFTMAX: ("table",),
    Operator.HEAT_MAPS: ("table", "row_axis", "column_axis"),
    Operator.GATHER: ("places",),
}

#: Operators that put what stands for zero where they read nothing.
PADS = frozenset({Operator.CONVOLUTION, Operator.AVERAGE_POOL, Operator.GATHER})
#: Operators that may hold zero points by constants of their own.
OFFSETS: Mapping[Operator, tuple[str, ...]] = {
    Operator.ADD: ("offset",), Operator.AVERAGE_POOL: ("offset",),
    Operator.MULTIPLY: ("zeros", "offset"),
}


def keeps_scale(layer: Layer) -> bool:
    """Whether a layer's output counts in the steps of its input; an average pool with a
    multiplier of its own need not."""
    return layer.operator in SAME_SCALE and "multiplier" not in layer.constants


def nearest(name: str, choices: Iterable[str]) -> str:
    """A clause that names the choice most like `name`, or all of them if none is."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, 1, 0.0)
    return f"nearest: {close[0]!r}" if close else "there is none"


def verify(graph: Graph) -> None:
    """Refuse a graph that breaks a rule; `GraphError` names the layer, the value and the rule."""
    _verify_names(graph)
    if not 1 <= graph.steps <= MOST_STEPS:
        raise GraphError(f"graph {graph.name!r}: steps is {graph.steps}, must be from 1 to "
                         f"{MOST_STEPS}")
    written = set(graph.inputs)
    for name in (*graph.inputs, *graph.outputs):
        _spec(graph, f"graph {graph.name!r}", name)
    seen: set[str] = set()
    for layer in graph.layers:
        if layer.name in seen:
            raise GraphError(f"layer {layer.name!r}: the name is used twice")
        seen.add(layer.name)
        for name in layer.inputs:
            _spec(graph, f"layer {layer.name!r}", name)
            if name not in written:
                raise GraphError(f"layer {layer.name!r} reads {name!r} before any layer wrote it")
        if layer.output in written:
            raise GraphError(f"layer {layer.name!r} writes {layer.output!r}, which is written "
                             "already; every tensor is written once")
        _verify_layer(graph, layer)
        written.add(layer.output)
    for given, made in graph.carried:
        if given not in graph.inputs or made not in written:
            raise GraphError(f"graph {graph.name!r}: carries {made!r} to {given!r}, must be what a "
                             "layer writes and an input")
        one, other = graph.tensors[given], graph.tensors[made]
        if (one.shape, one.bits, one.scale) != (other.shape, other.bits, other.scale):
            raise GraphError(f"graph {graph.name!r}: {made!r} is carried to {given!r} and must "
                             "have its shape, bits and scale")
    for name in graph.outputs:
        if name not in written:
            raise GraphError(f"graph {graph.name!r}: output {name!r} is never written")


def _verify_names(graph: Graph) -> None:
    """Names become those of files, and stand in scripts and pages."""
    try:
        label(graph.name, "graph: name")
        for name, spec in graph.tensors.items():
            label(name, "tensor")
            if spec.name != name:
                raise GraphError(f"tensor {name!r}: its spec is called {spec.name!r}")
        for layer in graph.layers:
            label(layer.name, "layer")
    except FieldError as error:
        raise GraphError(str(error)) from None


def _spec(graph: Graph, where: str, name: str) -> TensorSpec:
    if name not in graph.tensors:
        raise GraphError(f"{where} names tensor {name!r}, which has no spec; "
                         + nearest(name, graph.tensors))
    spec = graph.tensors[name]
    if spec.bits not in (8, 16, 32):
        raise GraphError(f"tensor {name!r}: bits is {spec.bits}, must be 8, 16 or 32")
    if min(spec.shape) < 1 or not 0 < spec.scale < float("inf"):
        raise GraphError(f"tensor {name!r}: shape {spec.shape} and scale {spec.scale} must be "
                         "positive and finite")
    if max(spec.shape) > MOST_SIZE or spec.elements > MOST_ELEMENTS:
        raise GraphError(f"tensor {name!r}: shape {spec.shape}, must be at most {MOST_SIZE} each "
                         f"and {MOST_ELEMENTS} elements")
    return spec


def _verify_layer(graph: Graph, layer: Layer) -> None:
    window = layer.window
    if max(window.rows, window.columns, window.stride, window.padding) > MOST_WINDOW:
        raise GraphError(f"layer {layer.name!r}: {window} must be at most {MOST_WINDOW}")
    if window.pad_value and (layer.operator not in PADS or not -128 <= window.pad_value <= 127):
        raise GraphError(f"layer {layer.name!r}: pad_value is {window.pad_value}, must be from "
                         "-128 to 127, and 0 but in a convolution, a mean or a gather")
    if not 0 <= layer.fraction_bits <= MOST_FRACTION_BITS:
        raise GraphError(f"layer {layer.name!r}: fraction_bits is {layer.fraction_bits}, must be "
                         f"from 0 to {MOST_FRACTION_BITS}")
    ins = tuple(graph.tensors[name] for name in layer.inputs)
    out = _spec(graph, f"layer {layer.name!r}", layer.output)
    wanted = _COUNTS.get(layer.operator, 1)
    if (wanted and len(ins) != wanted) or not ins:
        raise GraphError(f"layer {layer.name!r}: {len(ins)} inputs, {layer.operator} takes "
                         f"{wanted or 'one or more'}")
    shape = output_shape(layer, ins, out)
    if shape != out.shape:
        raise GraphError(f"layer {layer.name!r}: output {out.name!r} is {out.shape}, "
                         f"{layer.operator} makes {shape}")
    if keeps_scale(layer):
        parts = ins if layer.operator is Operator.CONCAT else ins[:1]
        for part in parts:
            if (part.scale, part.bits) != (out.scale, out.bits):
                raise GraphError(
                    f"layer {layer.name!r}: {part.name!r} has scale {part.scale} and {part.bits} "
                    f"bits, must be as the output's {out.scale} and {out.bits}")
    _verify_constants(graph, layer, ins, out)


_COUNTS: Mapping[Operator, int] = {
    Operator.ADD: 2, Operator.MULTIPLY: 2, Operator.MATMUL: 2, Operator.GRID_SAMPLE: 2,
    Operator.DISPLACEMENTS: 2, Operator.HEAT_MAPS: 2, Operator.FLOW_SUM: 2, Operator.CONCAT: 0,
    Operator.SAMPLER: 3, Operator.GROUP_NORM: 0,
}


def output_shape(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    """The shape a layer makes. Where the output chooses a size (grids, maps), it is taken."""
    rule = _SHAPES.get(layer.operator)
    return rule(layer, ins, out) if rule else ins[0].shape


def _windowed(layer: Layer, ins: Specs, channels: int) -> Shape:
    window = layer.window
    if min(window.rows, window.columns, window.stride, window.groups) < 1 or window.padding < 0:
        raise GraphError(f"layer {layer.name!r}: {window} must be positive")
    rows, columns = (
        (size + 2 * window.padding - extent) // window.stride + 1
        for size, extent in ((ins[0].rows, window.rows), (ins[0].columns, window.columns)))
    return channels, rows, columns


def _concatenated(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    for part in ins:
        if (part.rows, part.columns) != (ins[0].rows, ins[0].columns):
            raise GraphError(f"layer {layer.name!r}: {part.name!r} is {part.shape}, must have the "
                             f"rows and columns of {ins[0].name!r} {ins[0].shape}")
    return sum(part.channels for part in ins), ins[0].rows, ins[0].columns


def _broadcast(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    first, second = ins
    maps = ((1, first.rows, first.columns), (first.channels, 1, 1))
    ok = second.shape == first.shape or (
        layer.operator is Operator.MULTIPLY and second.shape in maps)
    if not ok:
        raise GraphError(f"layer {layer.name!r}: {second.name!r} is {second.shape}, must fit "
                         f"{first.name!r} {first.shape}")
    return first.shape


def _product(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    left, right = ins
    if left.channels != right.rows * right.columns:
        raise GraphError(f"layer {layer.name!r}: {left.name!r} has {left.channels} channels, must "
                         f"be the positions of {right.name!r}, {right.rows * right.columns}")
    return right.channels, left.rows, left.columns


def _modulated(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    """A group norm may take a gain and an offset for each channel as further inputs."""
    if len(ins) not in (1, 3) or any(part.shape != (ins[0].channels, 1, 1) for part in ins[1:]):
        raise GraphError(f"layer {layer.name!r}: inputs {[part.shape for part in ins]} must be one "
                         "tensor, and either none or two with one value a channel")
    if len(ins) == 3 and "film" not in layer.constants:
        raise GraphError(f"layer {layer.name!r}: constant 'film' is missing; two further inputs "
                         "need it")
    return ins[0].shape


def _reshaped(layer: Layer, ins: Specs, out: TensorSpec) -> Shape:
    if ins[0].elements != out.elements:
        raise GraphError(f"layer {layer.name!r}: {ins[0].elements} elements become "
                         f"{out.elements}; they must be as many")
    return out.shape


_SHAPES: Mapping[Operator, Callable[[Layer, Specs, TensorSpec], Shape]] = {
    Operator.CONVOLUTION: lambda layer, ins, out: _windowed(layer, ins, out.channels),
    Operator.AVERAGE_POOL: lambda layer, ins, out: _windowed(layer, ins, ins[0].channels),
    Operator.MAX_POOL: lambda layer, ins, out: _windowed(layer, ins, ins[0].channels),
    Operator.DOWNSAMPLE: lambda layer, ins, out: _windowed(layer, ins, ins[0].channels),
    Operator.UPSAMPLE: lambda layer, ins, out: (
        ins[0].channels, 2 * ins[0].rows, 2 * ins[0].columns),
    Operator.CONCAT: _concatenated,
    Operator.ADD: _broadcast,
    Operator.MULTIPLY: _broadcast,
    Operator.MATMUL: _product,
    Operator.RESHAPE: _reshaped,
    Operator.ROW: lambda layer, ins, out: out.shape,
    Operator.GROUP_NORM: _modulated,
    Operator.GATHER: lambda layer, ins, out: out.shape,
    Operator.TRANSPOSE: lambda layer, ins, out: (
        ins[0].rows * ins[0].columns, 1, ins[0].channels),
    Operator.GRID_SAMPLE: lambda layer, ins, out: (
        ins[0].channels * (ins[1].channels // 2), ins[1].rows, ins[1].columns),
    Operator.DISPLACEMENTS: lambda layer, ins, out: (2, ins[0].rows + 1, 1),
    Operator.HEAT_MAPS: lambda layer, ins, out: (ins[0].rows + 1, out.rows, out.columns),
    Operator.SPARSE_FLOW: lambda layer, ins, out: (2 * ins[0].rows, out.rows, out.columns),
    Operator.FLOW_SUM: lambda layer, ins, out: (2, ins[0].rows, ins[0].columns),
}


def _shape_of(graph: Graph, layer: Layer, role: str) -> tuple[int, ...]:
    if role not in layer.constants:
        raise GraphError(f"layer {layer.name!r}: constant {role!r} is missing; {layer.operator} "
                         f"needs {', '.join(ROLES[layer.operator])}")
    name = layer.constants[role]
    if name not in graph.constants:
        raise GraphError(f"layer {layer.name!r}: constant {name!r} is not in the graph; "
                         + nearest(name, graph.constants))
    if isinstance(graph.constants, SeededConstants):
        return graph.constants.shape_of(name)
    array = graph.constants[name]
    if array.dtype.kind not in "iu":
        raise GraphError(f"layer {layer.name!r}: constant {name!r} holds {array.dtype}, must hold "
                         "integers")
    return array.shape


def _wanted_shapes(layer: Layer, ins: Specs, out: TensorSpec) -> dict[str, tuple[int, ...]]:
    window, channels = layer.window, (out.channels,)
    match layer.operator:
        case Operator.CONVOLUTION:
            if ins[0].channels % window.groups or out.channels % window.groups:
                raise GraphError(f"layer {layer.name!r}: {window.groups} groups do not divide "
                                 f"{ins[0].channels} input and {out.channels} output channels")
            per_group = ins[0].channels // window.groups
            return {"weights": (out.channels, per_group, window.rows, window.columns),
                    "bias": channels, "multiplier": channels, "shift": channels}
        case Operator.AFFINE:
            return {"multiplier": channels, "offset": channels, "shift": channels}
        case Operator.ADD:
            return {"multiplier": (2,), "shift": (1,)}
        case Operator.GROUP_NORM:
            if out.channels % window.groups:
                raise GraphError(f"layer {layer.name!r}: {window.groups} groups do not divide "
                                 f"{out.channels} channels")
            return {"scale": channels, "offset": channels, "epsilon": (1,)}
        case Operator.MULTIPLY | Operator.MATMUL | Operator.REQUANTIZE | Operator.SAMPLER:
            return {"multiplier": (1,), "shift": (1,)}
        case Operator.SOFTMAX:
            return {"table": (256,)}
        case Operator.GATHER:
            return {"places": (out.elements,)}
        case Operator.DOWNSAMPLE:
            return {"weights": (window.rows, window.columns), "shift": (1,)}
        case Operator.HEAT_MAPS:
            return {"row_axis": (out.rows,), "column_axis": (out.columns,)}
        case _:
            return {}


def _verify_constants(graph: Graph, layer: Layer, ins: Specs, out: TensorSpec) -> None:
    for role in ROLES.get(layer.operator, ()):
        _shape_of(graph, layer, role)
    if layer.operator is Operator.LOOKUP:
        table = _shape_of(graph, layer, "table")
        entries = 256 if ins[0].bits == 8 else 257
        if table not in ((entries,), (out.channels, entries)):
            raise GraphError(f"layer {layer.name!r}: table has shape {table}, must be ({entries},) "
                             f"or {(out.channels, entries)}")
    if layer.operator is Operator.ROW:
        table = _shape_of(graph, layer, "table")
        if len(table) != 2 or table[0] < 1 or table[1] != out.elements:
            raise GraphError(f"layer {layer.name!r}: table has shape {table}, must be "
                             f"(rows, {out.elements})")
    for role, shape in _wanted_shapes(layer, ins, out).items():
        found = _shape_of(graph, layer, role)
        if found != shape:
            raise GraphError(f"layer {layer.name!r}: {role} has shape {found}, must be {shape}")
    if "shift" in layer.constants:
        _in_range(layer, "shift", graph.constant(layer, "shift"), 0, MAX_SHIFT)
    if "multiplier" in layer.constants:
        most = (1 << MULTIPLIER_BITS) - 1
        least = -most - 1 if layer.operator is Operator.AFFINE else 0
        _in_range(layer, "multiplier", graph.constant(layer, "multiplier"), least, most)
    if layer.operator is Operator.AVERAGE_POOL and "multiplier" not in layer.constants:
        area = layer.window.rows * layer.window.columns
        if area & (area - 1):
            raise GraphError(f"layer {layer.name!r}: a window of {area} needs a multiplier and a "
                             "shift; only a power of two does without")
    for role in OFFSETS.get(layer.operator, ()):
        if role in layer.constants:
            most, shape = {"zeros": (127, (2,)), "offset": ((1 << 31) - 1, (1,))}[role]
            if _shape_of(graph, layer, role) != shape:
                raise GraphError(f"layer {layer.name!r}: {role} must have shape {shape}")
            _in_range(layer, role, graph.constant(layer, role), -most - 1, most)
    if layer.operator is Operator.GATHER:
        _in_range(layer, "places", graph.constant(layer, "places"), -1, ins[0].elements - 1)
    if layer.operator is Operator.CONVOLUTION:
        _verify_accumulator(graph, layer, ins[0])


def _verify_accumulator(graph: Graph, layer: Layer, source: TensorSpec) -> None:
    if source.bits not in (8, 16):
        raise GraphError(f"layer {layer.name!r}: {source.name!r} has {source.bits} bits, a "
                         "convolution reads 8 or 16")
    if source.bits == 16:
        return  # 48-bit accumulator, or two passes of 8 bits
    terms = source.channels // layer.window.groups * layer.window.rows * layer.window.columns
    bias = graph.constant(layer, "bias").astype(np.int64)
    greatest = terms * (1 << 14) + int(np.abs(bias).max(initial=0))
    if greatest >= 1 << 31:
        raise GraphError(f"layer {layer.name!r}: the accumulator may reach {greatest}, must stay "
                         "below 2**31")


def _in_range(layer: Layer, role: str, values: np.ndarray, least: int, most: int) -> None:
    bad = values[(values < least) | (values > most)]
    if bad.size:
        raise GraphError(f"layer {layer.name!r}: {role} is {bad.flat[0]}, must be from {least} "
                         f"to {most}")
