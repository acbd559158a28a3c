"""Are zero points kept exactly where all that reads them can take them, and widened elsewhere?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from arch_models.board import load_board
from arch_models.overlay import Engine, Infeasible, default_overlay
from cosim.build import build
from hw.csim.simulate import run_frame_by_layer
from studies.evaluation.evaluate import feasible
from studies.evaluation.inputs import Reading
from studies.evaluation.losses import decibels
from studies.validate.onnx import layers
from studies.validate.onnx.layers import agreement, share_within_one
from studies.validate.onnx.outputs import outputs
from tests.support.onnx_beside import assert_lowered, computed, read_plainly, runtime
from tests.support.onnx_models import model_of
from tests.support.small_frames import QUICK
from workloads.graph import GraphError, Operator
from workloads.onnx.importer import import_onnx

node = onnx.helper.make_node
STEP = 0.1


def counted(name: str, out: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """name, quantized and taken back as `out`."""
    return [node("QuantizeLinear", [name, scale, zero], [f"{out}.q"]),
            node("DequantizeLinear", [f"{out}.q", scale, zero], [out])]


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng([2, *shape]).integers(-127, 128, shape).astype(np.int8)


CONSTANTS = {
    "s": np.float32(0.03), "z": np.int8(0), "t": np.float32(0.02), "u": np.float32(STEP),
    "byte": np.float32(1 / 255), "least": np.uint8(0), "a": weights(8, 4, 1, 1),
    "b": weights(6, 8, 3, 3), "m": weights(5, 8), "g": weights(5, 4), "h": weights(8, 1, 3, 3),
    "tr": weights(8, 5, 3, 3),
    "ws": np.float32(0.004), "pads": np.array([0, 0, 1, 0, 0, 0, 1, 2]),
    "twice": np.array([1, 1, 2, 2], np.float32), "start": np.array([0]), "end": np.array([6]),
    "one": np.array([1]), "other": np.uint8(140), "v": np.float32(0.05), "later": np.uint8(61),
    "j": weights(6, 16, 1, 1), "by": np.linspace(0.5, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1),
    "bytes": np.arange(0, 256, 34, np.uint8)[:8].reshape(1, 8, 1, 1),
    "ones": np.ones(8, np.float32), "none": np.zeros(8, np.float32)}
LEFT = [*counted("x", "d", "s", "z"), node("DequantizeLinear", ["a", "ws", "z"], ["wa"]),
        node("DequantizeLinear", ["b", "ws", "z"], ["wb"]),
        node("DequantizeLinear", ["m", "ws", "z"], ["wm"]),
        node("DequantizeLinear", ["g", "ws", "z"], ["wg"]),
        node("DequantizeLinear", ["h", "ws", "z"], ["wk"]),
        node("DequantizeLinear", ["tr", "ws", "z"], ["wt"]),
        node("DequantizeLinear", ["j", "ws", "z"], ["wj"])]
VALUES = {"x": np.random.default_rng(3).normal(0, 1, (1, 4, 6, 6)).astype(np.float32)}


def saved(folder: Path, zero: np.ndarray, nodes: list[onnx.NodeProto]) -> Path:
    """A network whose first product's output has that zero point; its own is symmetric."""
    used = [*LEFT, *nodes, *counted("c", "y", "u", "z")]
    read = {name for item in used for name in item.input}
    model = model_of(used, {"x": VALUES["x"].shape}, "y", {
        name: array for name, array in {**CONSTANTS, "zero": zero}.items() if name in read})
    onnx.save(model, folder / "case.onnx")
    return folder / "case.onnx"


CONVOLUTIONS = [node("Conv", ["d", "wa"], ["e"]), *counted("e", "f", "t", "zero"),
                node("Conv", ["f", "wb"], ["c"])]
MATRICES = [node("GlobalMaxPool", ["d"], ["high"]), node("Flatten", ["high"], ["flat"]),
            node("Gemm", ["flat", "wg"], ["e"], transB=1), *counted("e", "f", "t", "zero"),
            node("MatMul", ["f", "wm"], ["c"])]
