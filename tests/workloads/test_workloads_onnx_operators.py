"""Does each operator of ONNX become what onnxruntime computes, in floats and in integers?"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.support.onnx_models import model_of, one_node
from workloads.graph import GraphError, Operator
from workloads.onnx.fold import FOLDED
from workloads.onnx.importer import float_network
from workloads.onnx.operators import RULES
from workloads.onnx.read import checked_model
from workloads.onnx.rules.expansions import EXPANSIONS
from workloads.quantization.float_network import FloatNetwork, execute_real
from workloads.quantization.post_training import Recipe, quantize, quantized_inputs
from workloads.reference import execute

SHAPE = (1, 4, 7, 5)


def imported(model: onnx.ModelProto) -> FloatNetwork:
    return float_network(checked_model(model, "single.onnx"))


def values_of(model: onnx.ModelProto, seed: int = 0, spread: float = 2.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {item.name: random.normal(0, spread, [
        dimension.dim_value for dimension in item.type.tensor_type.shape.dim]).astype(np.float32)
        for item in model.graph.input}


def assert_equals_runtime(model: onnx.ModelProto, values: dict[str, np.ndarray] | None = None,
                          integer_error: float = 0.06) -> FloatNetwork:
    """In floats exactly, in integers within a share of the output's deviation (root mean
    square)."""
    values = values or values_of(model)
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, values)[0]
    network = imported(model)
    graph = network.graph
    given = {name: array.reshape(graph.tensors[name].shape) for name, array in values.items()}
    found = execute_real(network, given)[graph.outputs[0]].reshape(wanted.shape)
    assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    whole = quantize(network, [given], Recipe(power_of_two=False, correct_bias=False))
    counted = execute(whole, quantized_inputs(whole, given))[graph.outputs[0]]
    real = counted.reshape(wanted.shape) * whole.tensors[graph.outputs[0]].scale
    assert np.sqrt(np.mean((real - wanted) ** 2)) < integer_error * wanted.std()
    return network


def constant(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(("operator", "attributes"), [
    ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("HardSwish", {}), ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {}),
    ("Gelu", {}), ("Gelu", {"approximate": "tanh"}), ("Erf", {}), ("Mish", {}), ("Softplus", {}),
    ("Softsign", {}), ("Neg", {}), ("Abs", {}), ("Exp", {}), ("Identity", {}),
    ("Softmax", {"axis": 1}), ("Softmax", {"axis": 2}), ("Softmax", {"axis": -1}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 1, 0]}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("Transpose", {"perm": [0, 3, 1, 2]}),
    ("Flatten", {}), ("DepthToSpace", {"blocksize": 2}),
])
def test_operators_of_one_input(operator: str, attributes: dict[str, object]) -> None:
    assert_equals_runtime(one_node(operator, 1, SHAPE, **attributes))


@pytest.mark.parametrize("shapes", [
    (SHAPE, SHAPE), (SHAPE, (1, 4, 1, 1)), (SHAPE, (1, 1, 7, 5)), (SHAPE, (1, 1, 1, 5)),
    (SHAPE, (1, 4, 1, 5)), ((1, 4, 1, 1), SHAPE), ((1, 6), (1, 6)), ((1, 9, 6), (1, 9, 6)),
    ((1, 9, 6), (1, 9, 1)),
])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul"])
def test_operators_of_two_inputs_repeat_as_numpy_does(
    operator: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    node = onnx.helper.make_node(operator, ["a", "b"], ["y"])
    assert_equals_runtime(model_of([node], dict(zip("ab", shapes, strict=True)), "y"))


@pytest.mark.parametrize("shape", [(), (1, 4, 1, 1), (5,), (1, 1, 7, 1), (1, 4, 7, 5), (4, 1, 5)])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_constants_may_vary_along_any_axis(operator: str, shape: tuple[int, ...]) -> None:
    array = np.abs(constant(*shape)) + np.float32(0.5)
    assert_equals_runtime(one_node(operator, 1, SHAPE, {"c": np.asarray(array, np.float32)}))
    swapped = one_node(operator, 1, SHAPE, {"c": np.asarray(array, np.float32)})
    if operator != "Div":
        swapped.graph.node[0].input[:] = ["c", "x0"]
        assert_equals_runtime(swapped)


@pytest.mark.parametrize(("weights", "attributes"), [
    ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((6, 4, 3, 3), {"pads": [0, 1, 2, 0], "strides": [2, 2]}),
    ((6, 4, 1, 3), {"pads": [0, 1, 0, 1]}),
    ((6, 4, 3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    ((6, 4, 2, 3), {"strides": [2, 1]}),
    ((6, 4, 3, 3), {"strides": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    ((8, 2, 3, 3), {"group": 2, "pads": [1, 1, 0, 1], "strides": [2, 2]}),
])
def test_convolutions(weights: tuple[int, ...], attributes: dict[str, object]) -> None:
    given = {"w": constant(*weights), "b": constant(weights[0], seed=4)}
    assert_equals_runtime(one_node("Conv", 1, SHAPE, given, **attributes))


@pytest.mark.parametrize(("weights", "attributes"), [
    ((4, 6, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((4, 6, 2, 2), {"strides": [2, 2]}),
    ((4, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ((4, 6, 3, 2), {"strides": [3, 1], "pads": [0, 1, 1, 0], "dilations": [2, 1]}),
    ((4, 3, 4, 4), {"strides": [2, 2], "group": 2}), ((4, 6, 3, 3), {}),
])
def test_transposed_convolutions(weights: tuple[int, ...], attributes: dict[str, object]) -> None:
    leaving = weights[1] * int(attributes.get("group", 1))  # type: ignore[call-overload]
    given = {"w": constant(*weights), "b": constant(leaving, seed=4)}
    assert_equals_runtime(one_node("ConvTranspose", 1, SHAPE, given, **attributes))


def test_one_dimensional_windows() -> None:
    given = {"w": constant(6, 4, 3), "b": constant(6, seed=4)}
    assert_equals_runtime(one_node("Conv", 1, (1, 4, 11), given, pads=[1, 1]))
    assert_equals_runtime(one_node("MaxPool", 1, (1, 4, 11), kernel_shape=[3], strides=[2]))


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_of_a_flattened_picture(transposed: int) -> None:
    weights = constant(9, 140) if transposed else constant(140, 9)
    nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]),
             onnx.helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=transposed, alpha=0.5)]
    network = assert_equals_runtime(
        model_of(nodes, {"x": SHAPE}, "y", {"w": weights, "b": constant(9)}))
    assert [layer.operator for layer in network.graph.layers] == [Operator.CONVOLUTION]


@pytest.mark.parametrize(("left", "right"), [
    ((1, 9, 6), (1, 6, 5)), ((1, 2, 9, 6), (1, 2, 6, 5)), ((1, 3, 9, 6), (1, 1, 6, 5)),
    ((9, 6), (6, 5)),
])
def test_products_of_two_activations(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["y"])
    inputs = {"a": left, "b": right}
    if len(left) == 2:  # a leading one is the batch
        nodes = [onnx.helper.make_node("Squeeze", [name], [f"{name}s"]) for name in "ab"]
        node.input[:] = ["as", "bs"]
        inputs = {name: (1, *shape) for name, shape in inputs.items()}
        assert_equals_runtime(model_of([*nodes, node], inputs, "y"))
        return
    assert_equals_runtime(model_of([node], inputs, "y"))


def test_constant_matrices_on_both_sides() -> None:
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["m"]),
             onnx.helper.make_node("MatMul", ["v", "m"], ["y"])]
    assert_equals_runtime(model_of(
        nodes, {"x": (1, 9, 6)}, "y", {"w": constant(6, 8), "v": constant(7, 9)}))


@pytest.mark.parametrize(("attributes", "sizes"), [
    ({"mode": "nearest"}, (14, 10)), ({"mode": "nearest"}, (28, 20)),
    ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
      "nearest_mode": "floor"}, (14, 10)),
    ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
      "nearest_mode": "ceil"}, (9, 11)),
    ({"mode": "nearest"}, (3, 8)), ({"mode": "linear"}, (14, 10)),
    ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, (11, 9)),
    ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, (5, 13)),
])
def test_resizing(attributes: dict[str, object], sizes: tuple[int, int]) -> None:
    node = onnx.helper.make_node("Resize", ["x", "", "", "s"], ["y"], **attributes)
    network = assert_equals_runtime(model_of(
        [node], {"x": SHAPE}, "y", {"s": np.array([1, 4, *sizes])}))
    if attributes["mode"] == "nearest" and sizes in ((14, 10), (28, 20)) and (
            attributes.get("nearest_mode") != "ceil"):
        assert {layer.operator for layer in network.graph.layers} == {Operator.UPSAMPLE}


@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sampling(corners: int) -> None:
    """Coordinates of eight bits are 1/127 of the picture apart: some error must remain."""
    node = onnx.helper.make_node("GridSample", ["x", "g"], ["y"], align_corners=corners,
                                 mode="linear")
    model = model_of([node], {"x": SHAPE, "g": (1, 6, 3, 2)}, "y")
    values = values_of(model)
    values["g"] = np.clip(values["g"] / 3, -1.2, 1.2)
    assert_equals_runtime(model, values)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_normalization(opset: int) -> None:
    size = 2 if opset < 21 else 4
    node = onnx.helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    model = model_of([node], {"x": SHAPE}, "y",
                     {"s": constant(size) + 2, "b": constant(size, seed=5)}, opset)
    network = assert_equals_runtime(model)
    assert [layer.operator for layer in network.graph.layers] == [Operator.GROUP_NORM]


def test_instance_and_layer_normalization() -> None:
    given = {"s": constant(4) + 2, "b": constant(4, seed=5)}
    assert_equals_runtime(one_node("InstanceNormalization", 1, SHAPE, given))
    assert_equals_runtime(one_node("LayerNormalization", 1, (1, 9, 4), given, axis=-1))
    given = {"s": constant(4, 7, 5) + 2, "b": constant(4, 7, 5, seed=5)}
    assert_equals_runtime(one_node("LayerNormalization", 1, SHAPE, given, axis=1))


@pytest.mark.parametrize("axes", [(2,), (1,), (2, 3)])
def test_a_normalization_that_was_written_out_is_found(axes: tuple[int, ...]) -> None:
    shape = SHAPE if axes == (2, 3) else (1, 9, 6)
    make = onnx.helper.make_node
    nodes = [make("ReduceMean", ["x", "axes"], ["m"]), make("Sub", ["x", "m"], ["d"]),
             make("Pow", ["d", "two"], ["p"]), make("ReduceMean", ["p", "axes"], ["v"]),
             make("Add", ["v", "e"], ["ve"]), make("Sqrt", ["ve"], ["r"]),
             make("Div", ["d", "r"], ["y"])]
    network = assert_equals_runtime(model_of(nodes, {"x": shape}, "y", {
        "axes": np.array(axes), "two": np.float32([2]), "e": np.float32([1e-5])}))
    operators = [layer.operator for layer in network.graph.layers]
    assert Operator.GROUP_NORM in operators and Operator.MULTIPLY not in operators


@pytest.mark.parametrize(("operator", "axes", "keep"), [
    ("ReduceMean", [2, 3], 1), ("ReduceMean", [1], 0), ("ReduceMean", [3], 1),
    ("ReduceSum", [2, 3], 0), ("ReduceMax", [-1, 1], 1),
])
def test_reductions(operator: str, axes: list[int], keep: int) -> None:
    assert_equals_runtime(one_node(
        operator, 1, SHAPE, {"axes": np.array(axes, np.int64)}, keepdims=keep))


def test_batch_normalization_is_folded_or_an_affine_step() -> None:
    given = {"s": constant(4) + 2, "b": constant(4, seed=5), "m": constant(4, seed=6),
             "v": np.abs(constant(4, seed=7)) + np.float32(0.5)}
    network = assert_equals_runtime(one_node("BatchNormalization", 1, SHAPE, given))
    assert [layer.operator for layer in network.graph.layers] == [Operator.AFFINE]
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
             onnx.helper.make_node("BatchNormalization", ["c", *given], ["n"]),
             onnx.helper.make_node("Relu", ["n"], ["y"])]
    network = assert_equals_runtime(
        model_of(nodes, {"x": SHAPE}, "y", {**given, "w": constant(4, 4, 3, 3)}))
    assert [layer.operator for layer in network.graph.layers] == [Operator.CONVOLUTION]


def test_a_chain_of_functions_is_one_table() -> None:
    """HardSwish and GELU as exporters write them out."""
    make = onnx.helper.make_node
    numbers = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6),
               "root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    chains = ([make("Add", ["x", "three"], ["a"]), make("Clip", ["a", "zero", "six"], ["b"]),
               make("Div", ["b", "six"], ["c"]), make("Mul", ["x", "c"], ["y"])],
              [make("Div", ["x", "root"], ["a"]), make("Erf", ["a"], ["b"]),
               make("Add", ["b", "one"], ["c"]), make("Mul", ["x", "c"], ["d"]),
               make("Mul", ["d", "half"], ["y"])])
    for nodes in chains:
        network = assert_equals_runtime(model_of(nodes, {"x": SHAPE}, "y", numbers))
        assert [layer.operator for layer in network.graph.layers] == [Operator.LOOKUP]


def test_slices_splits_and_reshapes_are_views() -> None:
    """What only changes an address makes no layer; what follows moves elements once."""
    make = onnx.helper.make_node
    nodes = [make("Conv", ["x", "w"], ["c"]), make("Split", ["c"], ["l", "r"], axis=1,
                                                   num_outputs=2),
             make("Reshape", ["l", "flat"], ["lf"]), make("Transpose", ["lf"], ["lt"],
                                                          perm=[0, 2, 1]),
             make("Transpose", ["lt"], ["lb"], perm=[0, 2, 1]),
             make("Reshape", ["lb", "back"], ["lp"]), make("Mul", ["lp", "r"], ["m"]),
             make("Slice", ["m", "from", "to", "axes"], ["y"])]
    network = assert_equals_runtime(model_of(nodes, {"x": SHAPE}, "y", {
        "w": constant(6, 4, 1, 1), "flat": np.array([1, 3, 35]), "back": np.array([1, 3, 7, 5]),
        "from": np.array([1]), "to": np.array([6]), "axes": np.array([2])}))
    assert [layer.operator for layer in network.graph.layers] == [
        Operator.CONVOLUTION, Operator.GATHER, Operator.GATHER, Operator.MULTIPLY,
        Operator.GATHER]


def test_concatenation_along_any_axis() -> None:
    for axis in (1, 2, 3):
        node = onnx.helper.make_node("Concat", ["a", "b"], ["y"], axis=axis)
        assert_equals_runtime(model_of([node], {"a": SHAPE, "b": SHAPE}, "y"))


def test_shapes_that_the_file_computes_are_computed() -> None:
    """Shape, Gather, Unsqueeze and Concat in front of a Reshape, with an unknown batch."""
    make = onnx.helper.make_node
    nodes = [make("Shape", ["x"], ["s"]), make("Gather", ["s", "zero"], ["n"]),
             make("Unsqueeze", ["n", "zeros"], ["nu"]), make("Concat", ["nu", "rest"], ["t"],
                                                            axis=0),
             make("Reshape", ["x", "t"], ["f"]), make("MatMul", ["f", "w"], ["y"])]
    model = model_of(nodes, {"x": ("batch", 4, 7, 5)}, "y", {
        "zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1]),
        "w": constant(140, 3)})
    assert_equals_runtime(model, {"x": constant(*SHAPE)})


@pytest.mark.parametrize(("model", "reason"), [
    (one_node("Hardmax"), "no such operator"),
    (one_node("GridSample", 2, (1, 2, 4, 2), mode="nearest"), "mode nearest must be linear"),
    (one_node("Conv", 2, (4, 4, 3, 3)), "'x1' must be a constant"),
])
def test_an_unsupported_node_is_named(model: onnx.ModelProto, reason: str) -> None:
    operator = model.graph.node[0].op_type
    with pytest.raises(GraphError, match=f"1 nodes are not supported: {operator} 'one'.*{reason}"):
        imported(model)


def test_all_unsupported_nodes_are_listed_at_once() -> None:
    make = onnx.helper.make_node
    nodes = [make("Hardmax", ["x"], ["a"], name="a"), make("Relu", ["a"], ["b"], name="b"),
             make("Det", ["b"], ["c"], name="c"), make("Hardmax", ["c"], ["d"], name="d")]
    with pytest.raises(GraphError, match=r"3 nodes are not supported: Hardmax 'a', 'd'.*; Det 'c'"):
        imported(model_of(nodes, {"x": SHAPE}, "d"))


@pytest.mark.parametrize("operator", sorted(FOLDED - RULES.keys() - EXPANSIONS.keys()))
def test_what_is_only_computed_from_constants_reads_no_activation(operator: str) -> None:
    count = onnx.defs.get_schema(operator).min_input
    with pytest.raises(GraphError, match=f"{operator} 'one': is computed from constants and shapes "
                                         "alone, not from activations; cut it off"):
        imported(one_node(operator, count))


def test_an_output_that_is_left_out_is_read_by_nobody() -> None:
    """Its name is that of an input that is left out."""
    make = onnx.helper.make_node
    nodes = [make("Dropout", ["x"], ["a", ""]), make("Clip", ["a", "", "high"], ["y"])]
    assert_equals_runtime(model_of(nodes, {"x": SHAPE}, "y", {"high": np.float32(0.5)}))
