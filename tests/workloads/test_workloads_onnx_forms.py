"""Do the many forms in which files say the same come out as onnxruntime computes them?

Branches, comparisons, elements that are put somewhere, sums along an axis, old classifiers'
norms, rules of resizing, low-bit weights; and do refusals name the node and say what to do?
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.evaluation.inputs import PLAIN
from studies.evaluation.losses import decibels
from studies.validate.onnx.outputs import outputs
from tests.support.onnx_beside import computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import GraphError
from workloads.onnx.importer import import_onnx

node = onnx.helper.make_node
MICROSOFT = "com.microsoft"
CONSTANTS = {
    "zero": np.float32(0), "tenth": np.float32(0.1), "two": np.float32(2), "many": np.float32(20),
    "true": np.array(True), "false": np.array(False), "none": np.zeros(0, np.float32),
    "last": np.array(-1), "first": np.array([0]), "second": np.array([1]),
    "pads": np.array([0, 0, -1, 2, 0, 0, 1, -3]), "mask": np.tril(np.ones((7, 7))) > 0,
    "places": np.array([[[0, 1], [0, 3]]]), "slices": np.ones((1, 2, 7, 7), np.float32),
    "down": np.array([1, 1, 0.7, 1.5], np.float32), "up": np.array([1, 1, 1.6, 0.6], np.float32),
    "m": np.random.default_rng(1).normal(0, 1, (7, 5)).astype(np.float32),
    "bytes": np.random.default_rng(2).integers(0, 255, (7, 5), np.uint8), "middle": np.uint8(120),
    "step": np.float32(0.01), "size": np.array([1, 4, 7, 7])}
SHAPE = (1, 4, 7, 7)


def saved(folder: Path, nodes: list[onnx.NodeProto], opset: int = 20,
          inputs: dict[str, tuple[int, ...]] | None = None) -> Path:
    """A model with the constants that its nodes mention."""
    text = str(nodes)
    used = {name: array for name, array in CONSTANTS.items() if f'"{name}"' in text}
    model = model_of(nodes, inputs or {"x": SHAPE}, "y", used, opset)
    model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    model.ir_version = 9
    onnx.save(model, folder / "case.onnx")
    return folder / "case.onnx"


def drawn(path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {item.name: random.normal(0, 1, [
        axis.dim_value for axis in item.type.tensor_type.shape.dim]).astype(np.float32)
        for item in onnx.load(path).graph.input}


def assert_right(path: Path, least: float = 25) -> None:
    """Floats within 1e-5 of the greatest value, integers at least so many decibels."""
    values = drawn(path)
    wanted = runtime(path, values).astype(np.float64)
    _, real, counted = computed(path, values)
    assert real.shape == wanted.shape
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > least


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A graph without inputs that hands on what its last node makes."""
    out = onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    return onnx.helper.make_graph(nodes, "branch", [], [out])


POSITIVE, NEGATIVE = branch(node("Relu", ["c"], ["b"])), branch(node("Neg", ["c"], ["b"]))


@pytest.mark.parametrize("taken", [True, False])
def test_the_branch_of_a_known_condition_is_taken(taken: bool, tmp_path: Path) -> None:
    """Nested and twice with the same names; what a branch reads stays as it was."""
    inner = branch(node("If", ["true"], ["b"], then_branch=POSITIVE, else_branch=NEGATIVE))
    path = saved(tmp_path, [
        node("Add", ["x", "tenth"], ["c"]),
        node("If", [str(taken).lower()], ["one"], then_branch=inner, else_branch=NEGATIVE),
        node("If", ["true"], ["other"], then_branch=NEGATIVE, else_branch=POSITIVE),
        node("Concat", ["one", "other"], ["y"], axis=1)])
    assert_right(path)


