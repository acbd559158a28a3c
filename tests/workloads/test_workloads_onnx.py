"""Checks the ONNX importer against onnxruntime, and that what it cannot import is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import (
    BUILDERS,
    float_model,
    int8_model,
    one_node,
    random_pictures,
)

from workloads import library
from workloads.float_network import execute_real
from workloads.graph import Graph, GraphError
from workloads.onnx_import import Imported, float_network, import_onnx
from workloads.onnx_read import checked_model, read_model
from workloads.post_training import Recipe, quantized_inputs
from workloads.reference import execute, execute_layer
from workloads.verify import verify


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_imported_structure_is_the_model(name: str, tmp_path: Path) -> None:
    """In float32 the imported graph computes what onnxruntime computes."""
    path = float_model(name, tmp_path)
    network = float_network(read_model(path))
    picture = random_pictures(1, 77)[0]
    wanted = session(onnx.load(str(path))).run(None, {"input": picture})[0][0]
    found = execute_real(network, {"input": picture[0]})[network.graph.outputs[0]]
    assert np.abs(found.reshape(wanted.shape) - wanted).max() < 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "limit"), [("resnet18", 0.2), ("unet", 0.15)])
def test_a_float_model_is_quantized_with_given_data(
    name: str, limit: float, tmp_path: Path
) -> None:
    path = float_model(name, tmp_path)
    given = [{"input": picture[0]} for picture in random_pictures(3, 9)]
    imported = import_onnx(path, given)
    verify(imported.graph)
    assert imported.note == "float network, calibrated with 3 given inputs"
    picture = random_pictures(1, 77)[0]
    wanted = session(onnx.load(str(path))).run(None, {"input": picture})[0][0]
    graph = imported.graph
    found = execute(graph, quantized_inputs(graph, {"input": picture[0]}))[graph.outputs[0]]
    real = found.reshape(wanted.shape) * graph.tensors[graph.outputs[0]].scale
    assert np.sqrt(np.mean((real - wanted) ** 2)) < limit * wanted.std()


def stated_values(path: Path, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Every quantized activation as onnxruntime computes it, by the name before quantizing."""
    model = onnx.load(str(path))
    constants = {item.name for item in model.graph.initializer}
    nodes = [node for node in model.graph.node
             if node.op_type == "QuantizeLinear" and node.input[0] not in constants]
    for node in nodes:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT8, None))
    found = session(model).run([node.output[0] for node in nodes], {"input": picture})
    return {node.input[0]: array for node, array in zip(nodes, found, strict=True)}


def differences(graph: Graph, stated: dict[str, np.ndarray]) -> np.ndarray:
    """Steps between the reference and the runtime, each layer on the runtime's own inputs."""
    values = dict(stated)
    found = []
    for layer in graph.layers:
        shapes = [graph.tensors[name].shape for name in layer.inputs]
        inputs = [values[name].reshape(shape)
                  for name, shape in zip(layer.inputs, shapes, strict=True)]
        output = execute_layer(graph, layer, inputs)
        if layer.output not in values:
            values[layer.output] = output
            continue
        wanted = values[layer.output].reshape(output.shape).astype(int)
        if layer.relu:  # the runtime quantizes before the ReLU that is fused here
            wanted = np.maximum(wanted, 0)
            values[layer.output] = wanted.astype(np.int8)
        found.append(np.abs(output - wanted).reshape(-1))
    return np.concatenate(found)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_static_int8_model_agrees_layer_by_layer(name: str, tmp_path: Path) -> None:
    """Never more than one step, and that on less than 0.2 %: products that the runtime rounds
    in float32 lie near a half, and a 15-bit multiplier is not the float scale."""
    path = int8_model(name, tmp_path)
    imported = import_onnx(path)
    assert imported.note == "scales as the file states them"
    steps = differences(imported.graph, stated_values(path, random_pictures(1, 77)[0]))
    assert steps.size > 300_000
    assert np.mean(steps <= 1) >= 0.999
    assert steps.max() <= 1 and np.mean(steps > 0) < 0.002


