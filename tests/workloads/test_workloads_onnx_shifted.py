"""Are zero points kept exactly where every reader takes them in its bias, and widened elsewhere?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.evaluation.losses import decibels
from tests.support.onnx_beside import assert_lowered, computed, runtime
from tests.support.onnx_models import model_of
from workloads.graph import GraphError
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
    "b": weights(6, 8, 3, 3), "m": weights(5, 8), "g": weights(5, 4), "ws": np.float32(0.004)}
LEFT = [*counted("x", "d", "s", "z"), node("DequantizeLinear", ["a", "ws", "z"], ["wa"]),
        node("DequantizeLinear", ["b", "ws", "z"], ["wb"]),
        node("DequantizeLinear", ["m", "ws", "z"], ["wm"]),
        node("DequantizeLinear", ["g", "ws", "z"], ["wg"])]
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
PADDED = [*CONVOLUTIONS[:-1], node("Conv", ["f", "wb"], ["c"], pads=[1] * 4)]


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


@pytest.mark.parametrize("nodes", [
    PADDED, [*CONVOLUTIONS, node("MaxPool", ["f"], ["other"], kernel_shape=[2, 2])],
    [*CONVOLUTIONS[:-1], node("MaxPool", ["f"], ["c"], kernel_shape=[2, 2])]],
    ids=["padded", "another reader", "no product"])
def test_what_pads_or_computes_otherwise_is_refused_or_widened(nodes: list[onnx.NodeProto],
                                                               tmp_path: Path) -> None:
    """Hardware pads with zeros, which are no real zeros there."""
    path = saved(tmp_path, np.uint8(97), nodes)
    with pytest.raises(GraphError, match="the zero point must be 128"):
        import_onnx(path, [VALUES])
    assert "1 ranges with a zero point widened" in import_onnx(path, [VALUES], symmetric=True).note