FIRST = CONVOLUTIONS[:-1]
#: What pads with a zero point, or passes one on to what does.
PADDING = {
    "even": [*FIRST, node("Conv", ["f", "wb"], ["c"], pads=[1] * 4)],
    "uneven, with a stride": [
        *FIRST, node("Conv", ["f", "wb"], ["c"], pads=[0, 1, 2, 1], strides=[2, 2])],
    "dilated": [*FIRST, node("Conv", ["f", "wb"], ["c"], pads=[2] * 4, dilations=[2, 2])],
    "same": [*FIRST, node("Conv", ["f", "wb"], ["c"], auto_pad="SAME_UPPER")],
    "depthwise": [*FIRST, node("Conv", ["f", "wk"], ["c"], pads=[1] * 4, group=8)],
    "transposed": [*FIRST, node("ConvTranspose", ["f", "wt"], ["c"], strides=[2, 2],
                                pads=[1, 1, 0, 0])],
    "transposed, beyond its reach": [*FIRST, node(
        "ConvTranspose", ["f", "wt"], ["c"], strides=[2, 2], pads=[3, 3, 3, 3])],
    "a pad": [*FIRST, node("Pad", ["f", "pads"], ["k"]), *counted("k", "l", "t", "zero"),
              node("Conv", ["l", "wb"], ["c"])],
    "maxima": [*FIRST, node("MaxPool", ["f"], ["k"], kernel_shape=[3, 3], pads=[1] * 4),
               *counted("k", "l", "t", "zero"), node("Conv", ["l", "wb"], ["c"], pads=[1] * 4)],
    "repeated": [*FIRST, node("Resize", ["f", "", "twice"], ["k"], mode="nearest"),
                 *counted("k", "l", "t", "zero"), node("Conv", ["l", "wb"], ["c"], pads=[1] * 4)],
    "two readers": [*FIRST, node("Conv", ["f", "wb"], ["c1"], pads=[1] * 4), node(
        "Sigmoid", ["f"], ["c2"]), node("Slice", ["c2", "start", "end", "one"], ["c3"]),
        node("Add", ["c1", "c3"], ["c"])],
    "counted anew": [*FIRST, *counted("f", "l", "u", "other"),
                     node("Conv", ["l", "wb"], ["c"], pads=[1] * 4)],
}
#: Two activations, f and r, each with a zero point of its own.
SECOND = [*FIRST, node("Conv", ["f", "wk"], ["e2"], pads=[1] * 4, group=8),
          *counted("e2", "r", "v", "other")]


def behind(made: onnx.NodeProto, kernels: str = "wb", **window: list[int]) -> list[onnx.NodeProto]:
    """A node that makes k, which is quantized with a zero point, and a convolution of that."""
    return [*SECOND, made, *counted("k", "l", "v", "later"),
            node("Conv", ["l", kernels], ["c"], **window)]


PAD = {"pads": [1] * 4}
#: Where two activations with zero points meet, or one is averaged.
MEETING = {
    "a sum": behind(node("Add", ["f", "r"], ["k"]), **PAD),
    "a difference": behind(node("Sub", ["r", "f"], ["k"]), **PAD),
    "a sum, then a ReLU": [
        *SECOND, node("Add", ["f", "r"], ["k0"]), node("Relu", ["k0"], ["k"]),
        *counted("k", "l", "v", "least"), node("Conv", ["l", "wb"], ["c"], **PAD)],
    "a product": behind(node("Mul", ["f", "r"], ["k"]), **PAD),
    "a product with constants": behind(node("Mul", ["f", "by"], ["k"]), **PAD),
    "a product with counted constants": [
        node("DequantizeLinear", ["bytes", "byte", "least"], ["gains"]),
        *behind(node("Mul", ["f", "gains"], ["k"]), **PAD)],
    "a gate": [
        *SECOND, node("GlobalAveragePool", ["r"], ["m0"]), *counted("m0", "m1", "s", "later"),
        node("Sigmoid", ["m1"], ["m2"]), *counted("m2", "m3", "byte", "least"),
        node("Mul", ["f", "m3"], ["c1"]), *counted("c1", "c2", "v", "later"),
        node("Conv", ["c2", "wb"], ["c"], **PAD)],
    "a concatenation": behind(node("Concat", ["f", "r"], ["k"], axis=1), "wj"),
    "a mean": behind(node("AveragePool", ["f"], ["k"], kernel_shape=[2, 2]), **PAD),
    "a mean of pads, too": behind(node(
        "AveragePool", ["f"], ["k"], kernel_shape=[3, 3], count_include_pad=1, **PAD), **PAD),
    "a mean without pads": behind(node(
        "AveragePool", ["f"], ["k"], kernel_shape=[3, 3], **PAD), **PAD),
    "linear": behind(node("Resize", ["f", "", "twice"], ["k"], mode="linear"), **PAD),
    "a norm": behind(node("InstanceNormalization", ["f", "ones", "none"], ["k"]), **PAD),
}
#: What no layer holds zero points in.
OTHERS = [[*SECOND, node(operator, ["f", "r"], ["c"])] for operator in ("MatMul", "Max")]


