"""Reads an ONNX file safely: size, external data, order, batch one, shapes, constants.

It gives operators no meaning; `onnx_import` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

from .graph import GraphError

MOST_BYTES = 512 << 20
MOST_NODES = 20_000


@dataclass(frozen=True)
class Node:
    """One ONNX node with plain attributes. Absent optional inputs are empty strings."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def attribute(self, name: str, default: Any) -> Any:
        """The attribute, or the default of the operator's specification."""
        return self.attributes.get(name, default)


@dataclass(frozen=True)
class Model:
    """An ONNX graph: nodes in order, constants by name, shapes of all tensors with batch one."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]


def read_model(path: Path) -> Model:
    """Read and check a file. `GraphError` names the file and the rule it breaks."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise GraphError(f"{path.name} cannot be read: {error.strerror}") from error
    if size > MOST_BYTES:
        raise GraphError(f"{path.name} has {size} bytes, must have at most {MOST_BYTES}")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # the parser raises several types of its own
        raise GraphError(f"{path.name} is no ONNX file: {error}") from error
    return checked_model(proto, path.name)


def checked_model(proto: onnx.ModelProto, file: str) -> Model:
    """The model of a parsed file, after the checks that need no file system."""
    graph = proto.graph
    if not graph.node:
        raise GraphError(f"{file} has no nodes")
    if len(graph.node) > MOST_NODES:
        raise GraphError(f"{file} has {len(graph.node)} nodes, must have at most {MOST_NODES}")
    external = [item.name for item in graph.initializer
                if item.data_location == TensorProto.EXTERNAL]
    if external:
        raise GraphError(f"{file} keeps {external[0]!r} in another file; save it as one file")
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    _fix_batch(graph, constants)
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    except Exception as error:
        raise GraphError(f"{file}: the shapes do not fit together: {error}") from error
    nodes = tuple(_node(item, index) for index, item in enumerate(graph.node))
    inputs = tuple(item.name for item in graph.input if item.name not in constants)
    _check_order(file, nodes, set(constants) | set(inputs))
    for node in nodes:
        if node.operator == "Constant":
            constants[node.outputs[0]] = _constant(node, file)
    shapes = {name: array.shape for name, array in constants.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = tuple(
            dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    return Model(graph.name or "model", inputs, tuple(item.name for item in graph.output),
                 nodes, constants, shapes)


def _fix_batch(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray]) -> None:
    """Give an unknown first dimension the size one."""
    for value in graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name not in constants and dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = 1
    for value in graph.output:
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = 1


def _node(item: onnx.NodeProto, index: int) -> Node:
    attributes = {part.name: onnx.helper.get_attribute_value(part) for part in item.attribute}
    return Node(item.name or f"{item.op_type.lower()}{index}", item.op_type, tuple(item.input),
                tuple(item.output), attributes)


def _constant(node: Node, file: str) -> np.ndarray:
    if "value" in node.attributes:
        return numpy_helper.to_array(node.attributes["value"])
    for key in ("value_float", "value_int", "value_floats", "value_ints"):
        if key in node.attributes:
            return np.asarray(node.attributes[key])
    raise GraphError(f"{file}: constant {node.name!r} has no numeric value")


def _check_order(file: str, nodes: tuple[Node, ...], known: set[str]) -> None:
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise GraphError(f"{file}: node {node.name!r} reads {name!r} before any node "
                                 "makes it; the graph has a cycle or is out of order")
        known.update(node.outputs)
