"""Are convolutions of wide dilations and paddings equal to the runtime's, without empty kernels?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from studies.evaluation.losses import decibels
from tests.support.onnx_beside import assert_lowered, computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import Operator

#: Input, weights, attributes, and the kernel of the convolution that it becomes.
CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], tuple[int, int]]] = [
    ((1, 4, 6, 7), (5, 4, 3, 3), {"dilations": [36, 36], "pads": [36] * 4}, (1, 1)),
    ((1, 4, 30, 27), (5, 4, 3, 3), {"dilations": [6, 6], "pads": [6] * 4}, (3, 3)),
    ((1, 4, 30, 27), (5, 4, 3, 3),
     {"dilations": [7, 5], "pads": [5, 3, 7, 9], "strides": [2, 3]}, (3, 3)),
    ((1, 4, 30, 27), (4, 1, 3, 3), {"dilations": [9, 6], "pads": [6] * 4, "group": 4}, (3, 3)),
    ((1, 4, 60), (6, 4, 3), {"dilations": [16], "pads": [32, 0]}, (3, 1)),
    ((1, 4, 60), (6, 4, 41), {"pads": [20, 20]}, (41, 1)),
    ((1, 4, 9, 9), (5, 4, 3, 3), {"dilations": [7, 7], "pads": [2, 2, 7, 7]}, (2, 2)),
    ((1, 4, 3, 3), (5, 4, 3, 3), {"pads": [5, 5, 4, 4]}, (4, 4)),
    ((1, 2, 40, 5), (5, 2, 3, 1), {"dilations": [8, 1], "pads": [8, 0, 8, 0]}, (3, 1)),
]


@pytest.mark.parametrize(("shape", "weights", "attributes", "kernel"), CASES, ids=str)
def test_a_wide_convolution(shape: tuple[int, ...], weights: tuple[int, ...],
                            attributes: dict[str, Any], kernel: tuple[int, int],
                            tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    inputs = {"x": random.normal(0, 1, shape).astype(np.float32)}
    path = tmp_path / "wide.onnx"
    onnx.save(model_of(
        [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)], {"x": shape}, "y",
        {"w": random.normal(0, 0.4, weights).astype(np.float32),
         "b": random.normal(0, 1, weights[0]).astype(np.float32)}), path)
    found, real, counted = computed(path, inputs)
    wanted = runtime(path, inputs)
    assert real.shape == wanted.shape
    assert np.abs(real - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert decibels(wanted, counted) > 34
    [made] = [layer for layer in found.graph.layers if layer.operator is Operator.CONVOLUTION]
    assert (made.window.rows, made.window.columns) == kernel
    assert_lowered(found, inputs)