@pytest.mark.parametrize("zero", [np.uint8(97), np.uint8(0), np.uint8(255), np.int8(-31)], ids=str)
@pytest.mark.parametrize("nodes", [CONVOLUTIONS, MATRICES], ids=["Conv", "Gemm"])
def test_a_zero_point_that_products_read_is_exact(nodes: list[onnx.NodeProto], zero: np.ndarray,
                                                  tmp_path: Path) -> None:
    """No value is further than a step, nearly all are equal: what differs lies near a half."""
    path = saved(tmp_path, zero, nodes)
    found, _, made = computed(path, VALUES)
    apart = np.rint((made - runtime(path, VALUES)) / STEP)
    assert "with a zero point held exactly" in found.note and "widened" not in found.note
    assert np.abs(apart).max() <= 1 and (apart == 0).mean() > 0.98
    assert_lowered(found, VALUES)


def test_a_table_ends_at_the_zero_point(tmp_path: Path) -> None:
    """A sigmoid from 0 to 255: no bit is lost before the product behind it."""
    path = saved(tmp_path, np.uint8(0), [
        node("Sigmoid", ["d"], ["e"]), *counted("e", "f", "byte", "least"),
        node("Conv", ["f", "wa"], ["c"])])
    found, _, made = computed(path, VALUES)
    assert "1 with a zero point held exactly" in found.note
    assert np.abs(made - runtime(path, VALUES)).max() <= STEP * 1.001
    assert decibels(runtime(path, VALUES), made) > 30


@pytest.mark.parametrize("zero", [np.uint8(97), np.uint8(0)], ids=str)
@pytest.mark.parametrize("name", PADDING)
def test_padding_stands_for_zero(name: str, zero: np.ndarray, tmp_path: Path) -> None:
    """No value is further than a step, and the Program of a design that pads so has every byte."""
    path = saved(tmp_path, zero, PADDING[name])
    found, real, made = computed(path, VALUES)
    right = runtime(path, VALUES)
    apart = np.rint((made - right) / STEP)
    assert "with a zero point held exactly" in found.note and "widened" not in found.note
    assert np.abs(apart).max() <= 1 and (apart == 0).mean() > 0.9
    assert decibels(right, real) > 20  # the float network does not round, but it cuts off
    if name in ("even", "uneven, with a stride", "depthwise", "transposed", "a pad", "maxima"):
        assert_lowered(found, VALUES, replace(default_overlay(), zero_points=True))


@pytest.mark.parametrize("zero", [np.uint8(97), np.uint8(0)], ids=str)
@pytest.mark.parametrize("name", MEETING)
def test_zero_points_that_meet_are_exact(name: str, zero: np.ndarray, tmp_path: Path) -> None:
    """No value is further than a step (two where each axis is interpolated and rounded), and the
    Program of a design that holds them has every byte. One mean of four in four is a half, which
    the file rounds to even without its zero point."""
    path = saved(tmp_path, zero, MEETING[name])
    found, real, made = computed(path, VALUES)
    right = runtime(path, VALUES)
    apart = np.rint((made - right) / STEP)
    assert "with a zero point held exactly" in found.note and "widened" not in found.note
    assert np.abs(apart).max() <= 1 + (name == "linear") and (apart == 0).mean() > 0.6
    assert decibels(right, real) > 18  # the float network does not round, but it cuts off
    assert_lowered(found, VALUES, replace(default_overlay(), zero_points=True))


