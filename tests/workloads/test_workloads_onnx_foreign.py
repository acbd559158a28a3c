"""Do integer operators, those of other domains, and steps in time come out as onnxruntime's?

Files of onnxruntime (QOperator, com.microsoft) and of QONNX, recurrent cells, windows and
samplings of three axes, padded samplings, inputs of integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.evaluation.losses import decibels
from tests.support.onnx_beside import Arrays, assert_lowered, computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import GraphError
from workloads.onnx.importer import import_onnx

node = onnx.helper.make_node
MICROSOFT, QONNX = "com.microsoft", "qonnx.custom_op.general"


def drawn(*shape: int, spread: float = 0.5, seed: int = 7) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, spread, shape).astype(np.float32)


def counts(*shape: int, kind: type = np.int8) -> np.ndarray:
    bounds = np.iinfo(kind)
    return np.random.default_rng([8, *shape]).integers(
        bounds.min, bounds.max, shape, kind, endpoint=True)


def saved(folder: Path, nodes: list[onnx.NodeProto], inputs: Arrays,
          constants: Mapping[str, object]) -> Path:
    """A model whose output is `y`."""
    model = model_of(nodes, {name: array.shape for name, array in inputs.items()}, "y",
                     {name: np.asarray(value) for name, value in constants.items()})
    for item in model.graph.input:
        kind = onnx.helper.np_dtype_to_tensor_dtype(inputs[item.name].dtype)
        item.type.tensor_type.elem_type = kind
    model.opset_import.extend(onnx.helper.make_opsetid(name, 1) for name in (MICROSOFT, QONNX))
    onnx.save(model, folder / "case.onnx")
    return folder / "case.onnx"


PICTURE = {"x": drawn(1, 4, 8, 8)}
TOKENS = {"x": drawn(1, 6, 32, spread=2)}
SEQUENCE = {"x": drawn(6, 2, 10)}
INTO = node("QuantizeLinear", ["x", "s", "z"], ["q"])
STEPS = {"s": np.float32(0.02), "z": np.int8(0), "t": np.float32(0.05), "w": counts(6, 4, 3, 3),
         "ws": np.linspace(0.002, 0.006, 6, dtype=np.float32), "wz": np.zeros(6, np.int8),
         "b": np.array([300, -200, 100, 0, 5, -90], np.int32), "m": counts(8, 5),
         "ms": np.float32(0.004)}


@pytest.mark.parametrize("nodes", [
    [node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "t", "z", "b"], ["c"], pads=[1] * 4),
     node("Relu", ["c"], ["o"])],
    [node("QLinearMatMul", ["q", "s", "z", "m", "ms", "z", "t", "z"], ["o"])],
    [node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "t", "z"], ["o"], domain=MICROSOFT)],
    [node("QLinearSigmoid", ["q", "s", "z", "t", "z"], ["o"], domain=MICROSOFT)],
    [node("QLinearLeakyRelu", ["q", "s", "z", "t", "z"], ["o"], alpha=0.1, domain=MICROSOFT)],
    [node("QLinearGlobalAveragePool", ["q", "s", "z", "s", "z"], ["g"], domain=MICROSOFT),
     node("QLinearConcat", ["t", "z", "g", "s", "z", "g", "s", "z"], ["o"], axis=1,
          domain=MICROSOFT)],
], ids=lambda nodes: nodes[0].op_type)
def test_operators_on_stated_integers_keep_them(nodes: list[onnx.NodeProto],
                                                tmp_path: Path) -> None:
    path = saved(tmp_path, [INTO, *nodes, node("DequantizeLinear", ["o", "t", "z"], ["y"])],
                 PICTURE, STEPS)
    found, _, counted = computed(path, PICTURE)
    assert found.note == "scales as the file states them"
    assert np.abs(counted - runtime(path, PICTURE)).max() <= 0.05 * 1.001
    assert decibels(runtime(path, PICTURE), counted) > 35


@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("axis", [{}, {"axis": 1}, {"axis": -1}], ids=str)
def test_a_softmax_of_integers_keeps_to_its_operator_set(opset: int, axis: dict[str, int],
                                                         tmp_path: Path) -> None:
    """Before 13 it takes all axes from that one on together."""
    inputs = {"x": drawn(1, 3, 4, spread=1)}
    softmax = node("QLinearSoftmax", ["q", "s", "z", "p", "z"], ["o"], domain=MICROSOFT,
                   opset=opset, **axis)
    path = saved(tmp_path, [INTO, softmax, node("DequantizeLinear", ["o", "p", "z"], ["y"])],
                 inputs, {"s": np.float32(0.03), "z": np.int8(0), "p": np.float32(1 / 127)})
    assert np.abs(computed(path, inputs)[2] - runtime(path, inputs)).max() <= 1.001 / 127


@pytest.mark.parametrize(("nodes", "inputs", "constants"), [
    *(([node(name, ["x"], ["y"], domain=MICROSOFT)], TOKENS, {})
      for name in ("Gelu", "FastGelu", "QuickGelu")),
    ([node("BiasGelu", ["x", "b"], ["y"], domain=MICROSOFT)], TOKENS, {"b": drawn(32)}),
    ([node("FusedConv", ["x", "w"], ["y"], domain=MICROSOFT, activation="LeakyRelu",
           activation_params=[0.2])], PICTURE, {"w": drawn(3, 4, 3, 3)}),
    ([node("FusedMatMul", ["x", "w"], ["y"], domain=MICROSOFT, transB=1, alpha=0.5)], TOKENS,
     {"w": drawn(5, 32)}),
    ([node("SimplifiedLayerNormalization", ["x", "g"], ["y"], epsilon=1e-6)], TOKENS,
     {"g": drawn(32) + 1}),
    ([node("SkipLayerNormalization", ["x", "x", "g", "b"], ["y"], domain=MICROSOFT)], TOKENS,
     {"g": drawn(32) + 1, "b": drawn(32, seed=9)}),
    ([node("PRelu", ["x", "s"], ["y"])], PICTURE, {"s": np.abs(drawn(4, 1, 1))}),
    ([node("Concat", ["x", "c"], ["y"], axis=1)], PICTURE, {"c": drawn(1, 2, 8, 8)}),
    ([node("ReduceL2", ["x", "a"], ["n"]), node("Clip", ["n", "e"], ["c"]),
      node("Div", ["x", "c"], ["y"])], TOKENS, {"a": [-1], "e": np.float32(1e-12)}),
    ([node("Sin", ["x"], ["s"]), node("Cos", ["x"], ["c"]), node("Mul", ["s", "c"], ["y"])],
     TOKENS, {}),
    ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)],
     PICTURE, {}),
    ([node("Einsum", ["x", "k"], ["y"], equation="bid,bjd->bij")], TOKENS,
     {"k": drawn(1, 4, 32)}),
    *(([node(name, ["x", "w", "r", "b"], ["y"], hidden_size=8, direction=way, **more)], SEQUENCE,
       {"w": drawn(count, gates * 8, 10), "r": drawn(count, gates * 8, 8),
        "b": drawn(count, 2 * gates * 8)})
      for name, gates, way, count, more in (
          ("LSTM", 4, "forward", 1, {}), ("LSTM", 4, "bidirectional", 2, {}),
          ("GRU", 3, "reverse", 1, {"linear_before_reset": 1}), ("GRU", 3, "forward", 1, {}),
          ("RNN", 1, "forward", 1, {}))),
], ids=lambda item: item[0].op_type if isinstance(item, list) else "")
def test_float_files_of_other_domains_and_in_time(
    nodes: list[onnx.NodeProto], inputs: Arrays, constants: Mapping[str, object], tmp_path: Path
) -> None:
    path = saved(tmp_path, nodes, inputs, constants)
    wanted = runtime(path, inputs)
    _, real, counted = computed(path, inputs)
    assert np.abs(real - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    assert decibels(wanted, counted) > 28


def test_cells_whose_last_state_alone_is_read_stay_apart(tmp_path: Path) -> None:
    """Two of them, one from a constant state: their first outputs have no names."""
    state = drawn(1, 2, 6)
    nodes = [node("GRU", ["x", "w", "r", "", "", *first], ["", name], hidden_size=6)
             for name, first in (("one", ["h"]), ("two", []), ("three", ["g"]))]
    nodes += [node("Sub", ["one", "two"], ["d"]), node("Add", ["d", "three"], ["y"])]
    path = saved(tmp_path, nodes, SEQUENCE, {
        "w": drawn(1, 18, 10), "r": drawn(1, 18, 6), "h": state, "g": -state})
    wanted = runtime(path, SEQUENCE)
    assert np.abs(computed(path, SEQUENCE)[1] - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_whole_numbers_come_in(kind: type, tmp_path: Path) -> None:
    """A picture as a camera gives it, or integers for ConvInteger, without losing a bit."""
    inputs = {"x": counts(1, 3, 8, 8, kind=kind)}
    means = np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1)
    cast = [node("Cast", ["x"], ["f"], to=1), node("Sub", ["f", "m"], ["d"]),
            node("Conv", ["d", "w"], ["y"])]
    path = saved(tmp_path, cast, inputs, {"m": means, "w": drawn(4, 3, 3, 3)})
    wanted = runtime(path, inputs)
    found, real, counted = computed(path, inputs)
    assert found.graph.tensors[found.graph.inputs[0]].scale == 1
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > 35
    assert_lowered(found, inputs)
    if kind is np.uint8:
        path = saved(tmp_path, [node("ConvInteger", ["x", "w", "xz"], ["c"], pads=[1] * 4),
                                node("Cast", ["c"], ["y"], to=1)], inputs,
                     {"w": counts(4, 3, 3, 3), "xz": np.uint8(100)})
        wanted = runtime(path, inputs)
        assert np.abs(computed(path, inputs)[1] - wanted).max() <= 1e-5 * np.abs(wanted).max()


INNER = [node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), node("Clip", ["t", "", "top"], ["l"]),
         node("Pad", ["l", "pads", "five"], ["p"]), node("Concat", ["p", "more"], ["i"], axis=1)]
WHOLE = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "five": np.uint8(5), "top": np.uint8(200),
         "more": np.full((1, 1, 9, 10), 60, np.uint8), "zero": np.uint8(100)}


@pytest.mark.parametrize("last", [
    [node("ConvInteger", ["i", "w", "zero"], ["c"]), node("Cast", ["c"], ["y"], to=1)],
    [node("Reshape", ["i", "rows"], ["r"]), node("MatMulInteger", ["r", "m", "zero"], ["c"]),
     node("Cast", ["c"], ["y"], to=1)],
    [node("DequantizeLinear", ["i", "s", "zero"], ["y"])],
], ids=lambda last: last[-2 if len(last) > 1 else 0].op_type)
def test_integers_that_came_in_stay_such_while_they_move(last: list[onnx.NodeProto],
                                                        tmp_path: Path) -> None:
    """The zero point is taken off behind steps that move, bound, pad and join."""
    inputs = {"x": counts(1, 3, 8, 8, kind=np.uint8)}
    path = saved(tmp_path, [*INNER, *last], inputs, {
        **WHOLE, "w": counts(4, 4, 3, 3), "m": counts(9, 5), "s": np.float32(0.1),
        "rows": np.array([40, 9])})
    wanted = runtime(path, inputs)
    assert np.abs(computed(path, inputs)[1] - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_constants_that_join_integers_are_integers(tmp_path: Path) -> None:
    path = saved(tmp_path, [INTO, node("Concat", ["q", "more"], ["i"], axis=1),
                            node("DequantizeLinear", ["i", "s", "z"], ["y"])],
                 PICTURE, {"s": np.float32(0.02), "z": np.int8(0), "more": counts(1, 2, 8, 8)})
    wanted = runtime(path, PICTURE)
    assert np.abs(computed(path, PICTURE)[2] - wanted).max() <= 0.02 * 1.001


def test_ranges_taken_at_run_time_are_calibrated(tmp_path: Path) -> None:
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "qz"]),
             node("MatMulInteger", ["q", "w", "qz"], ["m"]), node("Cast", ["m"], ["f"], to=1),
             node("Mul", ["s", "ws"], ["both"]), node("Mul", ["f", "both"], ["y"])]
    path = saved(tmp_path, nodes, TOKENS, {"w": counts(32, 7), "ws": np.float32(0.01)})
    found, _, counted = computed(path, TOKENS)
    assert "1 ranges that the file takes at run time calibrated" in found.note
    assert decibels(runtime(path, TOKENS), counted) > 30


@pytest.mark.parametrize(("bits", "signed"), [(4, 1), (8, 1), (2, 1), (4, 0)])
def test_qonnx_files_keep_their_low_bits(bits: int, signed: int, tmp_path: Path) -> None:
    """Quant rounds to scale * integer, bounded by its width, weights and activations."""
    limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    scale, weights = np.float32(0.25), drawn(5, 4, 1, 1)
    steps = (np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 7).astype(np.float32)
    path = saved(tmp_path, [
        node("Quant", ["x", "s", "z", "n"], ["a"], domain=QONNX, signed=signed, narrow=0,
             rounding_mode="ROUND"),
        node("Quant", ["w", "ws", "z", "four"], ["v"], domain=QONNX, signed=1, narrow=1),
        node("Conv", ["a", "v"], ["y"])], PICTURE,
        {"s": scale, "z": np.float32(0), "n": np.float32(bits), "four": np.float32(4),
         "w": weights, "ws": steps})
    active = np.clip(np.rint(PICTURE["x"] / scale), *limits) * scale
    rounded = np.clip(np.rint(weights / steps), -7, 7) * steps
    wanted = np.einsum("oc,bcij->boij", rounded[:, :, 0, 0], active)
    found, _, counted = computed(path, PICTURE)
    assert decibels(wanted, counted) > 35
    quantized = next(found.graph.constant(layer, "weights") for layer in found.graph.layers
                     if "weights" in layer.constants)
    assert np.array_equal(quantized, np.rint(weights / steps).clip(-7, 7).astype(np.int8))
    assert found.graph.narrow_layers == {
        layer.name for layer in found.graph.layers if "weights" in layer.constants}


@pytest.mark.parametrize("around", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("constant", [False, True])
def test_samplings_beyond_the_picture(around: str, corners: int, constant: bool,
                                      tmp_path: Path) -> None:
    grid = np.clip(drawn(1, 5, 4, 2, spread=1.3), -2.4, 2.4)
    inputs = {"x": drawn(1, 3, 16, 12), **({} if constant else {"g": grid})}
    path = saved(tmp_path, [node("GridSample", ["x", "g"], ["y"], align_corners=corners,
                                 padding_mode=around)], inputs, {"g": grid} if constant else {})
    wanted = runtime(path, inputs)
    found, real, counted = computed(path, inputs)
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > 30
    assert_lowered(found, inputs)


@pytest.mark.parametrize("operator", ["Conv", "GridSample", "MaxPool", "ConvTranspose", "Resize"])
def test_three_axes(operator: str, tmp_path: Path) -> None:
    """What face-animation generators have between their two-dimensional ends."""
    inputs, constants = {"x": drawn(2, 4, 3, 6, 5)}, {"w": drawn(4, 4, 3, 3, 3)}
    match operator:
        case "GridSample":
            inputs = {**inputs, "g": np.clip(drawn(2, 3, 5, 4, 3), -1.1, 1.1)}
            made = node(operator, ["x", "g"], ["y"], align_corners=0)
        case "MaxPool":
            made = node(operator, ["x"], ["y"], kernel_shape=[1, 2, 2], strides=[1, 2, 2])
        case "Resize":
            constants = {"scales": np.float32([1, 1, 1, 2, 2])}
            made = node(operator, ["x", "", "scales"], ["y"], mode="nearest")
        case _:
            made = node(operator, ["x", "w"], ["y"], pads=[1] * 6, strides=[1, 2, 2])
    path = saved(tmp_path, [made], inputs, constants)
    wanted = runtime(path, inputs)
    found, real, counted = computed(path, inputs)
    assert real.shape == wanted.shape
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > 28
    assert_lowered(found, inputs)


@pytest.mark.parametrize(("nodes", "reason"), [
    ([node("Quant", ["x", "s", "one", "n"], ["y"], domain=QONNX)], "zero point must be 0"),
    ([node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, clip=1.0)], "clip and input_forget"),
    ([node("DynamicQuantizeLinear", ["x"], ["y", "a", "b"])], "quantize the network statically"),
    ([node("QuantizeLinear", ["x", "s", "zeros"], ["q"]),
      node("DequantizeLinear", ["q", "s", "zeros"], ["y"])], "one scale and one zero point"),
    ([node("QuantizeLinear", ["x", "s", "eight"], ["q"]),
      node("DequantizeLinear", ["q", "s", "zeros"], ["y"])], "one scale and one zero point"),
    ([node("Quant", ["x", "s", "none", "widths"], ["y"], domain=QONNX)], "width must be one"),
    ([node("FusedMatMul", ["x", "x"], ["y"], domain=MICROSOFT, transBatchA=1)], "transBatchB must"),
    ([node("FusedMatMul", ["x", "x"], ["y"], domain=MICROSOFT, transBatchB=1)], "transBatchB must"),
    ([node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml")], "no trees"),
])
def test_refusals_say_what_to_do(nodes: list[onnx.NodeProto], reason: str,
                                 tmp_path: Path) -> None:
    path = saved(tmp_path, nodes, {"x": drawn(3, 1, 4)}, {
        "s": np.float32(1), "one": np.float32(1), "n": np.float32(4), "w": drawn(1, 8, 4),
        "r": drawn(1, 8, 2), "none": np.float32(0), "widths": np.float32([4, 8, 4, 4]),
        "zeros": np.int8([0, 0, 0, 1]), "eight": np.int8(0)})
    with pytest.raises(GraphError, match=f"case.onnx: 1 nodes are not supported: .*{reason}"):
        import_onnx(path)


@pytest.mark.parametrize("last", [
    node("ConvInteger", ["i", "w", "zero"], ["y"]),
    node("MatMulInteger", ["i", "m", "zero"], ["y"]),
    node("DequantizeLinear", ["i", "s", "zero"], ["y"]),
], ids=lambda last: last.op_type)
def test_a_zero_point_of_what_is_not_known_to_be_integers_is_refused(last: onnx.NodeProto,
                                                                     tmp_path: Path) -> None:
    """A sum of bytes may have run over: it is no value any more."""
    path = saved(tmp_path, [node("Add", ["x", "five"], ["i"]), last],
                 {"x": np.zeros((1, 3, 8, 8), np.uint8)},
                 {**WHOLE, "w": counts(4, 3, 3, 3), "m": counts(8, 5), "s": np.float32(0.1)})
    with pytest.raises(GraphError, match=r"'i' must be .*integers|or 'i' integers"):
        import_onnx(path)
