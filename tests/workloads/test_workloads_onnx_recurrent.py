"""Do recurrences keep 16 bits from step to step, here and on the processor?

A state of 8 bits is rounded at every step; onnxruntime's quantizer leaves recurrences in floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from cosim.build import build
from hw.csim.simulate import run_frame_by_layer
from studies.evaluation.evaluate import feasible
from studies.evaluation.inputs import PLAIN
from studies.evaluation.losses import losses
from studies.validate.onnx.outputs import outputs
from tests.support.onnx_models import model_of
from tests.support.small_frames import QUICK
from workloads.graph import Operator
from workloads.onnx.importer import import_onnx

node = onnx.helper.make_node
STEPS, SIZE = 24, 12
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def saved(folder: Path, kind: str) -> Path:
    """Features through a convolution, a recurrence that is given its states, and a head."""
    random = np.random.default_rng(4)

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    gates = GATES[kind]
    states = ("h", "c") if kind == "LSTM" else ("h",)
    nodes = [
        node("Conv", ["x", "front"], ["f"], kernel_shape=[1]), node("Relu", ["f"], ["g"]),
        node("Transpose", ["g"], ["s"], perm=[2, 0, 1]),
        node(kind, ["s", "w", "r", "b", "", *states],
             ["all", *(f"{name}_n" for name in states)], hidden_size=SIZE),
        node("Squeeze", ["all", "one"], ["q"]), node("Transpose", ["q"], ["t"], perm=[1, 2, 0]),
        node("Conv", ["t", "head"], ["y"], kernel_shape=[1])]
    constants = {
        "front": drawn(8, 4, 1), "w": drawn(1, gates * SIZE, 8), "r": drawn(1, gates * SIZE, SIZE),
        "b": drawn(1, 2 * gates * SIZE), "head": drawn(3, SIZE, 1), "one": np.array([1])}
    path = folder / f"{kind}.onnx"
    model = model_of(nodes, {"x": (1, 4, STEPS), **{name: (1, 1, SIZE) for name in states}},
                     "y", constants)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(
        f"{name}_n", onnx.TensorProto.FLOAT, None) for name in states)
    onnx.save(model, path)
    return path


def given(kind: str, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {"x": random.normal(0, 1, (1, 4, STEPS)).astype(np.float32)}
    for name in ("h", "c") if kind == "LSTM" else ("h",):
        found[name] = random.normal(0, 0.5, (1, 1, SIZE)).astype(np.float32)
    return found


@pytest.mark.parametrize("kind", GATES)
def test_states_and_gates_have_16_bits(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, kind)
    found = import_onnx(path, [given(kind, seed) for seed in range(4)])
    graph = found.graph
    for name in ("h", "c") if kind == "LSTM" else ("h",):
        assert graph.tensors[found.views[name].tensor].bits == 16
        assert graph.tensors[found.views[f"{name}_n"].tensor].bits == 16
    for name in ("x", "y", "s"):
        assert graph.tensors[found.views[name].tensor].bits == 8
    # What a convolution elsewhere reads of them is rounded once, in front of it.
    [narrow] = [layer for layer in graph.layers if layer.operator is Operator.REQUANTIZE]
    assert graph.tensors[narrow.output].bits == 8


@pytest.mark.parametrize("kind", GATES)
def test_a_recurrence_is_no_worse_than_where_it_is_left_in_floats(kind: str,
                                                                  tmp_path: Path) -> None:
    path = saved(tmp_path, kind)
    found = import_onnx(path)
    ends, reason = outputs(path, found, PLAIN)
    assert not reason and all(item.good for item in ends), ends
    # Of 8-bit features and weights; with 8 bits from step to step they came to 28 dB.
    assert min(item.int8_db for item in ends) > 32
    # Each layer is held against what its own integers stand for, balanced channels and all.
    assert min(item.int8_db for item in losses(found, PLAIN)) > 28


@pytest.mark.parametrize("kind", GATES)
def test_the_processor_computes_the_same(kind: str, tmp_path: Path) -> None:
    graph = import_onnx(saved(tmp_path, kind), [given(kind, 1)]).graph
    overlay = default_overlay()
    lowered = feasible(build(graph, overlay, load_board("pynq-z1")))
    report = run_frame_by_layer(lowered, graph, overlay, seed=4, flags=QUICK)
    assert (report.values_differing, report.where) == (0, "")
    hosts = {item.name: item.why_host for item in lowered.mapping.layers if item.engine is None}
    wide = {layer.name for layer in graph.layers if layer.operator is Operator.CONVOLUTION
            and graph.tensors[layer.output].bits == 16}
    assert wide and all(hosts[name] == "no engine runs convolution of 16 bits" for name in wide)
