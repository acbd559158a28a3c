"""Compares the integer reference with onnxruntime on a static int8 network, layer by layer.

It imports and quantizes nothing itself and judges no float network: those have no integers of
their own; `outputs` compares those of any file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.plain.errors import UserError
from studies.validate.onnx.outputs import run_model
from workloads.arithmetic import integer_type
from workloads.graph import Layer
from workloads.onnx.importer import Imported, random_inputs
from workloads.onnx.read import read_file
from workloads.quantization.float_network import execute_real_layer
from workloads.quantization.post_training import quantized_inputs
from workloads.reference import execute_layer

#: What is asked of a network: this share of its values within one step.
WANTED_SHARE = 0.999
#: Steps that differ by less are one step, once rounded to float32 and once not.
SAME_STEP = 1e-5
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


def agreement(imported: Imported, path: Path, seed: int = 0) -> list[Agreement]:
    """Compare each layer on the same inputs: those that onnxruntime computed. What reads a range
    that was widened has other inputs, so it is not compared.

    `seed`: of the random network inputs. `UserError` if the file states no integers.
    """
    graph = imported.graph
    inputs = random_inputs(imported.model, 1, seed)[0]
    stated, apart = _stated(path, imported, inputs)
    entered = quantized_inputs(graph, imported.entered(inputs))
    values = {name: array for name, array in entered.items()
              if name in imported.network.fixed_scales} | stated
    found, behind = [], []
    for layer in graph.layers:
        missing = [name for name in layer.inputs if name not in values]
        if missing:
            raise UserError(f"{path.name}: {missing[0]!r} is not quantized where it enters; "
                            "quantize the whole network")
        sources = [values[name] for name in layer.inputs]
        output = execute_layer(graph, layer, sources)
        if not apart.isdisjoint(layer.inputs):
            if layer.output not in stated:
                apart.add(layer.output)
            values[layer.output] = stated.get(layer.output, output)
            continue
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


def _stated(path: Path, imported: Imported, inputs: dict[str, np.ndarray]
            ) -> tuple[dict[str, np.ndarray], set[str]]:
    """The integers that onnxruntime computes, as tensors of the graph, and the tensors whose ranges
    were widened: those count in other steps, and the outputs alone say what that costs.

    Of two that are one tensor here, before and behind a fused ReLU, the later one counts.
    """
    import onnx

    model = read_file(path)
    names = [node.output[0] for node in model.graph.node
             if node.op_type == "QuantizeLinear" and node.output[0] in imported.views]
    if not names:
        raise UserError(f"{path.name} states no integers (no QuantizeLinear of an activation); "
                        "give a static int8 network in quantize-dequantize form")
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    computed = run_model(model.SerializeToString(), names, [inputs])[0]
    found: dict[str, np.ndarray] = {}
    widened: set[str] = set()
    for name, array in computed.items():
        view = imported.views[name]
        spec = imported.graph.tensors[view.tensor]
        if abs(imported.counted[name].step / spec.scale - 1) > SAME_STEP:
            widened.add(view.tensor)
            continue
        # What holds a zero point counts from the middle of the type, what the callers read not.
        zero = imported.counted[name].zero if spec.bits == 16 else (
            128 if array.dtype == np.uint8 else 0)
        counted = array.astype(int) - zero
        flat = np.full(spec.elements, 1 << 16)
        inside = view.places.reshape(-1) >= 0
        flat[view.places.reshape(-1)[inside]] = counted.reshape(-1)[inside]
        if (flat < 1 << 16).all():  # a slice alone does not say what the tensor is
            found[view.tensor] = flat.astype(integer_type(spec.bits)).reshape(spec.shape)
    return found, widened - found.keys()


def share_within_one(found: list[Agreement]) -> float | None:
    """Share of all values that are at most one step apart; None where none was compared."""
    values = sum(item.values for item in found)
    return 1 - sum(item.further for item in found) / values if values else None


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
