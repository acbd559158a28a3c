"""Does `cosim validate onnx` say layer by layer what int8 costs, and end at the output's?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies.evaluation.inputs import Reading
from studies.evaluation.losses import losses, read
from tests.support.command import cosim
from tests.support.onnx_models import three_convolutions


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
