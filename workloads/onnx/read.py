"""Reads an ONNX file safely: size, outside data, versions, order, sizes of the inputs.

It gives operators no meaning; the walk does. Constants are computed by `fold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import TensorProto, numpy_helper

from arch_models.fields import FieldError
from arch_models.files import read_bytes
from workloads.graph import GraphError

MOST_BYTES = 512 << 20
MOST_NODES = 20_000
#: Types of inputs, by ONNX's number. Floats of any width are real numbers here.
KINDS: Mapping[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16",
         TensorProto.DOUBLE: "float64", TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}
#: Operator sets of the default domain; later ones than the installed package knows are refused.
OLDEST_OPSET = 6
#: Older ones are converted to this one, by the package of ONNX itself.
LEAST_RULES = 9
NEWEST_OPSET = onnx.defs.onnx_opset_version()


Sizes = Mapping[str, Sequence[int]]
#: Numbers that inputs of the file are given once and for all.
Numbers = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Node:
    """One ONNX node with plain attributes. Absent optional inputs are empty strings.

    An operator of another domain than ONNX's own carries the domain before a colon. `opset`: the
    operator set whose rules it follows.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto
    opset: int

    def attribute(self, name: str, default: Any) -> Any:
        """The attribute, or the default of the operator's specification."""
        return self.attributes.get(name, default)

    @property
    def reads(self) -> tuple[str, ...]:
        """All that the node reads: its inputs, and what graphs inside it take from around them."""
        inner = [name for graph in graphs_of(self.proto) for name in _mentioned(graph)]
        return (*filter(None, self.inputs), *inner)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)


@dataclass(frozen=True)
class Model:
    """An ONNX graph: nodes in order, constants by name, the shape and the type of each input, and
    the version of the operator set. `values`: inputs of the file that were given a value and are
    constants here."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]
    opset: int
    file: str = ""
    values: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_model(path: Path, sizes: Sizes | None = None, values: Numbers | None = None) -> Model:
    """Read and check a file. `GraphError` names the file and the rule it breaks.

    `sizes`: whole shapes of inputs, for axes that the file leaves open. `values`: numbers of
    inputs that are to be constants.
    """
    try:
        return checked_model(read_file(path), path.name, sizes, values)
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


def has_halves(model: onnx.ModelProto) -> bool:
    """Does a file hold or make numbers of 16 bits?"""
    kinds = {item.data_type for item in model.graph.initializer}
    kinds |= {item.type.tensor_type.elem_type for item in (*model.graph.input, *model.graph.output)}
    kinds |= {part.i for node in model.graph.node if node.op_type == "Cast"
              for part in node.attribute}
    return not kinds.isdisjoint({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def checked_model(proto: onnx.ModelProto, file: str, sizes: Sizes | None = None,
                  values: Numbers | None = None) -> Model:
    """The model of a parsed file, after the checks that need no file system."""
    proto = _plain(proto, file)
    graph = proto.graph
    constants = {item.name: _array(item, file) for item in graph.initializer}
    opset = _opset(proto, file)
    nodes = tuple(node_of(item, index, opset) for index, item in enumerate(graph.node))
    entering = [item for item in graph.input if item.name not in constants]
    _check_named(file, entering, values or {}, "value")
    held = {item.name: _held(item, values[item.name], file) for item in entering
            if values and item.name in values}
    constants.update(held)
    entering = [item for item in entering if item.name not in held]
    inputs = tuple(item.name for item in entering)
    if not inputs:
        raise GraphError(f"{file} has no inputs: what constants alone make needs no network")
    _check_counts(file, nodes)
    _check_order(file, nodes, set(constants) | set(inputs))
    kinds = {item.name: _kind(item, file) for item in entering}
    return Model(graph.name or "model", inputs, tuple(item.name for item in graph.output),
                 nodes, constants, _shapes(entering, sizes or {}, file),
                 kinds, opset, file, held)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: branches and bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _mentioned(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a graph and those inside it read, their own and those from around them."""
    for node in graph.node:
        yield from filter(None, node.input)
        for inner in graphs_of(node):
            yield from _mentioned(inner)
    yield from (value.name for value in graph.output)


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from _tensors_of(proto.graph.node, proto.graph.initializer)
    for function in proto.functions:
        yield from _tensors_of(function.node, ())