@pytest.mark.parametrize("nodes", [
    [node("Greater", ["x", "tenth"], ["g"]), node("Where", ["g", "x", "two"], ["y"])],
    [node("LessOrEqual", ["x", "tenth"], ["g"]), node("Not", ["g"], ["n"]),
     node("And", ["n", "mask"], ["a"]), node("Where", ["a", "x", "zero"], ["y"])],
    [node("Less", ["x", "zero"], ["g"]), node("Cast", ["g"], ["f"], to=1),
     node("Mul", ["f", "x"], ["y"])],
    [node("GreaterOrEqual", ["x", "zero"], ["g"]), node("Less", ["x", "tenth"], ["l"]),
     node("Or", ["g", "l"], ["o"]), node("Xor", ["o", "mask"], ["e"]),
     node("Cast", ["e"], ["y"], to=1)],
    [node("Mul", ["x", "two"], ["t"]), node("Cast", ["t"], ["i"], to=7),
     node("Cast", ["i"], ["y"], to=1)],
    [node("Pow", ["two", "x"], ["y"])],
    [node("CumSum", ["x", "last"], ["y"])],
    [node("CumSum", ["x", "last"], ["y"], exclusive=1, reverse=1)],
    [node("ScatterND", ["x", "places", "slices"], ["y"])],
    [node("Slice", ["x", "first", "second", "second"], ["part"]),
     node("Concat", ["part", "part"], ["parts"], axis=1), node("Tanh", ["parts"], ["put"]),
     node("ScatterND", ["x", "places", "put"], ["y"])],
    [node("Einsum", ["x"], ["y"], equation="bchw->bwc")],
    [node("Einsum", ["x", "m"], ["y"], equation="...i,ij->...j")],
    [node("Einsum", ["x", "m"], ["y"], equation="bchw,wd")],
    [node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.6, bias=2.0)],
    [node("LpPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])],
    [node("GlobalLpPool", ["x"], ["y"])],
], ids=lambda nodes: "-".join(item.op_type for item in nodes))
def test_forms_of_the_same_come_out_right(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    assert_right(saved(tmp_path, nodes))


def test_a_fused_product_is_single_steps(tmp_path: Path) -> None:
    fused = node("FusedGemm", ["x", "m"], ["y"], domain=MICROSOFT, activation="LeakyRelu",
                 activation_alpha=0.25)
    assert_right(saved(tmp_path, [fused], inputs={"x": (3, 7)}))


@pytest.mark.parametrize("opset", [11, 19])
@pytest.mark.parametrize(("mode", "way"), [
    ("asymmetric", "floor"), ("asymmetric", "ceil"), ("half_pixel", "round_prefer_floor")])
def test_the_nearest_place_is_the_one_that_single_precision_finds(
    mode: str, way: str, opset: int, tmp_path: Path,
) -> None:
    """3 / 0.6 is 5 there, and a little less in double precision."""
    made = node("Resize", ["x", "none", "up"], ["y"], mode="nearest", nearest_mode=way,
                coordinate_transformation_mode=mode)
    assert_right(saved(tmp_path, [made], opset))


def test_operator_set_10_shrinks_to_the_place_behind(tmp_path: Path) -> None:
    assert_right(saved(tmp_path, [node("Resize", ["x", "down"], ["y"], mode="nearest")], 10))


def test_negative_pads_cut_off(tmp_path: Path) -> None:
    assert_right(saved(tmp_path, [node("Pad", ["x", "pads"], ["y"])]))


def test_weights_of_four_bits_and_in_blocks_are_what_they_stand_for(tmp_path: Path) -> None:
    """Four bits less any zero point are integers of eight: nothing is widened."""
    for kind, zero in (("INT4", 3), ("UINT4", 5)):
        low = -8 if kind == "INT4" else 0
        raw = np.random.default_rng(3).integers(low, low + 16, (8, 6))
        model = model_of(
            [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["raw", "scales", "zeros"], ["w"], axis=0, block_size=4),
             node("MatMul", ["d", "w"], ["y"])], {"x": (1, 5, 8)}, "y",
            {"s": np.float32(0.02), "z": np.int8(0),
             "scales": np.linspace(0.01, 0.05, 12, dtype=np.float32).reshape(2, 6)}, opset=21)
        number = getattr(onnx.TensorProto, kind)
        model.graph.initializer.extend([
            onnx.helper.make_tensor("raw", number, raw.shape, raw.reshape(-1).tolist()),
            onnx.helper.make_tensor("zeros", number, (2, 6), [zero] * 12)])
        path = tmp_path / f"{kind}.onnx"
        onnx.save(model, path)
        values = drawn(path)
        found, _, counted = computed(path, values)
        assert found.note == "scales as the file states them"
        assert decibels(runtime(path, values), counted) > 30


def test_a_zero_point_of_weights_that_fit_is_exact(tmp_path: Path) -> None:
    """uint8 with zero point 100, no value above 227: int8 holds each of them."""
    raw = np.random.default_rng(4).integers(0, 228, (6, 4, 3, 3), np.uint8)
    path = tmp_path / "case.onnx"
    onnx.save(model_of(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("DequantizeLinear", ["q", "s", "z"], ["d"]),
         node("DequantizeLinear", ["raw", "s", "hundred"], ["w"]),
         node("Conv", ["d", "w"], ["c"]), node("QuantizeLinear", ["c", "t", "z"], ["o"]),
         node("DequantizeLinear", ["o", "t", "z"], ["y"])], {"x": SHAPE}, "y",
        {"s": np.float32(0.02), "z": np.int8(0), "raw": raw, "hundred": np.uint8(100),
         "t": np.float32(0.25)}), path)
    values = drawn(path)
    found, _, counted = computed(path, values)
    assert found.note == "scales as the file states them"
    wanted = runtime(path, values)
    assert np.abs(counted - wanted).max() <= 0.25 * 1.001
    assert (counted == wanted).mean() > 0.99