def test_without_data_the_note_says_random(tmp_path: Path) -> None:
    path = float_model("unet", tmp_path)
    first, second = import_onnx(path), import_onnx(path)
    assert "random calibration" in first.note
    for name, array in first.graph.constants.items():
        assert np.array_equal(array, second.graph.constants[name])


def test_power_of_two_scales_may_be_asked_for(tmp_path: Path) -> None:
    imported = import_onnx(float_model("unet", tmp_path), recipe=Recipe(power_of_two=True))
    assert all(np.log2(spec.scale) % 1 == 0 for spec in imported.graph.tensors.values())


def imported_node(model: onnx.ModelProto) -> Imported:
    network = float_network(checked_model(model, "single.onnx"))
    return Imported(network.graph, network, "")


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [("Relu", 1, {}), ("Sigmoid", 1, {}), ("Tanh", 1, {}), ("HardSwish", 1, {}),
     ("HardSigmoid", 1, {"alpha": 1 / 6, "beta": 0.5}), ("Softmax", 1, {"axis": 1}),
     ("Add", 2, {}), ("Mul", 2, {}), ("Concat", 2, {"axis": 1}),
     ("MaxPool", 1, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
     ("AveragePool", 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
     ("GlobalAveragePool", 1, {}), ("Identity", 1, {})],
)
def test_single_operators_equal_the_runtime(
    operator: str, inputs: int, attributes: dict[str, object]
) -> None:
    model = one_node(operator, inputs, **attributes)
    network = imported_node(model).network
    random = np.random.default_rng(0)
    values = {f"x{index}": random.normal(0, 2, (1, 4, 8, 8)).astype(np.float32)
              for index in range(inputs)}
    wanted = session(model).run(None, values)[0][0]
    found = execute_real(network, {name: array[0] for name, array in values.items()})
    assert np.abs(found[network.graph.outputs[0]] - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [("Erf", {}, "no such operator"), ("Softmax", {"axis": 2}, "axis 2"),
     ("MaxPool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, "equal on all sides"),
     ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
     ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, "ceil_mode"),
     ("HardSigmoid", {}, "alpha")],
)
def test_an_unsupported_node_is_named(
    operator: str, attributes: dict[str, object], reason: str
) -> None:
    with pytest.raises(GraphError, match=f"1 nodes are not supported: {operator} 'one'.*{reason}"):
        imported_node(one_node(operator, **attributes))


def test_all_unsupported_nodes_are_listed_at_once() -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(operator, [before], [after], name=after)
             for operator, before, after in (
                 ("Erf", "x", "a"), ("Relu", "a", "b"), ("Sin", "b", "c"))]
    graph = helper.make_graph(
        nodes, "three", [helper.make_tensor_value_info("x", kind, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("c", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(GraphError, match=r"2 nodes are not supported: Erf 'a'.*; Sin 'c'"):
        imported_node(model)


def test_a_cycle_is_refused() -> None:
    model = one_node("Relu")
    model.graph.node[0].input[0] = "y"
    with pytest.raises(GraphError, match=r"cycle|shapes do not fit"):
        imported_node(model)


def test_external_data_is_refused() -> None:
    model = one_node("Add", 2)
    tensor = onnx.numpy_helper.from_array(np.ones((1, 4, 1, 1), np.float32), "w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer.append(tensor)
    with pytest.raises(GraphError, match="'w' in another file"):
        imported_node(model)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot be read"):
        read_model(tmp_path / "absent.onnx")
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\x00\x01 not a model")
    with pytest.raises(GraphError, match=r"noise\.onnx"):
        read_model(path)


def test_the_library_opens_a_file_by_its_ending(tmp_path: Path) -> None:
    path = float_model("unet", tmp_path)
    verify(library.load(str(path)))
    assert "random calibration" in library.provenance(str(path))["weights"]
    with pytest.raises(GraphError, match=r"absent\.onnx cannot be read"):
        library.load(str(tmp_path / "absent.onnx"))
