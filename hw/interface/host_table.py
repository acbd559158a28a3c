"""The table of layers that run on the ARM, as bytes that `hls/host.cpp` reads.

It runs nothing and places nothing; tensors come with the addresses that the lowering gave them.

Little-endian int32 throughout. Header: magic, version, number of records, 0. Then one record of
64 words a layer, then a blob of constants and channel places; offsets count bytes from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cosim.lowering.placement import TensorPlace
from workloads.graph import Graph, GraphError, Layer, Operator
from workloads.reference import fraction_bits_of, pool_scale, zeros_of

MAGIC = 0x54534F48  # "HOST"
VERSION = 4
RECORD_WORDS = 64
#: Numbers of the operators in the C++ table; 0 does nothing (a start of the fabric).
OPERATOR_NUMBERS: Mapping[Operator, int] = {operator: index + 1 for index, operator in enumerate((
    Operator.CONVOLUTION, Operator.UPSAMPLE, Operator.AVERAGE_POOL, Operator.DOWNSAMPLE,
    Operator.MAX_POOL, Operator.ADD, Operator.MULTIPLY, Operator.AFFINE, Operator.LOOKUP,
    Operator.SOFTMAX, Operator.GRID_SAMPLE, Operator.CONCAT, Operator.DISPLACEMENTS,
    Operator.HEAT_MAPS, Operator.SPARSE_FLOW, Operator.FLOW_SUM, Operator.MATMUL,
    Operator.TRANSPOSE, Operator.RESHAPE, Operator.REQUANTIZE, Operator.SAMPLER,
    Operator.GROUP_NORM, Operator.ROW, Operator.GATHER))}
MAX_INPUTS = 3
_ROLES = ("weights", "bias", "multiplier", "offset", "shift", "table", "row_axis", "column_axis")


@dataclass
class _Blob:
    """Bytes behind the records; equal arrays are stored once."""

    start: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    known: dict[bytes, int] = field(default_factory=dict)

    def add(self, data: bytes) -> int:
        if data not in self.known:
            self.known[data] = self.start + self.size
            padded = data + bytes(-len(data) % 4)
            self.parts.append(padded)
            self.size += len(padded)
        return self.known[data]


def host_table(graph: Graph, layers: Mapping[int, Layer | None],
               places: Mapping[str, TensorPlace]) -> bytes:
    """The table for host layers by their number in the program; None makes a layer a no-op.

    `places`: every tensor these layers read or write. `GraphError` for an operator without a
    host program.
    """
    blob = _Blob(16 + 4 * RECORD_WORDS * len(layers))
    records = np.zeros((len(layers), RECORD_WORDS), "<i4")
    for record, (number, layer) in zip(records, sorted(layers.items()), strict=True):
        record[0] = number
        if layer is not None:
            _fill(record, graph, layer, places, blob)
    header = np.array([MAGIC, VERSION, len(layers), 0], "<i4")
    return header.tobytes() + records.tobytes() + b"".join(blob.parts)


def _fill(record: np.ndarray, graph: Graph, layer: Layer, places: Mapping[str, TensorPlace],
          blob: _Blob) -> None:
    if layer.operator not in OPERATOR_NUMBERS:
        raise GraphError(f"layer {layer.name!r}: {layer.operator.value} has no program for the "
                         "host")
    window = layer.window
    record[1:9] = (OPERATOR_NUMBERS[layer.operator], layer.relu, layer.fraction_bits,
                   window.rows, window.columns, window.stride, window.padding, window.groups)
    record[9:12] = _scale(graph, layer)
    record[62] = window.pad_value
    if layer.operator is Operator.MULTIPLY:
        record[60:62] = zeros_of(graph, layer)
    if layer.operator is Operator.GROUP_NORM:
        epsilon = int(graph.constant(layer, "epsilon")[0])
        record[60:62] = np.array([epsilon], "<i8").view("<i4")
    for index, role in enumerate(_ROLES):
        role = "scale" if role == "multiplier" and "scale" in layer.constants else role
        role = "places" if role == "table" and "places" in layer.constants else role
        if role in layer.constants:
            array = graph.constant(layer, role)
            wide = array.astype("i1" if role == "weights" and array.dtype == np.int8 else "<i4")
            record[12 + 2 * index] = blob.add(np.ascontiguousarray(wide).tobytes())
            record[13 + 2 * index] = wide.size
    if len(layer.inputs) > MAX_INPUTS:
        raise GraphError(f"layer {layer.name!r}: {len(layer.inputs)} inputs, the host takes "
                         f"{MAX_INPUTS}")
    unused = [""] * (MAX_INPUTS - len(layer.inputs))
    for index, name in enumerate((*layer.inputs, *unused, layer.output)):
        if not name:
            continue
        place = places[name]
        offset = 28 + 8 * index
        record[offset : offset + 6] = (
            place.address, place.channels, place.rows, place.columns, place.bits,
            blob.add(np.array(place.places, "<i4").tobytes()))


def _scale(graph: Graph, layer: Layer) -> tuple[int, int, int]:
    """Two scalars and a shift, where the operator has them."""
    if layer.operator is Operator.AVERAGE_POOL:
        multiplier, shift = pool_scale(graph, layer)
        return multiplier, 0, shift
    if layer.operator is Operator.DOWNSAMPLE:
        return 1, 0, int(graph.constant(layer, "shift")[0])
    if layer.operator is Operator.ADD:
        first, second = (int(value) for value in graph.constant(layer, "multiplier"))
        return first, second, int(graph.constant(layer, "shift")[0])
    if layer.operator is Operator.GROUP_NORM and len(layer.inputs) == 3:
        first, second = (int(value) for value in graph.constant(layer, "film"))
        return first, second, 0
    if layer.operator in (Operator.MULTIPLY, Operator.MATMUL, Operator.REQUANTIZE,
                          Operator.SAMPLER):
        return (int(graph.constant(layer, "multiplier")[0]), 0,
                int(graph.constant(layer, "shift")[0]))
    if layer.operator is Operator.SOFTMAX:
        return fraction_bits_of(graph.tensors[layer.output]), 0, 0
    if layer.operator is Operator.DISPLACEMENTS:
        grid = next(graph.tensors[other.output] for other in graph.layers
                    if layer.output in other.inputs)
        return grid.rows, grid.columns, 0
    return 0, 0, 0
