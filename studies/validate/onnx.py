"""Compares the integer reference with onnxruntime on a static int8 network, layer by layer.

It imports and quantizes nothing itself and judges no float network: those have no integers to
compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from studies.plain.errors import UserError
from studies.plain.files import write_json
from studies.plain.terminal import terminal
from workloads.graph import Layer
from workloads.onnx.importer import Imported, import_onnx, random_inputs
from workloads.onnx.read import read_file
from workloads.quantization.float_network import execute_real_layer
from workloads.reference import execute_layer

#: What is asked of a network: this share of its values within one step.
WANTED_SHARE = 0.999
#: A value counts as near a half if it is so many steps or less from where rounding turns.
NEAR_HALF_STEPS = 0.02


@dataclass(frozen=True)
class Agreement:
    """One layer: how many values agree, are one step apart, are further apart, and how many of
    those that differ lie near a half before rounding. Layers whose output the file does not
    state are part of the next one: `behind` names them."""

    layer: str
    operator: str
    values: int
    equal: int
    one_step: int
    further: int
    near_half: int
    behind: tuple[str, ...]


def agreement(path: Path, seed: int = 0) -> list[Agreement]:
    """Compare each layer on the same inputs: those that onnxruntime computed.

    `seed`: standard normal network inputs. `UserError` if the file states no integers.
    """
    imported = import_onnx(path)
    graph = imported.graph
    inputs = random_inputs(imported.model, 1, seed)[0]
    stated = _stated(path, imported, inputs)
    values = dict(stated)
    found, behind = [], []
    for layer in graph.layers:
        missing = [name for name in layer.inputs if name not in values]
        if missing:
            raise UserError(f"{path.name}: {missing[0]!r} is not quantized where it enters; "
                            "quantize the whole network")
        sources = [values[name] for name in layer.inputs]
        output = execute_layer(graph, layer, sources)
        if layer.output not in stated:
            values[layer.output] = output
            behind.append(layer.operator.value)
            continue
        wanted = stated[layer.output]
        if layer.relu:  # where the runtime quantizes before a ReLU that is fused here
            wanted = values[layer.output] = np.maximum(wanted, 0)
        found.append(_agreement(imported, layer, sources, output, wanted, tuple(behind)))
        behind = []
    return found


def _agreement(imported: Imported, layer: Layer, sources: list[np.ndarray], output: np.ndarray,
               wanted: np.ndarray, behind: tuple[str, ...]) -> Agreement:
    steps = np.abs(output.astype(int) - wanted.astype(int))
    differs, near = steps > 0, 0
    if differs.any():
        graph = imported.graph
        real = [value * np.float32(graph.tensors[name].scale)
                for value, name in zip(sources, layer.inputs, strict=True)]
        exact = execute_real_layer(imported.network, layer, real) / graph.tensors[
            layer.output].scale
        near = int((np.abs(exact - np.floor(exact) - 0.5) <= NEAR_HALF_STEPS)[differs].sum())
    return Agreement(layer.name, layer.operator.value, steps.size, int((steps == 0).sum()),
                     int((steps == 1).sum()), int((steps > 1).sum()), near, behind)


def _stated(path: Path, imported: Imported, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The integers that onnxruntime computes, as tensors of the graph.

    Of two that are one tensor here, before and behind a fused ReLU, the later one counts.
    """
    import onnx
    import onnxruntime

    model = read_file(path)
    names = [node.output[0] for node in model.graph.node
             if node.op_type == "QuantizeLinear" and node.output[0] in imported.views]
    if not names:
        raise UserError(f"{path.name} states no integers (no QuantizeLinear of an activation); "
                        "give a static int8 network in quantize-dequantize form")
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Each operator by itself: fused kernels round less often than the file says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: dict[str, np.ndarray] = {}
    for name, array in zip(names, session.run(names, inputs), strict=True):
        view = imported.views[name]
        spec = imported.graph.tensors[view.tensor]
        counted = array.astype(int) - (128 if array.dtype == np.uint8 else 0)
        flat = np.full(spec.elements, 1 << 16)
        inside = view.places.reshape(-1) >= 0
        flat[view.places.reshape(-1)[inside]] = counted.reshape(-1)[inside]
        if (flat < 1 << 16).all():  # a slice alone does not say what the tensor is
            found[view.tensor] = flat.astype(np.int8).reshape(spec.shape)
    return found


def share_within_one(found: list[Agreement]) -> float:
    """Share of all values that are at most one step apart."""
    values = sum(item.values for item in found)
    return 1 - sum(item.further for item in found) / max(values, 1)


def by_operator(found: list[Agreement]) -> dict[str, dict[str, int]]:
    """Sums of the layers of each operator."""
    sums: dict[str, dict[str, int]] = {}
    for item in found:
        own = sums.setdefault(item.operator, dict.fromkeys(
            ("layers", "values", "equal", "one_step", "further", "near_half"), 0))
        own["layers"] += 1
        for key in ("values", "equal", "one_step", "further", "near_half"):
            own[key] += getattr(item, key)
    return sums


def run(path: Path, seed: int = 0, json: Path | None = None) -> int:
    """Print the comparison; 0 if enough values agree, else 1."""
    found = agreement(path, seed)
    share = share_within_one(found)
    console = terminal()
    table = Table(title=f"{path.name}: reference against onnxruntime, layer by layer")
    for name in ("operator", "layers", "values", "equal, %", "one step", "further",
                 f"within {NEAR_HALF_STEPS} of a half"):
        table.add_column(name, justify="left" if name == "operator" else "right")
    for operator, own in by_operator(found).items():
        table.add_row(operator, str(own["layers"]), str(own["values"]),
                      f"{100 * own['equal'] / own['values']:.4f}", str(own["one_step"]),
                      str(own["further"]), str(own["near_half"]))
    if json is not None:
        document: dict[str, Any] = {
            "file": path.name, "share_within_one_step": share, "operators": by_operator(found),
            "layers": [vars(item) for item in found]}
        write_json(json, document)
    console.print(table)
    console.print(f"{100 * share:.4f} % of the values within one step, {100 * WANTED_SHARE} wanted")
    return 0 if share >= WANTED_SHARE else 1