def _tensors_of(nodes: Iterable[onnx.NodeProto],
                constants: Iterable[TensorProto]) -> Iterator[TensorProto]:
    yield from constants
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
        for graph in graphs_of(node):
            yield from _tensors_of(graph.node, graph.initializer)


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
    if _opset(proto, file) < LEAST_RULES:
        return _converted(proto, file)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _converted(proto: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """The model with the rules of a later operator set, which broadcast as numpy does."""
    try:
        return onnx.version_converter.convert_version(proto, LEAST_RULES)
    except Exception as error:  # the converter raises RuntimeError and others
        raise GraphError(f"{file} uses operator set {_opset(proto, file)}, which the package onnx "
                         f"does not bring to {LEAST_RULES}; export anew: {_line(error)}") from error


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


def _kind(value: onnx.ValueInfoProto, file: str) -> str:
    kind = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or kind not in KINDS:
        said = TensorProto.DataType.Name(kind).lower() if kind else "no tensor"
        raise GraphError(f"{file}: input {value.name!r} must be {', '.join(KINDS.values())}, is "
                         f"{said}; " + (
                             f"one that never changes (a rate, a length) becomes a constant with "
                             f"--value {value.name}=NUMBER" + (
                                 "; tokens are looked up before the network: give it what the "
                                 "table holds" if value.type.tensor_type.shape.dim else "")
                             if said.startswith(("int", "bool")) else "export it as float32"))
    return KINDS[kind]


def _held(value: onnx.ValueInfoProto, numbers: Sequence[float], file: str) -> np.ndarray:
    """The constant that an input becomes: as many numbers as it has, or one for all of them."""
    kind = value.type.tensor_type.elem_type
    try:
        array = np.array(numbers).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(f"{file}: input {value.name!r} takes no numbers") from error
    axes = value.type.tensor_type.shape.dim
    shape = tuple(axis.dim_value or 1 for axis in axes)
    if array.size == 1:
        return np.broadcast_to(array.reshape(-1)[0], shape).copy()
    if len(axes) == 1 and not axes[0].dim_value:
        return array
    if array.size != np.prod(shape):
        raise GraphError(f"{file}: input {value.name!r} has {np.prod(shape)} numbers, given are "
                         f"{array.size}")
    return array.reshape(shape)


def _check_named(file: str, values: Sequence[onnx.ValueInfoProto], given: Mapping[str, object],
                 what: str) -> None:
    """Refuse what was given for an input that the file does not have."""
    unknown = set(given) - {value.name for value in values}
    if unknown:
        raise GraphError(f"{file} has no input {min(unknown)!r} to give a {what} to; it has "
                         + ", ".join(value.name for value in values))


def _shapes(values: Sequence[onnx.ValueInfoProto], sizes: Sizes,
            file: str) -> dict[str, tuple[int, ...]]:
    """The shape of each input. An open first axis is a batch of one; other open axes take the
    size that was given for them, or for an axis of the same name."""
    _check_named(file, values, sizes, "shape")
    named: dict[str, int] = {}
    for value in values:
        if not value.type.tensor_type.HasField("shape"):
            if value.name not in sizes:
                raise GraphError(f"{file}: input {value.name!r} has no shape; give --shape "
                                 f"{value.name}=1,..., or export with fixed sizes")
            continue
        axes = value.type.tensor_type.shape.dim
        wanted = sizes.get(value.name)
        if wanted is not None and len(wanted) != len(axes):
            raise GraphError(f"{file}: input {value.name!r} has {len(axes)} axes, the shape given "
                             f"for it {len(wanted)}")
        for axis, size in zip(axes, wanted or (), strict=bool(wanted)):
            named.setdefault(axis.dim_param, size)
    named.pop("", None)
    return {value.name: _shape(value, sizes.get(value.name), named, file) for value in values}


def _shape(value: onnx.ValueInfoProto, wanted: Sequence[int] | None, named: Mapping[str, int],
           file: str) -> tuple[int, ...]:
    """One input's shape."""
    if not value.type.tensor_type.HasField("shape"):
        return tuple(wanted or ())
    found = []
    for index, axis in enumerate(value.type.tensor_type.shape.dim):
        given = wanted[index] if wanted is not None else named.get(axis.dim_param)
        if axis.HasField("dim_value") and axis.dim_value >= 0:
            if axis.dim_value == 0:
                raise GraphError(f"{file}: input {value.name!r} has no elements: axis {index} is 0")
            if wanted is not None and given != axis.dim_value:
                raise GraphError(f"{file}: input {value.name!r} has {axis.dim_value} along axis "
                                 f"{index}, given is {given}; only open axes take another size")
            given = axis.dim_value
        if given is None and index == 0:
            given = 1
        if given is None or given < 1:
            shape = ",".join(str(item.dim_value) if item.dim_value > 0 else
                             item.dim_param or "?" for item in value.type.tensor_type.shape.dim)
            raise GraphError(f"{file}: input {value.name!r} has no fixed size along axis {index} "
                             f"({axis.dim_param or 'unnamed'}); give --shape "
                             f"{value.name}={shape} with numbers, or a --calibration of that size")
        found.append(int(given))
    return tuple(found)


def made_node(operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "",
              **attributes: Any) -> Node:
    """A node of the newest operator set, as one of several that stand for a node of the file."""
    proto = onnx.helper.make_node(operator, inputs, outputs, name=name, **attributes)
    return node_of(proto, 0, NEWEST_OPSET)


def node_of(item: onnx.NodeProto, index: int, opset: int) -> Node:
    """A parsed node; one without a name gets its operator and place as one."""
    attributes = {part.name: onnx.helper.get_attribute_value(part) for part in item.attribute}
    domain = "" if item.domain in ("", "ai.onnx") else f"{item.domain}:"
    return Node(item.name or f"{item.op_type.lower()}{index}", domain + item.op_type,
                tuple(item.input), tuple(item.output), attributes, item, opset)


def _check_counts(file: str, nodes: tuple[Node, ...]) -> None:
    """Has each node of ONNX's own domain the inputs and outputs that its operator needs?"""
    for node in nodes:
        try:
            schema = onnx.defs.get_schema(node.operator, node.opset)
        except onnx.defs.SchemaError:  # of another domain, or none at all: the walk says so
            continue
        for kind, names, least in (("inputs", node.inputs, schema.min_input),
                                   ("outputs", node.outputs, schema.min_output)):
            if len(names) < least:
                raise GraphError(f"{file}: {node.operator} {node.name!r} has {len(names)} {kind}, "
                                 f"must have at least {least}")


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
