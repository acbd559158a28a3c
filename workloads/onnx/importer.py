"""Imports ONNX networks: static int8 (QDQ) as they are, float ones by quantizing them.

It reads no files itself (`read`) and invents no meaning: an operator it does not know is
listed with its nodes, all of them at once, and nothing is dropped.

Activations of a QDQ network are symmetric int8; uint8 with zero point 128 is the same. Another zero
point is held exactly (`shifted`) or refused; with `symmetric` its range is widened instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.fields import FieldError, made_label, shortened
from arch_models.files import read_arrays
from workloads.graph import Graph, GraphError
from workloads.onnx.cached import phased, tensors_of
from workloads.onnx.fold import FOLDED, constant_of, run_node
from workloads.onnx.operators import RULES
from workloads.onnx.patterns import with_normalizations
from workloads.onnx.read import Model, Node, Numbers, Sizes, read_file, read_model
from workloads.onnx.rules.curves import Linear
from workloads.onnx.rules.expansions import EXPANSIONS
from workloads.onnx.rules.foreign import LINEAR
from workloads.onnx.rules.recurrent import RECURRENT
from workloads.onnx.rules.stated import keep_integers, on_integers
from workloads.onnx.walk import Counted, Unsupported, View, Walk, three
from workloads.quantization.coordinates import with_wide_coordinates
from workloads.quantization.copies import with_copies, without_unread
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.parts import in_parts
from workloads.quantization.post_training import Recipe, quantized, quantized_inputs
from workloads.quantization.recurrence import with_wide_recurrences

RANDOM_INPUTS = 4
#: Nodes named with one reason in a refusal.
MOST_NAMED = 24
#: Operators of ONNX's own domain that mean something here.
KNOWN = frozenset({*RULES, *EXPANSIONS, *FOLDED, "Constant", "Shape", "Size"})


@dataclass(frozen=True)
class Imported:
    """A quantized graph, the float network behind it, and how its numbers came about.

    `views`: where each activation of the file lies in the graph's tensors. `counted`: those that
    are integers in the file. `model`: the file. `stated`: does it state scales of activations?
    `counts`: does it, or takes it them at run time, so that its own values have 8 bits?
    """

    graph: Graph
    network: FloatNetwork
    note: str
    views: Mapping[str, View]
    counted: Mapping[str, Counted]
    model: Model
    stated: bool
    counts: bool

    def entered(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs by the file's names as the graph's real inputs."""
        return entered(self.model, self.graph, given)

    def real(self, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """An activation of the file from the real values of the graph's tensors, as the file
        shapes and counts it."""
        view = self.views[name]
        flat = values[view.tensor].reshape(-1)
        flat = flat if view.function is None else view.function(flat)
        found = np.where(view.places >= 0, flat[view.places], 0)
        if name not in self.counted:
            return found
        counted = self.counted[name]
        bounds = np.iinfo(counted.kind)
        return np.clip(np.rint(found / counted.step) + counted.zero, bounds.min, bounds.max)


def import_onnx(
    path: Path, calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
    recipe: Recipe | None = None, seed: int = 0, symmetric: bool = False,
    sizes: Sizes | None = None, cached: Sequence[str] = (), values: Numbers | None = None,
) -> Imported:
    """The integer graph of an ONNX file.

    `calibration`: real inputs by name, each as the file shapes them, with or without the batch;
    without it, four seeded inputs from a standard normal distribution are used and the note says
    so. Scales and weights that the file states (QDQ) are kept; `symmetric` widens ranges with a
    zero point to symmetric ones, and the note says so. `recipe`: multiplier-and-shift scales if
    not given. `sizes`: shapes of inputs with open axes; else those of the calibration. `cached`:
    inputs that stay for a group of pictures; what follows from them alone runs once a group.
    `values`: numbers of inputs that are to be constants (a rate, a length).
    `GraphError` lists every unsupported node.
    """
    walk = walked(read_sized(path, sizes, calibration, values), symmetric, cached)
    network = with_copies(in_parts(with_wide_recurrences(with_wide_coordinates(
        without_unread(walk.network())), walk.recurrent, walk.states)))
    kept = tensors_of(cached, walk.model.inputs, network.graph.inputs, path.name)
    recipe = recipe or Recipe(power_of_two=False, correct_bias=not walk.stated)
    if calibration is None:
        calibration = random_inputs(walk.model, RANDOM_INPUTS, seed)
        origin = f"random calibration (standard normal, {RANDOM_INPUTS} inputs)"
    else:
        origin = f"calibrated with {len(calibration)} given inputs"
    shaped = [entered(walk.model, network.graph, item) for item in calibration]
    try:
        graph, network = quantized(network, shaped, recipe)
        graph = replace(graph, name=made_label(path.stem))
        graph = phased(graph, kept) if kept else graph
    except GraphError as error:
        raise GraphError(f"{path.name}: {error}") from error
    except ValueError as error:  # numbers that no scale holds
        raise GraphError(f"{path.name} cannot be quantized: {shortened(error, 200)}") from error
    note = "scales as the file states them" if walk.stated else f"float network, {origin}"
    if walk.widened:
        note += f", {walk.widened} ranges with a zero point widened to symmetric ones"
    if walk.exact:
        note += f", {walk.exact} with a zero point held exactly"
    if walk.dynamic:
        note += f", {walk.dynamic} ranges that the file takes at run time calibrated"
    views = {name: view for name, view in walk.views.items()
             if view.tensor in graph.tensors and (view.function is None or walk.added(view))}
    return Imported(graph, network, note, views, walk.counted, walk.model, walk.stated,
                    walk.stated or walk.dynamic > 0)


def read_sized(path: Path, sizes: Sizes | None,
               calibration: Sequence[Mapping[str, np.ndarray]] | None,
               values: Numbers | None = None) -> Model:
    """The model of a file; axes that it leaves open are as given, or as in the calibration."""
    if calibration is None:
        return read_model(path, sizes, values)
    try:
        return read_model(path, sizes, values)
    except GraphError:
        proto, found = read_file(path), dict(sizes or {})
        for value in proto.graph.input:
            if value.name in calibration[0]:
                shape = np.shape(calibration[0][value.name])
                missing = len(value.type.tensor_type.shape.dim) - len(shape)
                found.setdefault(value.name, (*[1] * missing, *shape))
        return read_model(path, found, values)


def random_inputs(model: Model, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Seeded inputs as the file shapes them: standard normal, or any integers of the type;
    beside them those that were given a value."""
    random = np.random.default_rng(seed)

    def drawn(name: str) -> np.ndarray:
        kind = np.dtype(model.kinds[name])
        if kind.kind == "f":
            return random.normal(0, 1, model.shapes[name]).astype(kind)
        bounds = np.iinfo(kind)
        return random.integers(bounds.min, bounds.max, model.shapes[name], kind, endpoint=True)

    return [{**{name: drawn(name) for name in model.inputs}, **model.values}
            for _ in range(count)]


def read_calibration(path: Path) -> list[dict[str, np.ndarray]]:
    """Inputs by name from an .npz file: each array has the inputs along its first axis.

    No pickles. `GraphError` names the file and what is wrong.
    """
    try:
        arrays = {name: np.asarray(array, np.float32)
                  for name, array in read_arrays(path).items()}
    except FieldError as error:
        raise GraphError(str(error)) from error
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise GraphError(f"{path.name}: arrays of {sorted(counts)} inputs; each must hold the "
                         "same number along its first axis, at least one")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise GraphError(f"{path.name}: values must be finite")
    return [{name: array[index] for name, array in arrays.items()}
            for index in range(counts.pop())]


def first_input(path: Path, graph: Graph, calibration: Path,
                sizes: Sizes | None = None, values: Numbers | None = None
                ) -> dict[str, np.ndarray]:
    """The first of the given inputs as integers of the imported graph: a real frame to run."""
    given = read_calibration(calibration)
    model = read_sized(path, sizes, given, values)
    return quantized_inputs(graph, entered(model, graph, given[0]))


def entered(model: Model, graph: Graph, item: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One set of inputs, by the file's names, as the graph names, shapes and counts them: uint8
    as what lies above 128."""
    found = {}
    unknown = set(item) - set(model.inputs) - set(model.values)
    if unknown:
        raise GraphError(f"calibration: {model.name} has no input {min(unknown)!r}; it has "
                         + ", ".join(model.inputs))
    for name, tensor in zip(model.inputs, graph.inputs, strict=True):
        if name not in item:
            raise GraphError(f"calibration: input {name!r} is missing")
        wanted, array = model.shapes[name], np.asarray(item[name], np.float32)
        batched = bool(wanted) and wanted[0] == 1
        if array.shape != wanted and not (batched and array.shape == wanted[1:]):
            raise GraphError(f"calibration: input {name!r} is {array.shape}, must be "
                             f"{wanted[1:] if batched else wanted}")
        array = array.reshape(graph.tensors[tensor].shape)
        found[tensor] = array - (128 if model.kinds[name] == "uint8" else 0)
    return found


def float_network(model: Model) -> FloatNetwork:
    """The model as a float network; `GraphError` lists every unsupported node."""
    return walked(model).network()


def walked(model: Model, symmetric: bool = False, cached: Sequence[str] = ()) -> Walk:
    """All nodes of a model, walked; `GraphError` lists every unsupported node."""
    stated = {node.outputs[0]: array for node in model.nodes if node.operator == "Constant"
              and (array := constant_of(node)) is not None}
    model = with_normalizations(
        replace(model, constants={**model.constants, **stated}), {**model.constants, **stated})
    walk = Walk(model, symmetric)
    for node in model.nodes:
        if node.operator in LINEAR:
            with suppress(Exception):  # said of the node when it is walked
                walk.expand_ahead(node, EXPANSIONS[node.operator](walk, node) or ())
    problems: dict[tuple[str, str], list[str]] = {}
    # What follows a node that failed is judged by its operator only.
    failed: set[str] = set()
    for name in model.inputs:
        try:
            _enter(walk, name)
            if name in cached:
                walk.held_from = walk.entrances[-1]
        except Unsupported as problem:
            problems.setdefault(("input", str(problem)), []).append(name)
            failed.add(name)
    for node in model.nodes:
        try:
            if failed.isdisjoint(node.reads):
                _import_node(walk, node)
            else:
                failed.update(filter(None, node.outputs))
                _check_known(node)
        except Unsupported as problem:
            problems.setdefault((node.operator, str(problem)), []).append(node.name)
            failed.update(filter(None, node.outputs))
    for node, reason in walk.problems:
        problems.setdefault((node.operator, reason), []).append(node.name)
    if not problems:
        try:
            walk.network()
        except Unsupported as problem:
            problems["output", str(problem)] = [model.name]
    if problems:
        count = sum(len(names) for names in problems.values())
        name = model.file or model.name
        raise GraphError(f"{name}: {count} nodes are not supported: " + "; ".join(
            f"{_readable(operator)} {_some(names)}: {reason}"
            for (operator, reason), names in problems.items()))
    return walk


def _some(names: Sequence[str]) -> str:
    """Nodes by name; of very many the first ones."""
    more = len(names) - MOST_NAMED
    return ", ".join(map(repr, names[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _readable(operator: str) -> str:
    """An operator with its domain behind it."""
    domain, _, name = operator.rpartition(":")
    return f"{name} ({domain})" if domain else name


def _check_known(node: Node) -> None:
    if node.operator in ("Loop", "Scan", "SequenceMap"):
        raise Unsupported("loops are not imported; export with the steps written out")
    if node.operator not in KNOWN:
        if node.operator.startswith("ai.onnx.ml:"):
            raise Unsupported("no trees, lists of classes or scalers of features are imported; cut "
                              "them off (onnx.utils.extract_model) and let the caller do it")
        foreign = ":" in node.operator
        raise Unsupported("no such operator here; " + (
            "export with operators of ONNX's own domain, a quantized network with QuantizeLinear "
            "and DequantizeLinear (QCDQ, QuantFormat.QDQ)" if foreign else
            "export it as simpler ones, or cut it off (onnx.utils.extract_model) and let the "
            "caller do it"))


def _enter(walk: Walk, name: str) -> None:
    """An input of the file; integers count by one."""
    shape, kind = walk.model.shapes[name], walk.model.kinds[name]
    tensor = walk.declare(walk.fresh(name), three(shape))
    walk.entrances.append(tensor)
    walk.views[name] = View(tensor, shape, None, Linear(1.0, 128.0) if kind == "uint8" else None)
    if not kind.startswith("float"):
        walk.fixed[tensor] = 1.0
        walk.integers[name] = Counted(1.0, 0, np.dtype(kind))


def _import_node(walk: Walk, node: Node) -> None:
    """A constant is computed, anything else becomes layers and views."""
    if node.operator == "Constant":
        value = constant_of(node)
        if value is None:
            raise Unsupported("the value must be a number")
        walk.constants[node.outputs[0]] = value
        return
    if node.operator in ("Shape", "Size"):
        known = walk.views.get(node.inputs[0])
        shape = known.shape if known is not None else walk.constant(node.inputs[0]).shape
        ends = slice(node.attribute("start", 0), node.attribute("end", None))
        found = np.array(shape[ends] if node.operator == "Shape" else np.prod(shape), np.int64)
        walk.constants[node.outputs[0]] = found
        return
    if node.operator in FOLDED and all(not name or name in walk.constants for name in node.inputs):
        try:
            outputs = run_node(node, [walk.constants.get(name) for name in node.inputs])
        except ValueError as error:
            raise Unsupported(str(error)) from error
        walk.constants.update(zip(node.outputs, outputs, strict=True))
        return
    _check_known(node)
    if node.operator not in RULES and node.operator not in EXPANSIONS:
        raise Unsupported("is computed from constants and shapes alone, not from activations; cut "
                          "it off (onnx.utils.extract_model) and let the caller do it")
    for name in node.inputs:
        held = walk.constants.get(name)
        if held is None or held.dtype.kind != "f":
            continue
        if np.isnan(held).any() or (
                np.isposinf(held).any() and node.operator not in ("Clip", "Min", "Max", "Where")):
            raise Unsupported(f"{name!r} holds NaN or infinity; export the weights anew")
    try:
        steps = walk.ahead(node)
        if steps is None:
            steps = EXPANSIONS[node.operator](walk, node) if node.operator in EXPANSIONS else None
            walk.expand(steps or ())
        if steps is not None:
            _import_steps(walk, node, steps)
            keep_integers(walk, node)
            return
        rule = RULES[node.operator]
        if node.operator != "DequantizeLinear" and not walk.counted.keys().isdisjoint(node.inputs):
            on_integers(walk, node, rule)
        else:
            rule(walk, node)
            keep_integers(walk, node)
    except Unsupported:
        raise
    except Exception as error:  # attributes and constants of a file may be anything
        reason = " ".join(str(error).split())[:200]
        raise Unsupported(f"not read in this form ({type(error).__name__}: {reason})") from error


def _import_steps(walk: Walk, node: Node, steps: Sequence[Node]) -> None:
    """The nodes that stand for one of the file's; what cannot be kept of them is said of it."""
    before, known = len(walk.problems), set(walk.tensors)
    try:
        for step in steps:
            _import_node(walk, step)
        if node.operator in RECURRENT:
            walk.recurrent.update(walk.tensors.keys() - known)
            walk.states.update(walk.views[name].tensor for name in node.inputs[5:7]
                               if name in walk.views)
    finally:
        reasons = dict.fromkeys(reason for _, reason in walk.problems[before:])
        walk.problems[before:] = [(node, reason) for reason in reasons]
