"""What files need that packages ship: batches, inputs that never change, names, quantized LSTMs.

Each small model is of a kind that a shipped file showed; onnxruntime runs it as given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.evaluation.inputs import PLAIN, Reading
from studies.plain.errors import UserError
from studies.validate.onnx.outputs import outputs
from tests.support.onnx_beside import computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import Graph, GraphError, Layer, Operator, TensorSpec
from workloads.onnx.importer import import_onnx
from workloads.quantization.reads import elements_read, mean_by_channel

node = onnx.helper.make_node


def drawn(*shape: int, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "shipped.onnx")
    return folder / "shipped.onnx"


def test_what_lies_between_two_pictures_of_a_batch_sets_no_scale(tmp_path: Path) -> None:
    """Pictures lie in one tall picture. A window across two of them sees an edge that no picture
    has; it is read by nobody."""
    edges = np.array([[[[1.0], [-1.0]]], [[[-1.0], [1.0]]]], np.float32)
    path = saved(tmp_path, model_of(
        [node("Conv", ["x", "w"], ["c"]),
         node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]),
         node("Relu", ["n"], ["r"]), node("Conv", ["r", "v"], ["y"])], {"x": (3, 1, 8, 8)}, "y",
        {"w": edges, "v": drawn(2, 2, 1, 1), "gamma": np.array([1.0, 2.0], np.float32),
         "beta": np.array([0.1, -0.1], np.float32), "mean": np.array([0.2, 0.1], np.float32),
         "variance": np.ones(2, np.float32)}))
    levels = np.array([-40.0, 40.0, -40.0]).reshape(3, 1, 1, 1)
    values = {"x": (levels + drawn(3, 1, 8, 8, spread=4)).astype(np.float32)}
    found, real, counted = computed(path, values)
    wanted = runtime(path, values)
    np.testing.assert_allclose(real, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert [layer.operator for layer in found.graph.layers].count(Operator.CONVOLUTION) == 2
    assert {Operator.LOOKUP, Operator.AFFINE}.isdisjoint(
        layer.operator for layer in found.graph.layers), "the norm and the ReLU are folded"
    first = next(layer for layer in found.graph.layers if layer.relu)
    made = np.maximum(np.diff(values["x"], axis=2), -np.diff(values["x"], axis=2))
    assert found.graph.tensors[first.output].scale * 127 < 2.5 * made.max()
    error = float(((counted - wanted) ** 2).sum())
    assert 10 * np.log10((wanted**2).sum() / error) > 25


def test_elements_that_a_gather_leaves_out_are_not_read() -> None:
    tensors = {name: TensorSpec(name, 1, 2, 2) for name in ("x", "a", "b", "y")}
    tensors["y"] = TensorSpec("y", 1, 1, 3)
    places = {"p": np.array([0, 3, -1], np.int32)}
    layers = (Layer("a", Operator.AFFINE, ("x",), "a"), Layer("b", Operator.LOOKUP, ("a",), "b"),
              Layer("y", Operator.GATHER, ("b",), "y", constants={"places": "p"}))
    graph = Graph("some", ("x",), ("y",), tensors, layers, places)
    found = elements_read(graph)
    assert set(found) == {"x", "a", "b"}
    assert all(read.reshape(-1).tolist() == [True, False, False, True] for read in found.values())
    value = np.array([[[1.0, 50.0], [70.0, 3.0]]])
    assert mean_by_channel(value, found["b"]).tolist() == [2.0]
    assert mean_by_channel(value, None).tolist() == [31.0]
    # Who reads all of it, or hands it out, counts for all.
    more = Graph("some", ("x",), ("y", "a"), tensors, layers, places)
    assert set(elements_read(more)) == {"b"}


def rated(folder: Path) -> Path:
    """A file as voice detectors ship it: a rate of 64 bits chooses a branch with its own names and
    constants."""
    branches = {}
    for key, factor in (("then_branch", 2.0), ("else_branch", -3.0)):
        value = onnx.numpy_helper.from_array(np.array(factor, np.float32))
        branches[key] = onnx.helper.make_graph(
            [node("Constant", [], ["factor"], value=value), node("Mul", ["x", "factor"], ["out"])],
            key, [], [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)])
    model = model_of([node("Equal", ["sr", "rate"], ["fast"]),
                      node("If", ["fast"], ["y"], **branches)],
                     {"x": (1, 4, 6, 5)}, "y", {"rate": np.array(16000, np.int64)})
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("sr", onnx.TensorProto.INT64, []))
    model.graph.name = "a name with blanks."
    return saved(folder, model)


@pytest.mark.parametrize(("rate", "factor"), [(16000, 2.0), (8000, -3.0)])
def test_an_input_that_never_changes_chooses_a_branch(rate: int, factor: float,
                                                      tmp_path: Path) -> None:
    path = rated(tmp_path)
    reading = Reading(fixed=(f"sr={rate}",))
    found = import_onnx(path, values=reading.values())
    assert found.model.inputs == ("x",) and found.graph.name == "shipped"
    values = {"x": drawn(1, 4, 6, 5)}
    np.testing.assert_allclose(runtime(path, {**values, **found.model.values}),
                               factor * values["x"], rtol=1e-6)
    [end], _ = outputs(path, found, reading)
    assert end.good and end.float_error is not None and end.float_error < 1e-6
    # A calibration file may name it too.
    assert import_onnx(path, [{**values, "sr": np.float32(rate)}], values=reading.values()).graph


def test_an_input_that_cannot_enter_says_what_to_do(tmp_path: Path) -> None:
    path = rated(tmp_path)
    with pytest.raises(GraphError, match="input 'sr' must be .*, is int64; one that never changes "
                       r".* becomes a constant with --value sr=NUMBER$"):
        import_onnx(path)
    with pytest.raises(GraphError, match="no input 'rate' to give a value to; it has x, sr"):
        import_onnx(path, values={"rate": (1.0,)})
    with pytest.raises(GraphError, match="input 'x' has 120 numbers, given are 2"):
        import_onnx(path, values={"x": (1.0, 2.0), "sr": (8000.0,)})
    for text in ("sr", "sr=", "=3", "sr=fast", "sr=nan"):
        with pytest.raises(UserError, match="must be INPUT=16000"):
            Reading(fixed=(text,)).values()


@pytest.mark.parametrize("by_row", [False, True])
def test_an_lstm_that_onnxruntime_quantized(by_row: bool, tmp_path: Path) -> None:
    """Weights of int8 with a scale a direction, or a row of a gate, behind one another."""
    random, size = np.random.default_rng(1), 4
    shape = (2, 4 * size) if by_row else (2,)
    constants = {
        "w": random.integers(-127, 128, (2, 3, 4 * size), np.int8),
        "r": random.integers(-127, 128, (2, size, 4 * size), np.int8),
        "b": drawn(2, 8 * size), "zero": np.zeros(shape, np.int8),
        "ws": random.uniform(0.002, 0.006, shape).astype(np.float32),
        "rs": random.uniform(0.002, 0.006, shape).astype(np.float32)}
    made = node("DynamicQuantizeLSTM",
                ["x", "w", "r", "b", "", "", "", "", "ws", "zero", "rs", "zero"], ["y"],
                direction="bidirectional", hidden_size=size, domain="com.microsoft")
    model = model_of([made], {"x": (5, 1, 3)}, "y", constants)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    path, values = saved(tmp_path, model), {"x": drawn(5, 1, 3, spread=1)}
    found, real, counted = computed(path, values)
    wanted = runtime(path, values)
    assert "1 ranges that the file takes at run time" in found.note
    # onnxruntime rounds the inputs and states to 8 bits at run time, the float network does not.
    assert np.abs(real - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.abs(counted - wanted).max() < 0.06 * np.abs(wanted).max()


def test_a_sigmoid_is_held_against_its_own_range(tmp_path: Path) -> None:
    """onnxruntime computes it to 1e-7 of one; where all values are tiny that is no fault here."""
    path = saved(tmp_path, model_of(
        [node("Conv", ["x", "w", "b"], ["c"]), node("Sigmoid", ["c"], ["y"])], {"x": (1, 2, 4, 4)},
        "y", {"w": drawn(2, 2, 1, 1), "b": np.full(2, -14, np.float32)}))
    [found], _ = outputs(path, import_onnx(path), PLAIN)
    assert found.float_error is not None and found.float_error < 1e-5