@pytest.mark.parametrize(("nodes", "reason"), [
    ([node("Loop", ["", "true", "x"], ["y"], body=branch(node("Relu", ["c"], ["b"])))],
     "Loop 'loop0': loops are not imported; export with the steps written out"),
    ([node("ReduceMax", ["x"], ["high"], keepdims=0), node("Greater", ["high", "zero"], ["g"]),
      node("If", ["g"], ["y"], then_branch=POSITIVE, else_branch=NEGATIVE)],
     "If 'if2': the condition 'g' depends on activations; export with the branch"),
    ([node("Resize", ["x", "", "up"], ["y"], mode="linear",
           coordinate_transformation_mode="align_corners")],
     "Resize 'resize0': align_corners of 7 places by 1.6 is 11.2, .*give sizes instead"),
    ([node("Cast", ["x"], ["i"], to=7), node("Mul", ["i", "i"], ["j"]),
      node("Cast", ["j"], ["y"], to=1)], "Cast 'cast0': what counts in integers behind it"),
    ([node("QuantizeLinear", ["x", "zero", "first"], ["y"])],
     "QuantizeLinear 'quantizelinear0': a scale is 0, must be finite and above 0"),
    ([node("QuantizeLinear", ["x", "step"], ["q"], output_dtype=17),
      node("DequantizeLinear", ["q", "step"], ["y"])],
     "QuantizeLinear 'quantizelinear0': float8_e4m3fn activations must be int8 or uint8"),
    ([node("Hardmax", ["x"], ["y"])], "Hardmax 'hardmax0': no such operator here; export it as"),
    ([node("ScatterND", ["x", "places", "slices"], ["y"], reduction="add")],
     "ScatterND 'scatternd0': reduction add must be none"),
    ([node("Einsum", ["x"], ["y"], equation="bchh->bch")],
     "Einsum 'einsum0': equation 'bchh->bch' must be of one or two tensors"),
], ids=lambda item: item[0].op_type if isinstance(item, list) else "")
def test_refusals_name_the_node_and_say_what_to_do(nodes: list[onnx.NodeProto], reason: str,
                                                   tmp_path: Path) -> None:
    path = saved(tmp_path, nodes, 21)
    with pytest.raises(GraphError, match=f"case.onnx: 1 nodes are not supported: {reason}"):
        import_onnx(path)


def test_what_is_no_number_and_what_has_no_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "case.onnx"
    weights = np.full((4, 4, 1, 1), np.nan, np.float32)
    onnx.save(model_of([node("Conv", ["x", "w"], ["y"])], {"x": SHAPE}, "y", {"w": weights}), path)
    with pytest.raises(GraphError, match="Conv 'conv0': 'w' holds NaN or infinity"):
        import_onnx(path)
    onnx.save(model_of([node("Add", ["c", "c"], ["y"])], {}, "y", {"c": weights}), path)
    with pytest.raises(GraphError, match=r"case.onnx has no inputs"):
        import_onnx(path)
    infinite = {"c": np.float32(np.inf)}
    onnx.save(model_of([node("Add", ["x", "c"], ["y"])], {"x": SHAPE}, "y", infinite), path)
    with pytest.raises(GraphError, match="Add 'add0': 'c' holds NaN or infinity"):
        import_onnx(path)


def test_validation_asks_of_a_file_what_its_own_numbers_hold(tmp_path: Path) -> None:
    """Halves within their digits, ranges taken at run time by signal to error, and no quantizer
    where it leaves a network in floats."""
    half = model_of([node("Relu", ["x"], ["y"])], {"x": SHAPE}, "y")
    for item in (*half.graph.input, *half.graph.output):
        item.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(half, tmp_path / "half.onnx")
    [found], _ = outputs(tmp_path / "half.onnx", import_onnx(tmp_path / "half.onnx"), PLAIN)
    assert found.wanted_float == 2.0**-9 and found.good
    path = saved(tmp_path, [node("DynamicQuantizeMatMul", ["x", "bytes", "step", "middle"], ["y"],
                                 domain=MICROSOFT)])
    [found], _ = outputs(path, import_onnx(path), PLAIN)
    assert found.float_error is None and found.int8_db > 30 and found.good
    path = saved(tmp_path, [node("Greater", ["x", "zero"], ["g"]),
                            node("Cast", ["g"], ["y"], to=1)])
    [found], _ = outputs(path, import_onnx(path), PLAIN)
    assert found.quantizer_db is None and found.good
