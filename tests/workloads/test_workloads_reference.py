"""Holds the integer reference equal to two independent integer engines, layer by layer.

torch computes int32 convolutions, onnxruntime computes ConvInteger; both are exact.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional

from workloads import library
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.arithmetic import fixed_keypoints
from workloads.convolution import EXACT_TERMS, accumulate, convolve, exact_matmul
from workloads.graph import Graph, GraphError, Layer, Operator, Phase
from workloads.reference import execute, execute_layer

TINY = AgcConfig(
    width=4, blocks=2, motion_width=4, motion_max=16, motion_blocks=3, keypoints=3,
    rows=64, cols=96,
)
CROP_ROWS = 12


def seeded_inputs(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """A noisy source frame and keypoints that move a little."""
    random = np.random.default_rng(seed)
    spec = graph.tensors["source"]
    points = random.uniform(-0.8, 0.8, (graph.tensors["keypoints_source"].rows, 2))
    return {
        "source": random.integers(0, 128, spec.shape).astype(np.int8),
        "keypoints_source": fixed_keypoints(points),
        "keypoints_driving": fixed_keypoints(points + random.normal(0, 0.05, points.shape)),
    }


@cache
def narrow() -> tuple[Graph, dict[str, np.ndarray]]:
    """The shipped narrow decoder and all tensors of one frame."""
    graph = library.load("agc-w16")
    return graph, execute(graph, seeded_inputs(graph))


def torch_accumulators(value: np.ndarray, weights: np.ndarray, padding: int) -> np.ndarray:
    tensors = (torch.from_numpy(array.astype(np.int32)) for array in (value[None], weights))
    return functional.conv2d(*tensors, padding=padding)[0].numpy()


def onnx_accumulators(value: np.ndarray, weights: np.ndarray, padding: int) -> np.ndarray:
    node = helper.make_node(
        "ConvInteger", ["x", "w", "zero"], ["y"], pads=[padding] * 4,
        kernel_shape=list(weights.shape[2:]))
    model = helper.make_model(
        helper.make_graph(
            [node], "one",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, *value.shape])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
            [onnx.numpy_helper.from_array(weights, "w"),
             onnx.numpy_helper.from_array(np.array(128, np.uint8), "zero")]),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # The runtime's kernel takes unsigned activations: shift them and declare the zero point.
    shifted = (value.astype(np.int16) + 128).astype(np.uint8)
    return session.run(None, {"x": shifted[None]})[0][0]


def rounded(total: np.ndarray, graph: Graph, layer: Layer) -> np.ndarray:
    """Bias, requantization and ReLU in float64, which is exact here, with numpy's own rint."""
    bias, multiplier, shift = (
        graph.constant(layer, role).astype(np.float64).reshape(-1, 1, 1)
        for role in ("bias", "multiplier", "shift"))
    value = np.clip(np.rint((total + bias) * multiplier * 2.0**-shift), -128, 127)
    return (np.maximum(value, 0) if layer.relu else value).astype(np.int8)


def test_whole_narrow_decoder_equals_torch() -> None:
    graph, values = narrow()
    differing, compared = 0, 0
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            total = torch_accumulators(
                values[layer.inputs[0]], graph.constant(layer, "weights"), layer.window.padding)
            wanted = rounded(total, graph, layer)
            differing += int((wanted != values[layer.output]).sum())
            compared += wanted.size
    assert differing == 0 and compared > 5_000_000


def test_whole_narrow_decoder_equals_onnxruntime() -> None:
    graph, values = narrow()
    differing, compared = 0, 0
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            total = onnx_accumulators(
                values[layer.inputs[0]], graph.constant(layer, "weights"), layer.window.padding)
            wanted = rounded(total, graph, layer)
            differing += int((wanted != values[layer.output]).sum())
            compared += wanted.size
    assert differing == 0 and compared > 5_000_000


def distinct_layers(graph: Graph) -> dict[tuple[int, ...], str]:
    found: dict[tuple[int, ...], str] = {}
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            source, out = graph.tensors[layer.inputs[0]], graph.tensors[layer.output]
            key = (source.channels, out.channels, layer.window.rows, int(layer.relu), out.rows)
            found.setdefault(key, layer.name)
    return found


FULL = agc_graph(AgcConfig())


def compare_one(layer: Layer, most_rows: int) -> None:
    source = FULL.tensors[layer.inputs[0]]
    random = np.random.default_rng(1)
    value = random.integers(
        -128, 128, (source.channels, min(most_rows, source.rows), source.columns)).astype(np.int8)
    found = execute_layer(FULL, layer, [value])
    total = torch_accumulators(value, FULL.constant(layer, "weights"), layer.window.padding)
    assert np.array_equal(found, rounded(total, FULL, layer))


@pytest.mark.parametrize("name", distinct_layers(FULL).values())
def test_full_width_layers_equal_torch_on_some_rows(name: str) -> None:
    layer = FULL.layer(name)
    positions = FULL.tensors[layer.output].columns
    compare_one(layer, 4 if positions > 64 else CROP_ROWS)