def test_a_sum_behind_a_relu_needs_no_table(tmp_path: Path) -> None:
    """Integers that end at zero are the ReLU."""
    found, _, _ = computed(saved(tmp_path, np.uint8(97), MEETING["a sum, then a ReLU"]), VALUES)
    assert [layer.operator for layer in found.graph.layers] == [
        Operator.CONVOLUTION, Operator.CONVOLUTION, Operator.ADD, Operator.CONVOLUTION]


def test_sums_leave_the_fabric_of_a_design_without_zero_points(tmp_path: Path) -> None:
    nodes = [*SECOND, node("Add", ["f", "r"], ["c"])]
    graph = import_onnx(saved(tmp_path, np.uint8(97), nodes), [VALUES]).graph
    name = next(layer.name for layer in graph.layers if layer.operator is Operator.ADD)
    engines = {}
    for zero_points in (False, True):
        free = replace(graph, layers=tuple(replace(layer, window=replace(
            layer.window, pad_value=0)) for layer in graph.layers))
        lowered = feasible(build(free, replace(default_overlay(), zero_points=zero_points),
                                 load_board("pynq-z1")))
        engines[zero_points] = next(item for item in lowered.mapping.layers if item.name == name)
    assert engines[False].engine is None and "zero_points" in engines[False].why_host
    assert engines[True].engine is Engine.ELEMENTWISE


def ends(path: Path, first: np.ndarray, last: np.ndarray, back: bool) -> Path:
    """As onnxruntime's quantizer writes a file by default: zero points at both ends; the output
    is taken back to values, or stays integers."""
    nodes = [*counted("x", "d", "t", "first"), node("DequantizeLinear", ["a", "ws", "z"], ["wa"]),
             node("Conv", ["d", "wa"], ["c"], pads=[1] * 4), *counted("c", "y", "u", "last")]
    kind = onnx.helper.np_dtype_to_tensor_dtype(last.dtype)
    if not back:
        nodes = [*nodes[:-2], node("QuantizeLinear", ["c", "u", "last"], ["y"])]
    model = model_of(nodes, {"x": VALUES["x"].shape}, "y", {
        "t": np.float32(0.02), "first": first, "a": CONSTANTS["a"], "z": np.int8(0),
        "ws": np.float32(0.004), "u": np.float32(0.02), "last": last})
    if not back:
        model.graph.output[0].type.tensor_type.elem_type = kind
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("back", [True, False], ids=["values", "integers"])
@pytest.mark.parametrize(("first", "last"), [
    (np.uint8(97), np.uint8(140)), (np.uint8(0), np.uint8(255)), (np.int8(-128), np.int8(17))],
    ids=str)
def test_a_network_counts_from_zero_at_its_ends(first: np.ndarray, last: np.ndarray, back: bool,
                                                tmp_path: Path) -> None:
    """Not a bit is lost, and who knows scales alone gives and reads what is true."""
    path = ends(tmp_path / "ends.onnx", first, last, back)
    found, _, made = computed(path, VALUES)
    right = runtime(path, VALUES).astype(float)
    step = 0.02 if back else 1
    apart = np.rint((made - right) / step)
    assert "2 with a zero point held exactly" in found.note
    assert np.abs(apart).max() <= 1 and (apart == 0).mean() > 0.98
    values = right if back else (right - int(last)) * 0.02
    plain = np.rint((read_plainly(found, VALUES).reshape(right.shape) - values) / 0.02)
    assert np.array_equal(plain, apart)
    assert_lowered(found, VALUES, replace(default_overlay(), zero_points=True))


@pytest.mark.parametrize("nodes", [CONVOLUTIONS, MATRICES, *PADDING.values()],
                         ids=["convolutions", "matrices", *PADDING])
