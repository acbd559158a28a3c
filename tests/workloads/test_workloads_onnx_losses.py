"""Does `cosim validate onnx` say layer by layer what int8 costs, and end at the output's?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from studies.evaluation.inputs import Reading
from studies.validate.onnx.outputs import losses, read
from tests.support.command import cosim


def three_convolutions(path: Path) -> None:
    draw = np.random.default_rng(1)
    weights = [numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
               for name, shape in (("a", (8, 3, 3, 3)), ("b", (8, 8, 3, 3)), ("c", (4, 8, 1, 1)))]
    nodes = [helper.make_node("Conv", [source, name], [target], pads=[side] * 4)
             for source, name, target, side in (("x", "a", "y", 1), ("y", "b", "z", 1),
                                                ("z", "c", "out", 0))]
    graph = helper.make_graph(
        nodes, "three", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 4, 16, 16))], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                                ir_version=8), path)


def test_each_layer_says_what_int8_costs_up_to_there(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "three.onnx"
    three_convolutions(path)
    assert cosim("validate", "onnx", path, "--json", tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    rows = found["int8_beside_float"]
    assert [row["operator"] for row in rows] == ["convolution"] * 3
    assert rows[-1]["int8_db"] == pytest.approx(found["outputs"][0]["int8_db"], abs=0.01)
    # Noise of independent roundings adds up, whatever a layer does to the signal.
    assert rows[0]["int8_db"] > rows[1]["int8_db"] > rows[2]["int8_db"] > 20
    assert found["share_within_one_step"] is None
    assert "SQNR, dB" in capsys.readouterr().out
    assert [item.int8_db for item in losses(read(path, Reading()), Reading())] == [
        row["int8_db"] for row in rows]
