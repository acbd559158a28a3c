"""Runs an ONNX file in onnxruntime and through the import, for tests that hold both together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from arch_models.board import load_board
from arch_models.overlay import Overlay, default_overlay
from cosim.analysis.interpret import interpret
from cosim.build import build
from studies.evaluation.evaluate import feasible
from workloads.arithmetic import integer_type
from workloads.onnx.importer import Imported, import_onnx
from workloads.quantization.float_network import execute_real
from workloads.quantization.post_training import quantized_inputs
from workloads.reference import execute

Arrays = Mapping[str, np.ndarray]


def computed(path: Path, inputs: Arrays) -> tuple[Imported, np.ndarray, np.ndarray]:
    """The import, and the output of its float and of its integer network."""
    found = import_onnx(path, [inputs])
    given = found.entered(inputs)
    whole = execute(found.graph, quantized_inputs(found.graph, given))
    steps = {name: array * found.graph.tensors[name].scale for name, array in whole.items()}
    return found, found.real("y", execute_real(found.network, given)), found.real("y", steps)


def read_plainly(found: Imported, inputs: Arrays) -> np.ndarray:
    """The first output as those read it who know a graph and its scales alone (a driver, a
    decoder), in the graph's order; what they give counts by scales alone, too."""
    given = {name: np.clip(np.rint(array / spec.scale), -1 << spec.bits - 1,
                           (1 << spec.bits - 1) - 1).astype(integer_type(spec.bits))
             for name, array, spec in (
                 (tensor, np.reshape(array, found.graph.tensors[tensor].shape),
                  found.graph.tensors[tensor])
                 for tensor, array in zip(found.graph.inputs, inputs.values(), strict=True))}
    name = found.graph.outputs[0]
    return execute(found.graph, given)[name] * found.graph.tensors[name].scale


def runtime(path: Path, inputs: Arrays) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, dict(inputs))[0]


def assert_lowered(found: Imported, inputs: Arrays, overlay: Overlay | None = None) -> None:
    """Every byte of the output, from the operations of the Program."""
    counted = quantized_inputs(found.graph, found.entered(inputs))
    overlay = overlay or default_overlay()
    lowered = feasible(build(found.graph, overlay, load_board("pynq-z1")))
    made = interpret(lowered, found.graph, overlay, counted, seed=0)
    name = found.graph.outputs[0]
    assert np.array_equal(made[name], execute(found.graph, counted)[name])