@pytest.mark.long
@pytest.mark.parametrize("name", distinct_layers(FULL).values())
def test_full_width_layers_equal_torch_whole(name: str) -> None:
    compare_one(FULL.layer(name), 1 << 20)


def test_extreme_values_stay_exact() -> None:
    """The longest exact float32 sum, and one term more than that, at the corner values."""
    for inner in (EXACT_TERMS, EXACT_TERMS + 1, 3 * EXACT_TERMS - 1):
        for left, right in ((-128, -128), (-128, 127), (127, 127)):
            product = exact_matmul(
                np.full((2, inner), left, np.float32), np.full((inner, 3), right, np.float32))
            assert (product == left * right * inner).all()


@pytest.mark.parametrize(("stride", "padding", "groups"), [(2, 1, 1), (1, 0, 2), (2, 2, 4)])
def test_strides_and_groups_equal_torch(stride: int, padding: int, groups: int) -> None:
    random = np.random.default_rng(2)
    value = random.integers(-128, 128, (8, 11, 14)).astype(np.int8)
    weights = random.integers(-127, 128, (12, 8 // groups, 3, 3)).astype(np.int8)
    wanted = functional.conv2d(
        torch.from_numpy(value.astype(np.int32))[None],
        torch.from_numpy(weights.astype(np.int32)), stride=stride, padding=padding, groups=groups)
    assert np.array_equal(convolve(value, weights, stride, padding, groups), wanted[0].numpy())


@pytest.mark.parametrize(("channels", "groups", "rows", "columns"), [
    (64, 1, 90, 70), (96, 96, 120, 130), (8, 2, 7, 40_000), (1030, 1, 5, 6)])
def test_blocks_and_empty_taps_equal_torch(channels: int, groups: int, rows: int,
                                           columns: int) -> None:
    """Several blocks of rows and of groups; a dilated kernel is zeros between its taps."""
    random = np.random.default_rng(3)
    value = random.integers(-128, 128, (channels, rows, columns)).astype(np.int8)
    small = random.integers(-127, 128, (channels, channels // groups, 2, 2)).astype(np.int8)
    weights = np.zeros((*small.shape[:2], 3, 3), np.int8)
    weights[:, :, ::2, ::2] = small
    wanted = functional.conv2d(
        torch.from_numpy(value.astype(np.float64))[None],
        torch.from_numpy(small.astype(np.float64)), dilation=2, padding=1, groups=groups)[0].numpy()
    assert np.array_equal(convolve(value, weights, 1, 1, groups), wanted)
    assert np.array_equal(accumulate(value.astype(np.int16), weights, 1, 1, groups), wanted)


def test_frame_phase_needs_only_the_source_features() -> None:
    graph = agc_graph(TINY)
    inputs = seeded_inputs(graph)
    whole = execute(graph, inputs)
    group = execute(graph, {"source": inputs["source"]}, [Phase.GROUP])
    given = {name: inputs[name] for name in ("keypoints_source", "keypoints_driving")}
    frame = execute(
        graph, given | {name: group[name] for name in ("features", "small")}, [Phase.FRAME])
    assert np.array_equal(frame["picture"], whole["picture"])
    with pytest.raises(GraphError, match="'small'"):
        execute(graph, given | {"features": group["features"]}, [Phase.FRAME])


def test_a_window_of_a_layer_equals_the_whole_inside() -> None:
    graph, values = narrow()
    layer = graph.layer("res0.conv1")
    part = execute_layer(graph, layer, [values[layer.inputs[0]][:, 10:20]])
    assert np.array_equal(part[:, 1:-1], values[layer.output][:, 11:19])


def test_average_pool_rounds_half_to_even() -> None:
    graph, values = narrow()
    layer = graph.layer("down0.pool")
    whole = values["down0"].astype(np.float64)
    mean = whole.reshape(whole.shape[0], whole.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4))
    assert np.array_equal(values[layer.output], np.rint(mean))
    assert np.any(mean % 1 == 0.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_seeded_weights_keep_the_picture_alive(seed: int) -> None:
    graph = agc_graph(AgcConfig(width=16, motion_width=16, motion_max=256), seed)
    values = execute(graph, seeded_inputs(graph, seed))
    for name in ("features", "heads", "mask_softmax", "res1.add", "up1", "picture"):
        assert values[name].std() > 2, name
        assert np.mean(np.abs(values[name].astype(int)) >= 127) < 0.3, name


@pytest.mark.parametrize(
    ("change", "message"),
    [({"source": np.zeros((3, 8, 8), np.int8)}, "must be int8"),
     ({"source": np.zeros((3, 64, 96))}, "must be int8"),
     ({"sauce": np.zeros(1, np.int8)}, "no such tensor")],
)
def test_ill_formed_inputs_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    graph = agc_graph(TINY)
    with pytest.raises(GraphError, match=message):
        execute(graph, seeded_inputs(graph) | change)