def test_readers_need_no_zero_point(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    found, _, made = computed(saved(tmp_path, np.uint8(97), nodes), VALUES)
    assert np.array_equal(read_plainly(found, VALUES).reshape(-1), made.reshape(-1))


def test_layers_agree_from_end_to_end(tmp_path: Path) -> None:
    """Layer by layer on the runtime's own integers, and each is compared."""
    for back in (True, False):
        path = ends(tmp_path / "ends.onnx", np.uint8(97), np.uint8(140), back)
        layers = agreement(import_onnx(path, [VALUES]), path)
        assert [item.operator for item in layers] == [
            "affine", "convolution" if back else "affine"]
        assert share_within_one(layers) == 1


def test_the_host_adds_and_takes_away_zero_points_in_c(tmp_path: Path) -> None:
    path = ends(tmp_path / "ends.onnx", np.uint8(97), np.uint8(140), back=True)
    graph = import_onnx(path, [VALUES]).graph
    overlay = replace(default_overlay(), zero_points=True)
    lowered = feasible(build(graph, overlay, load_board("pynq-z1")))
    report = run_frame_by_layer(lowered, graph, overlay, seed=4, flags=QUICK)
    assert (report.values_differing, report.where) == (0, "")


def test_symmetric_leaves_no_work_at_the_ends(tmp_path: Path) -> None:
    path = ends(tmp_path / "ends.onnx", np.uint8(97), np.uint8(140), back=True)
    found = import_onnx(path, [VALUES], symmetric=True)
    assert "2 ranges with a zero point widened" in found.note and "exactly" not in found.note
    assert [layer.operator for layer in found.graph.layers] == [Operator.CONVOLUTION]


def test_a_design_that_pads_with_zero_alone_says_what_it_lacks(tmp_path: Path) -> None:
    """`--symmetric` widens what such a design cannot hold, and nothing else."""
    path = saved(tmp_path, np.uint8(97), PADDING["even"])
    found = build(import_onnx(path, [VALUES]).graph, default_overlay(), load_board("pynq-z1"))
    assert isinstance(found, Infeasible)
    assert (found.field, found.levers) == ("zero_points", ("zero_points",))
    widened = import_onnx(path, [VALUES], symmetric=True)
    assert "1 ranges with a zero point widened" in widened.note
    assert not isinstance(build(widened.graph, default_overlay(), load_board("pynq-z1")),
                          Infeasible)


@pytest.mark.parametrize(("nodes", "reader"), [(OTHERS[0], "MatMul"), (OTHERS[1], "Max")],
                         ids=["a matrix product", "a maximum of two"])
def test_what_computes_otherwise_is_refused_or_widened(nodes: list[onnx.NodeProto], reader: str,
                                                       tmp_path: Path) -> None:
    path = saved(tmp_path, np.uint8(97), nodes)
    with pytest.raises(GraphError, match=f"zero point must be 128 .*, for {reader} reads it"):
        import_onnx(path, [VALUES])
    assert "2 ranges with a zero point widened" in import_onnx(path, [VALUES], symmetric=True).note


@pytest.mark.parametrize("name", ["a sum", "a product"])
def test_symmetric_widens_what_meets(name: str, tmp_path: Path) -> None:
    """Such a design adds no offset to a sum."""
    graph = import_onnx(saved(tmp_path, np.uint8(97), MEETING[name]), [VALUES],
                        symmetric=True).graph
    assert not any({"offset", "zeros"} & set(layer.constants) for layer in graph.layers)
    assert not isinstance(build(graph, default_overlay(), load_board("pynq-z1")), Infeasible)


def test_widened_layers_are_judged_at_the_outputs_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their integers count in other steps than the file's, which is no fault of a layer."""
    path = saved(tmp_path, np.uint8(97), [*SECOND, node("Mul", ["f", "r"], ["c"])])
    found = import_onnx(path, [VALUES], symmetric=True)
    assert share_within_one(agreement(found, path)) in (None, 1)
    [end], _ = outputs(path, found, Reading(symmetric=True))
    assert end.good
    monkeypatch.setattr(layers, "SAME_STEP", np.inf)
    share = share_within_one(agreement(found, path))
    assert share is not None and share < layers.WANTED_SHARE


def test_a_refusal_names_the_first_of_very_many_nodes(tmp_path: Path) -> None:
    nodes = [node("NonZero", ["x"], [f"y{index}"], name=f"n{index}") for index in range(40)]
    model = model_of(nodes, {"x": (1, 4)}, "y0")
    onnx.save(model, tmp_path / "many.onnx")
    with pytest.raises(GraphError, match=r"40 nodes .* 'n0', .*'n23' and 16 more: ") as told:
        import_onnx(tmp_path / "many.onnx")
    assert "n24" not in str(told.value)
