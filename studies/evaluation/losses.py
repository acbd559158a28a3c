"""What int8 costs a float .onnx file, layer by layer: signal to error beside its float network.

It compares with no other program (`studies.validate.onnx` does), and needs the extra onnx. A
static int8 file has no float network to be held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from studies.evaluation.inputs import Reading
from workloads.onnx.importer import Imported, import_onnx, random_inputs, read_calibration
from workloads.onnx.read import Model
from workloads.quantization.float_network import execute_real
from workloads.quantization.post_training import quantized_inputs
from workloads.reference import execute

#: So many of the given inputs are compared, and so many random ones without any.
MOST_INPUTS = 4


def read(path: Path, reading: Reading) -> Imported:
    """The imported network."""
    given = None if reading.calibration is None else read_calibration(reading.calibration)
    return import_onnx(path, given, symmetric=reading.symmetric, sizes=reading.sizes(),
                       cached=reading.cached, values=reading.values())


def feeds_of(model: Model, reading: Reading, seed: int) -> list[dict[str, np.ndarray]]:
    """Inputs as the file shapes and types them: given ones, or random ones of the seed."""
    if reading.calibration is None:
        return random_inputs(model, MOST_INPUTS, seed)
    return [{name: item[name].reshape(model.shapes[name]).astype(model.kinds[name])
             for name in model.inputs} | dict(model.values)
            for item in read_calibration(reading.calibration)]


@dataclass(frozen=True)
class LayerLoss:
    """What int8 costs up to a layer: signal to error of its output against the float network's,
    over all inputs compared; what came before is in it."""

    layer: str
    operator: str
    int8_db: float


def losses(imported: Imported, reading: Reading, seed: int = 0) -> list[LayerLoss]:
    """Each layer of a float file, int8 beside float, both as this program computes them."""
    graph = imported.graph
    pairs: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for item in feeds_of(imported.model, reading, seed)[:MOST_INPUTS]:
        entered = imported.entered(item)
        real = execute_real(imported.network, entered)
        whole = execute(graph, quantized_inputs(graph, entered))
        for layer in graph.layers:
            if layer.output in real:
                own = pairs.setdefault(layer.output, ([], []))
                own[0].append(real[layer.output])
                own[1].append(whole[layer.output] * graph.tensors[layer.output].scale)
    return [LayerLoss(layer.name, layer.operator.value,
                      decibels(joined(pairs[layer.output][0]),
                               joined(pairs[layer.output][1])))
            for layer in graph.layers if layer.output in pairs]


def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The values of several arrays, one behind the other."""
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal to error; at most 200, and so where nothing differs."""
    error = float(((wanted - found) ** 2).sum())
    if error == 0:
        return 200.0
    return min(200.0, 10 * float(np.log10(max((wanted**2).sum(), 1e-30) / max(error, 1e-30))))


@cache
def sqnr(name: str, reading: Reading) -> Mapping[str, float]:
    """Decibels by layer of a float .onnx file; nothing of a static int8 one."""
    imported = read(Path(name), reading)
    return {} if imported.stated else {
        item.layer: item.int8_db for item in losses(imported, reading)}
