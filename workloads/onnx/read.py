"""Reads an ONNX file safely: size, outside data, versions, order, batch one, shapes.

It gives operators no meaning; `onnx_import` does. Constants are computed by `onnx_fold`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper, shape_inference

from arch_models.fields import FieldError
from arch_models.files import read_bytes
from workloads.graph import GraphError

MOST_BYTES = 512 << 20
MOST_NODES = 20_000
#: Operators of the default domain that compute with integers.
INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
                     "DynamicQuantizeLinear"})
#: Operator sets of the default domain; later ones than the installed package knows are refused.
OLDEST_OPSET = 9
NEWEST_OPSET = onnx.defs.onnx_opset_version()


@dataclass(frozen=True)
class Node:
    """One ONNX node with plain attributes. Absent optional inputs are empty strings.

    An operator of another domain than ONNX's own carries the domain before a colon.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto

    def attribute(self, name: str, default: Any) -> Any:
        """The attribute, or the default of the operator's specification."""
        return self.attributes.get(name, default)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)


@dataclass(frozen=True)
class Model:
    """An ONNX graph: nodes in order, constants by name, shapes of all known tensors with batch
    one, and the version of the operator set."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    opset: int
    file: str = ""


def read_model(path: Path) -> Model:
    """Read and check a file. `GraphError` names the file and the rule it breaks."""
    try:
        return checked_model(read_file(path), path.name)
    except GraphError:
        raise
    except Exception as error:  # the parser lets names through that are no text, and the like
        raise GraphError(f"{path.name} is damaged: {_line(error)}") from error


def read_file(path: Path) -> onnx.ModelProto:
    """The parsed file with its outside data, which must lie in the same folder."""
    try:
        raw = read_bytes(path, MOST_BYTES)
    except FieldError as error:
        raise GraphError(str(error)) from error
    try:
        proto = onnx.load_model_from_string(raw)
    except Exception as error:  # the parser raises several types of its own
        raise GraphError(f"{path.name} is no ONNX file, or is cut off: {_line(error)}") from error
    _load_outside(proto, path)
    return proto


def checked_model(proto: onnx.ModelProto, file: str) -> Model:
    """The model of a parsed file, after the checks that need no file system."""
    proto = _plain(proto, file)
    graph = proto.graph
    constants = {item.name: _array(item, file) for item in graph.initializer}
    _fix_batch(graph, constants, file)
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    except Exception as error:
        foreign = _foreign(graph)
        if foreign:
            raise GraphError(f"{file}: {len(foreign)} nodes are not supported: "
                             + ", ".join(foreign) + ": no such operator here; export with "
                             "QuantizeLinear and DequantizeLinear (QCDQ, QuantFormat.QDQ), or "
                             "with operators of the default domain") from error
        raise GraphError(f"{file}: the shapes do not fit together: {_line(error)}") from error
    nodes = tuple(_node(item, index) for index, item in enumerate(graph.node))
    inputs = tuple(item.name for item in graph.input if item.name not in constants)
    _check_order(file, nodes, set(constants) | set(inputs))
    shapes = {name: array.shape for name, array in constants.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dimensions = [item.dim_value for item in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.HasField("shape") and min(dimensions, default=1) > 0:
            shapes[value.name] = tuple(dimensions)
    return Model(graph.name or "model", inputs, tuple(item.name for item in graph.output),
                 nodes, constants, shapes, _opset(proto, file), file)


def _foreign(graph: onnx.GraphProto) -> list[str]:
    """Operators of other domains and those that take integers, which shapes may hang on."""
    nodes = [(item, _node(item, index)) for index, item in enumerate(graph.node)]
    return [f"{item.op_type}{f' ({item.domain})' if item.domain else ''} {node.name!r}"
            for item, node in nodes if ":" in node.operator or node.operator in INTEGER]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in (*proto.graph.node, *(node for item in proto.functions for node in item.node)):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _load_outside(proto: onnx.ModelProto, path: Path) -> None:
    """Read tensors kept in other files, each a plain file beside the model."""
    folder, total = path.resolve().parent, path.stat().st_size
    for tensor in _tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        place = entries.get("location", "")
        data = folder / place
        if Path(place).name != place or data.is_symlink() or not data.is_file():
            raise GraphError(f"{path.name} keeps {tensor.name!r} in {place!r}, must be a file in "
                             "the same folder, or the model saved as one file")
        size = data.stat().st_size
        try:
            begin, count = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError as error:
            raise GraphError(f"{path.name}: place of {tensor.name!r}: {error}") from error
        total += count
        if begin < 0 or count < 0 or begin + count > size or total > MOST_BYTES:
            raise GraphError(f"{path.name}: {tensor.name!r} has {count} bytes from {begin} on in "
                             f"{place!r} of {size} bytes; all data must be at most {MOST_BYTES}")
        with data.open("rb") as file:
            file.seek(begin)
            tensor.raw_data = file.read(count)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _plain(proto: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """The model without local functions; refused if it is no plain graph of tensors."""
    if not proto.graph.node:
        raise GraphError(f"{file} has no nodes")
    _opset(proto, file)
    outside = [item.name for item in _tensors(proto)
               if item.data_location == TensorProto.EXTERNAL]
    if outside:
        raise GraphError(f"{file} keeps {outside[0]!r} in another file; save it as one file")
    if proto.graph.sparse_initializer:
        raise GraphError(f"{file} has sparse constants; save them dense")
    if proto.functions:
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except Exception as error:
            raise GraphError(f"{file}: its functions cannot be inlined: {_line(error)}") from error
    if len(proto.graph.node) > MOST_NODES:
        raise GraphError(f"{file} has {len(proto.graph.node)} nodes, must have at most "
                         f"{MOST_NODES}")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _opset(proto: onnx.ModelProto, file: str) -> int:
    version = next((item.version for item in proto.opset_import
                    if item.domain in ("", "ai.onnx")), 0)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise GraphError(f"{file} uses operator set {version}, must be from {OLDEST_OPSET} to "
                         f"{NEWEST_OPSET}; onnx.version_converter or another export changes it")
    return int(version)


def _array(item: TensorProto, file: str) -> np.ndarray:
    try:
        return numpy_helper.to_array(item)
    except Exception as error:
        raise GraphError(f"{file}: constant {item.name!r} is damaged: {_line(error)}") from error


def _fix_batch(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray], file: str) -> None:
    """Give an unknown first dimension the size one; outputs follow from the inputs."""
    for value in graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        if kind.elem_type != TensorProto.FLOAT:
            raise GraphError(f"{file}: input {value.name!r} must be float32")
        dimensions = kind.shape.dim
        if not dimensions:
            raise GraphError(f"{file}: input {value.name!r} has no shape; export with fixed sizes")
        if not dimensions[0].dim_value:
            dimensions[0].dim_value = 1
        for axis, item in enumerate(dimensions):
            if item.dim_value < 1:
                raise GraphError(f"{file}: input {value.name!r} has no fixed size along axis "
                                 f"{axis} ({item.dim_param or 'unnamed'}); export with fixed sizes")
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _node(item: onnx.NodeProto, index: int) -> Node:
    attributes = {part.name: onnx.helper.get_attribute_value(part) for part in item.attribute}
    domain = "" if item.domain in ("", "ai.onnx") else f"{item.domain}:"
    return Node(item.name or f"{item.op_type.lower()}{index}", domain + item.op_type,
                tuple(item.input), tuple(item.output), attributes, item)


def _check_order(file: str, nodes: tuple[Node, ...], known: set[str]) -> None:
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise GraphError(f"{file}: node {node.name!r} reads {name!r} before any node "
                                 "makes it; the graph has a cycle or is out of order")
        again = known.intersection(name for name in node.outputs if name)
        if again:
            raise GraphError(f"{file}: node {node.name!r} makes {min(again)!r} a second time")
        known.update(node.outputs)
