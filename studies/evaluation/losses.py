"""What int8 costs a float .onnx file, layer by layer: signal to error beside its float network.

It compares with no other program (`studies.validate.onnx` does), and needs the extra onnx. A
static int8 file has no float network to be held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Both:
    """The float and the int8 network on the same inputs: the file's outputs of each input, and
    what int8 costs layer by layer."""

    real: list[dict[str, np.ndarray]]
    counted: list[dict[str, np.ndarray]]
    layers: list[LayerLoss]


def run_both(imported: Imported, feeds: Sequence[Mapping[str, np.ndarray]]) -> Both:
    """Run both; one input's tensors are held at a time."""
    graph = imported.graph
    real, counted = list[dict[str, np.ndarray]](), list[dict[str, np.ndarray]]()
    sums: dict[str, np.ndarray] = {}
    for item in feeds:
        entered = imported.entered(item)
        values = execute_real(imported.network, entered)
        whole = execute(graph, quantized_inputs(graph, entered))
        for name, array in whole.items():
            if name in values:
                wanted = np.asarray(values[name], np.float64)
                error = array * graph.tensors[name].scale - wanted
                sums[name] = sums.get(name, 0) + np.array(
                    [np.vdot(wanted, wanted), np.vdot(error, error)])
        ends = imported.model.outputs
        real.append({name: imported.real(name, values) for name in ends})
        counted.append({name: imported.real(name, {
            imported.views[name].tensor: whole[imported.views[name].tensor]
            * graph.tensors[imported.views[name].tensor].scale}) for name in ends})
    return Both(real, counted, [
        LayerLoss(layer.name, layer.operator.value, _ratio(*sums[layer.output].tolist()))
        for layer in graph.layers if layer.output in sums])


def losses(imported: Imported, reading: Reading, seed: int = 0) -> list[LayerLoss]:
    """Each layer of a float file, int8 beside float, both as this program computes them."""
    return run_both(imported, feeds_of(imported.model, reading, seed)[:MOST_INPUTS]).layers


def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The values of several arrays, one behind the other."""
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal to error; at most 200, and so where nothing differs."""
    return _ratio(float((wanted**2).sum()), float(((wanted - found) ** 2).sum()))


def _ratio(signal: float, error: float) -> float:
    if error == 0:
        return 200.0
    return min(200.0, 10 * float(np.log10(max(signal, 1e-30) / max(error, 1e-30))))


@cache
def sqnr(name: str, reading: Reading) -> Mapping[str, float]:
    """Decibels by layer of a float .onnx file; nothing of a static int8 one."""
    imported = read(Path(name), reading)
    return {} if imported.stated else {
        item.layer: item.int8_db for item in losses(imported, reading)}
