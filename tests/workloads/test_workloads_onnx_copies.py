"""Does a tensor that stands in several concatenations lie in each, and is nothing made in vain?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.evaluation.losses import decibels
from tests.support.onnx_beside import assert_lowered, computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import Operator

node = onnx.helper.make_node


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.4, shape).astype(np.float32)


def dense(again: list[str]) -> onnx.ModelProto:
    """A dense block: what the first convolution made is read again behind the second."""
    wide = 8 * len(again)
    return model_of([
        node("Conv", ["x", "a"], ["p"], kernel_shape=[1, 1]),
        node("Conv", ["x", "b"], ["q"], kernel_shape=[1, 1]),
        node("Concat", ["p", "q"], ["first"], axis=1),
        node("Conv", ["first", "c"], ["r"], kernel_shape=[1, 1]),
        node("Concat", again, ["second"], axis=1),
        node("Conv", ["second", "d"], ["y"], kernel_shape=[1, 1]),
    ], {"x": (1, 8, 6, 6)}, "y", {"a": drawn(8, 8, 1, 1), "b": drawn(8, 8, 1, 1) * 2,
                                  "c": drawn(8, 16, 1, 1), "d": drawn(8, wide, 1, 1)})


@pytest.mark.parametrize(("again", "copies"), [
    (["p", "r"], 1), (["p", "r", "p"], 2), (["q", "x", "r", "p"], 2), (["r", "r"], 1)], ids=str)
def test_a_part_of_several_concatenations_is_copied(again: list[str], copies: int,
                                                     tmp_path: Path) -> None:
    path, inputs = tmp_path / "dense.onnx", {"x": drawn(1, 8, 6, 6)}
    onnx.save(dense(again), path)
    found, real, counted = computed(path, inputs)
    wanted = runtime(path, inputs)
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > 20  # one step for parts of unlike ranges
    made = [layer for layer in found.graph.layers if layer.operator is Operator.REQUANTIZE]
    assert len(made) == copies
    assert_lowered(found, inputs)


def test_a_part_without_elements_is_left_out(tmp_path: Path) -> None:
    path, inputs = tmp_path / "empty.onnx", {"x": drawn(1, 8, 6, 6)}
    onnx.save(model_of([
        node("Conv", ["x", "a"], ["p"], kernel_shape=[1, 1]),
        node("Concat", ["p", "none"], ["q"], axis=1), node("Relu", ["q"], ["y"])],
        {"x": (1, 8, 6, 6)}, "y",
        {"a": drawn(8, 8, 1, 1), "none": np.zeros((1, 0, 6, 6), np.float32)}), path)
    _, real, _ = computed(path, inputs)
    assert np.allclose(real, runtime(path, inputs), atol=1e-6)


def test_what_nobody_reads_is_left_out(tmp_path: Path) -> None:
    """The last state of a recurrence whose steps alone are read."""
    path, inputs = tmp_path / "unread.onnx", {"x": drawn(5, 1, 6)}
    onnx.save(model_of([
        node("LSTM", ["x", "w", "r"], ["all", "last", "memory"], hidden_size=4,
             direction="bidirectional"),
        node("Relu", ["all"], ["y"]), node("Exp", ["last"], ["vain"])],
        {"x": (5, 1, 6)}, "y", {"w": drawn(2, 16, 6), "r": drawn(2, 16, 4)}), path)
    found, real, _ = computed(path, inputs)
    assert np.allclose(real, runtime(path, inputs), atol=1e-6)
    read = {name for layer in found.graph.layers for name in layer.inputs}
    assert {layer.output for layer in found.graph.layers} <= read | set(found.graph.outputs)
    assert "vain" not in found.graph.tensors
    assert_lowered(found, inputs)
