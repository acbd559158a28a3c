"""Do files as people write them come out as onnxruntime computes them, at the graph's outputs?

Small models after public bug reports: integers between QuantizeLinear and DequantizeLinear, scales
along other axes, rules of older operator sets. The integer graph is compared, not the float one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from arch_models.board import load_board
from arch_models.overlay import Engine, load_overlay
from cosim.analysis.interpret import interpret
from cosim.build import build
from studies.evaluation.evaluate import feasible
from studies.evaluation.inputs import PLAIN
from studies.validate.onnx.outputs import outputs
from tests.support.onnx_models import model_of
from workloads.graph import GraphError, Operator
from workloads.onnx.importer import import_onnx
from workloads.quantization.post_training import Recipe, quantized_inputs
from workloads.reference import execute

Arrays = Mapping[str, np.ndarray]
node = onnx.helper.make_node


def drawn(*shape: int, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def decibels(model: onnx.ModelProto, values: Arrays, folder: Path) -> float:
    """Signal to error of the integer graph beside onnxruntime without its rewriting."""
    path, options = folder / "case.onnx", onnxruntime.SessionOptions()
    onnx.save(model, path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    wanted = session.run(None, dict(values))[0].astype(np.float64)
    found = import_onnx(path, [values])
    graph, view = found.graph, found.views[model.graph.output[0].name]
    given = {name: values[name].reshape(graph.tensors[name].shape) for name in graph.inputs}
    flat = execute(graph, quantized_inputs(graph, given))[view.tensor].reshape(-1)
    real = np.where(view.places >= 0, flat[view.places], 0) * graph.tensors[view.tensor].scale
    assert real.shape == wanted.shape
    error = float(((real - wanted) ** 2).sum())
    return 10 * float(np.log10((wanted**2).sum() / max(error, 1e-30)))


def counted(name: str, out: str, between: list[onnx.NodeProto] | None = None,
            last: str = "q") -> list[onnx.NodeProto]:
    """name, quantized with s and z, and taken back as `out`; nodes between lead from q to last."""
    return [node("QuantizeLinear", [name, "s", "z"], ["q"]), *(between or []),
            node("DequantizeLinear", [last, "s", "z"], [out])]


@pytest.mark.parametrize(("kind", "zero", "low", "high"), [
    (np.int8, 0, -8, 7), (np.uint8, 128, 64, 191), (np.uint8, 128, 128, 255)])
def test_a_clip_of_integers_bounds_what_they_stand_for(
    kind: type, zero: int, low: int, high: int, tmp_path: Path,
) -> None:
    model = model_of(
        [*counted("x", "d", [node("Clip", ["q", "low", "high"], ["k"])], "k"),
         node("Conv", ["d", "w"], ["y"])], {"x": (1, 1, 2, 4)}, "y",
        {"s": np.float32(0.25), "z": kind(zero), "low": kind(low), "high": kind(high),
         "w": np.ones((1, 1, 1, 1), np.float32)}, opset=17)
    values = {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(1, 1, 2, 4)}
    assert decibels(model, values, tmp_path) > 35


def padded(value: int) -> onnx.ModelProto:
    return model_of(
        counted("x", "y", [node("Pad", ["q", "p", "v"], ["k"], name="around")], "k"),
        {"x": (1, 1, 2, 2)}, "y",
        {"s": np.float32(0.25), "z": np.uint8(128), "p": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
         "v": np.uint8(value)}, opset=17)


def test_a_pad_of_integers_puts_what_its_value_stands_for(tmp_path: Path) -> None:
    assert decibels(padded(128), {"x": np.ones((1, 1, 2, 2), np.float32)}, tmp_path) > 100


def test_a_pad_of_integers_that_is_not_zero_is_refused(tmp_path: Path) -> None:
    onnx.save(padded(0), tmp_path / "case.onnx")
    with pytest.raises(GraphError, match="Pad 'around': padding stands for -32, must be zero"):
        import_onnx(tmp_path / "case.onnx")


def test_a_sum_of_integers_is_refused(tmp_path: Path) -> None:
    model = model_of(counted("x", "y", [node("Sub", ["q", "v"], ["k"])], "k"), {"x": (1, 4)}, "y",
                     {"s": np.float32(0.25), "z": np.uint8(128), "v": np.uint8(1)}, opset=17)
    onnx.save(model, tmp_path / "case.onnx")
    with pytest.raises(GraphError, match="Sub.*put it behind DequantizeLinear"):
        import_onnx(tmp_path / "case.onnx")


@pytest.mark.parametrize(("scale", "zero"), [(0.5, 0), (0.25, 4)])
def test_a_dequantization_counts_by_its_own_scale_and_zero_point(
    scale: float, zero: int, tmp_path: Path,
) -> None:
    model = model_of(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("DequantizeLinear", ["q", "s2", "z2"], ["y"])], {"x": (1, 3, 4, 4)}, "y",
        {"s": np.float32(0.25), "z": np.int8(0), "s2": np.float32(scale), "z2": np.int8(zero)},
        opset=17)
    assert decibels(model, {"x": drawn(1, 3, 4, 4, spread=4)}, tmp_path) > 35


WEIGHTS = {"s": np.float32(0.02), "z": np.int8(0), "wz": np.zeros(4, np.int8),
           "ws": np.array([0.004, 0.001, 0.016, 0.0005], np.float32)}


@pytest.mark.parametrize(("operator", "axis", "shape", "entering"), [
    ("Conv", 0, (4, 4, 1, 1), (1, 4, 4, 4)), ("Conv", 1, (4, 4, 1, 1), (1, 4, 4, 4)),
    ("Conv", 1, (6, 4, 3, 3), (1, 4, 5, 5)), ("ConvTranspose", 0, (4, 4, 2, 2), (1, 4, 4, 4)),
    ("ConvTranspose", 1, (4, 4, 2, 2), (1, 4, 4, 4)), ("Gemm", 0, (4, 4), (1, 4)),
    ("Gemm", 1, (4, 4), (1, 4)), ("MatMul", 0, (4, 5), (1, 3, 4)), ("MatMul", 1, (6, 4), (1, 3, 6)),
])
def test_scales_of_weights_lie_along_their_own_axis(
    operator: str, axis: int, shape: tuple[int, ...], entering: tuple[int, ...], tmp_path: Path,
) -> None:
    stored = np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8)
    model = model_of(
        [*counted("x", "d"), node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=axis),
         node(operator, ["d", "w"], ["y"])], {"x": entering}, "y",
        {**WEIGHTS, "wq": stored}, opset=17)
    assert decibels(model, {"x": drawn(*entering)}, tmp_path) > 30


@pytest.mark.parametrize(("alpha", "turned"), [(2.0, 0), (0.25, 1), (-2.0, 1)])
def test_the_factor_of_a_product_keeps_stated_weights(
    alpha: float, turned: int, tmp_path: Path,
) -> None:
    stored = np.random.default_rng(1).integers(-127, 128, (5, 6) if turned else (6, 5))
    model = model_of(
        [*counted("x", "d"), node("DequantizeLinear", ["wq", "ws", "wz"], ["w"]),
         node("Gemm", ["d", "w", "c"], ["y"], alpha=alpha, beta=0.5, transB=turned)],
        {"x": (1, 6)}, "y",
        {"s": np.float32(0.02), "z": np.int8(0), "wq": stored.astype(np.int8),
         "ws": np.float32(0.004), "wz": np.int8(0), "c": drawn(5, seed=4)}, opset=17)
    assert decibels(model, {"x": drawn(1, 6)}, tmp_path) > 35


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (3,), (3, 3), (1, 1)])
def test_the_constant_of_a_product_is_repeated_as_numpy_does(
    shape: tuple[int, ...], tmp_path: Path,
) -> None:
    model = model_of(
        [node("Reshape", ["x", "shape"], ["v"]), node("Gemm", ["v", "w", "c"], ["y"])],
        {"x": (1, 3, 4)}, "y",
        {"shape": np.array([3, 4]), "w": drawn(4, 3), "c": drawn(*shape, seed=2, spread=3)},
        opset=17)
    assert decibels(model, {"x": drawn(1, 3, 4)}, tmp_path) > 35


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resize_of_operator_set_10_is_asymmetric(mode: str, tmp_path: Path) -> None:
    model = model_of([node("Resize", ["x", "s"], ["y"], mode=mode)], {"x": (1, 1, 2, 3)}, "y",
                     {"s": np.array([1, 1, 2, 2], np.float32)}, opset=10)
    model.ir_version = 5
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, [4]))
    values = {"x": np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)}
    assert decibels(model, values, tmp_path) > 40


@pytest.mark.parametrize(("opset", "mode"), [(9, "constant"), (10, "constant"), (9, "reflect")])
def test_pad_of_older_operator_sets_states_its_pads(
    opset: int, mode: str, tmp_path: Path,
) -> None:
    model = model_of([node("Pad", ["x"], ["y"], mode=mode, pads=[0, 0, 1, 1, 0, 0, 1, 0])],
                     {"x": (1, 2, 3, 3)}, "y", opset=opset)
    assert decibels(model, {"x": drawn(1, 2, 3, 3)}, tmp_path) > 40


@pytest.mark.parametrize(("operator", "axes", "keep"), [
    ("ReduceMean", [1, 2, 3], 1), ("ReduceSum", [1, 2, 3], 0), ("ReduceMax", None, 1),
    ("ReduceMean", [0, 1, 2, 3], 1), ("ReduceMax", [0, 2, 3], 0)])
def test_reductions_over_three_axes_and_more(
    operator: str, axes: list[int] | None, keep: int, tmp_path: Path,
) -> None:
    attributes = {} if axes is None else {"axes": axes}
    model = model_of([node(operator, ["x"], ["y"], keepdims=keep, **attributes)],
                     {"x": (1, 3, 4, 5)}, "y", opset=12)
    assert decibels(model, {"x": drawn(1, 3, 4, 5) + 1}, tmp_path) > 30


@pytest.mark.parametrize(("operator", "attributes"), [
    ("MaxPool", {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
])
def test_windows_that_reach_over_the_edge(
    operator: str, attributes: dict[str, object], tmp_path: Path,
) -> None:
    model = model_of([node(operator, ["x"], ["y"], **attributes)], {"x": (1, 3, 8, 8)}, "y",
                     opset=13)
    assert decibels(model, {"x": drawn(1, 3, 8, 8)}, tmp_path) > 35


def test_a_layer_that_is_zero_on_the_calibration_inputs(tmp_path: Path) -> None:
    model = model_of(
        [node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["r"]),
         node("Conv", ["r", "w2", "b2"], ["y"])], {"x": (1, 3, 4, 4)}, "y",
        {"w": drawn(4, 3, 1, 1), "b": np.full(4, -50, np.float32), "w2": drawn(2, 4, 1, 1),
         "b2": np.ones(2, np.float32)}, opset=17)
    assert decibels(model, {"x": drawn(1, 3, 4, 4)}, tmp_path) > 40


@pytest.mark.parametrize("step", [1e-38, 1e-30, 1e-12])
def test_a_channel_without_weights_gives_its_bias(step: float, tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(-127, 128, (2, 3, 1, 1)).astype(np.int8)
    stored[1] = 0
    model = model_of(
        [*counted("x", "d"), node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
         node("Conv", ["d", "w", "b"], ["y"])], {"x": (1, 3, 2, 2)}, "y",
        {"s": np.float32(0.02), "z": np.int8(0), "wq": stored, "wz": np.zeros(2, np.int8),
         "ws": np.array([0.004, step], np.float32), "b": np.array([0, 2.5], np.float32)}, opset=17)
    assert decibels(model, {"x": drawn(1, 3, 2, 2)}, tmp_path) > 40


def test_weights_of_the_least_integer_are_kept(tmp_path: Path) -> None:
    model = model_of(
        [*counted("x", "d"), node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
         node("Conv", ["d", "w"], ["y"])], {"x": (1, 1, 4, 4)}, "y",
        {"s": np.float32(0.02), "z": np.int8(0), "wq": np.full((1, 1, 1, 1), -128, np.int8),
         "ws": np.ones(1, np.float32), "wz": np.zeros(1, np.int8)}, opset=17)
    path = tmp_path / "case.onnx"
    onnx.save(model, path)
    graph = import_onnx(path).graph
    assert any((array == -128).any() for name, array in graph.constants.items()
               if name.endswith(".weights"))


@pytest.mark.parametrize("value", [-50.0, -1e4, -3.4e38, -np.inf])
@pytest.mark.parametrize("heads", [1, 2])
def test_a_mask_before_a_softmax_sets_no_scale(
    value: float, heads: int, tmp_path: Path,
) -> None:
    mask = np.where(np.tril(np.ones((6, 6))) > 0, 0, value).astype(np.float32)
    model = model_of(
        [node("Transpose", ["x"], ["k"], perm=[0, 1, 3, 2]), node("MatMul", ["x", "k"], ["s"]),
         node("Add", ["s", "m"], ["sm"]), node("Softmax", ["sm"], ["p"], axis=-1),
         node("MatMul", ["p", "x"], ["y"])], {"x": (1, heads, 6, 8)}, "y", {"m": mask}, opset=17)
    assert decibels(model, {"x": drawn(1, heads, 6, 8, spread=1)}, tmp_path) > 28


@pytest.mark.parametrize(("operator", "domain"), [
    ("Trunc", "qonnx.custom_op.general"), ("NGramRepeatBlock", "com.microsoft")])
def test_an_operator_of_another_domain_is_named(
    operator: str, domain: str, tmp_path: Path,
) -> None:
    model = model_of([node(operator, ["x", "s"], ["q"], domain=domain), node("Relu", ["q"], ["y"])],
                     {"x": (1, 4)}, "y", {"s": np.float32(0.1)}, opset=13)
    onnx.save(model, tmp_path / "case.onnx")
    with pytest.raises(GraphError, match=(
            rf"case.onnx: 1 nodes are not supported: {operator} \({domain}\) '.*QDQ")):
        import_onnx(tmp_path / "case.onnx")


def test_shapes_of_open_axes_are_given_or_those_of_the_calibration(tmp_path: Path) -> None:
    model = model_of([node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "b"], ["y"])],
                     {"x": ("n", 2, "rows", "columns"), "b": ("n", 1, "rows", "columns")}, "y",
                     {"w": drawn(3, 2, 1, 1)})
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"axis 2 \(rows\); give --shape x=n,2,rows,columns"):
        import_onnx(path)
    # An axis of the same name has the same size.
    graph = import_onnx(path, sizes={"x": (1, 2, 5, 7)}).graph
    assert [graph.tensors[name].shape for name in graph.inputs] == [(2, 5, 7), (1, 5, 7)]
    given = [{"x": drawn(2, 6, 4), "b": drawn(1, 6, 4)}]
    assert import_onnx(path, given).graph.tensors["x"].shape == (2, 6, 4)
    for sizes, said in (({"x": (1, 2, 5)}, "has 4 axes, the shape given for it 3"),
                        ({"x": (1, 3, 5, 7)}, "has 2 along axis 1, given is 3"),
                        ({"z": (1,)}, "no input 'z' to give a shape to; it has x, b")):
        with pytest.raises(GraphError, match=said):
            import_onnx(path, sizes=sizes)


@pytest.mark.parametrize("size", [32, 128])
def test_what_only_a_sampling_reads_has_16_bits(size: int, tmp_path: Path) -> None:
    """A picture moved by half a pixel or by nothing does not come out jagged, of any size."""
    line = np.linspace(-1, 1, size)
    still = np.stack(np.meshgrid(line, line), -1)[None].astype(np.float32)
    checks = (np.add.outer(np.arange(size) // 4, np.arange(size) // 4) % 2).astype(np.float32)
    values = {"x": 2 * checks[None, None] - 1,
              "flow": np.full((1, size, size, 2), 1 / size, np.float32)}
    moved = model_of([node("Add", ["flow", "still"], ["g"]),
                      node("GridSample", ["x", "g"], ["y"], align_corners=1)],
                     {name: array.shape for name, array in values.items()}, "y", {"still": still})
    assert decibels(moved, values, tmp_path) > 40
    graph = import_onnx(tmp_path / "case.onnx", [values]).graph
    assert graph.tensors["g"].bits == 16 and graph.tensors["x"].bits == 8
    # A tensor that something else reads too stays at 8 bits.
    moved.graph.output.append(onnx.helper.make_empty_tensor_value_info("g"))
    onnx.save(moved, tmp_path / "case.onnx")
    assert import_onnx(tmp_path / "case.onnx", [values]).graph.tensors["g"].bits == 8


def test_validation_sees_a_fault_at_the_outputs(tmp_path: Path) -> None:
    """Whatever the import believes of a file, the file itself is what onnxruntime runs."""
    path = tmp_path / "case.onnx"
    onnx.save(model_of([node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])],
                       {"x": (1, 2, 6, 5)}, "y", {"w": drawn(4, 2, 3, 3)}), path)
    found, reason = outputs(path, import_onnx(path), PLAIN)
    assert not reason and [item.output for item in found] == ["y"]
    assert found[0].good and found[0].float_error is not None and found[0].float_error < 1e-6
    assert found[0].quantizer_db is not None and found[0].int8_db > 30
    imported = import_onnx(path)
    damaged = replace(imported.network, weights={
        name: array * np.float32(1.001) for name, array in imported.network.weights.items()})
    assert not outputs(path, replace(imported, network=damaged), PLAIN)[0][0].good


@pytest.mark.parametrize("channels", [1024, 1280, 2049])
def test_more_channels_than_parameters_are_held_become_parts(channels: int,
                                                             tmp_path: Path) -> None:
    """Same integers as in one layer, and the default design runs them, to the byte."""
    values = {"x": drawn(1, 8, 3, 3)}
    weights, bias = drawn(channels, 8, 1, 1), drawn(channels, seed=2)
    path = tmp_path / "case.onnx"
    onnx.save(model_of([node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["y"])],
                       {"x": (1, 8, 3, 3)}, "y", {"w": weights, "b": bias}), path)
    graph = import_onnx(path, [values], Recipe(power_of_two=False, correct_bias=False)).graph
    found = [layer for layer in graph.layers if layer.operator is Operator.CONVOLUTION]
    assert len(found) == -(-channels // 1024)
    for role, axis in (("weights", 0), ("bias", 0), ("multiplier", 0), ("shift", 0)):
        whole = np.concatenate([graph.constant(layer, role) for layer in found], axis)
        assert len(whole) == channels
    counted = quantized_inputs(graph, {"x": values["x"][0]})
    wanted = execute(graph, counted)[graph.outputs[0]]
    overlay = load_overlay("default")
    lowered = feasible(build(graph, overlay, load_board("pynq-z1")))
    assert np.array_equal(interpret(lowered, graph, overlay, counted, seed=0)[graph.outputs[0]],
                          wanted)
    real = np.maximum(np.einsum("oc,cij->oij", weights[:, :, 0, 0], values["x"][0])
                      + bias[:, None, None], 0)
    step = graph.tensors[graph.outputs[0]].scale
    assert np.abs(wanted * step - real).max() < 8 * step


@pytest.mark.parametrize(("shape", "kernel"), [((20, 416), 2), ((9, 300), 3), ((21, 21), 2)])
def test_wide_maxima_run_on_the_fabric(shape: tuple[int, int], kernel: int,
                                       tmp_path: Path) -> None:
    """Windows that lie apart are cut by rows; the first layers of detectors are 416 wide."""
    values, path = {"x": drawn(1, 8, *shape)}, tmp_path / "case.onnx"
    onnx.save(model_of([node("Relu", ["x"], ["r"]),
                        node("MaxPool", ["r"], ["y"], kernel_shape=[kernel] * 2,
                             strides=[kernel] * 2)], {"x": (1, 8, *shape)}, "y"), path)
    graph, overlay = import_onnx(path, [values]).graph, load_overlay("default")
    lowered = feasible(build(graph, overlay, load_board("pynq-z1")))
    assert lowered.mapping.layers[-1].engine is Engine.POOL
    counted = quantized_inputs(graph, {"x": values["x"][0]})
    made = interpret(lowered, graph, overlay, counted, seed=0)
    assert np.array_equal(made[graph.outputs[0]], execute(graph, counted)[graph.outputs[0]])
