"""Does the FPGA 2015 design have its published cycles, and its times within a few per cent?"""

from __future__ import annotations

import json
from pathlib import Path

from studies.validate import fpga2015 as validate_fpga2015
from tests.support.command import cosim


def test_cycles_are_the_published_ones_and_times_are_close(tmp_path: Path) -> None:
    checks = validate_fpga2015.validate()
    assert [item.name for item in checks] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    for item in checks:
        left_out = validate_fpga2015.FILL_LEFT_OUT.get(item.name, 0) * validate_fpga2015.SETS
        assert item.cycles == item.published_cycles + left_out
        assert abs(item.error) <= 0.06
    assert sum(abs(item.error) for item in checks) < sum(abs(item.model_error) for item in checks)
    path = tmp_path / "fpga2015.json"
    assert cosim("validate", "fpga2015", "--json", path) == 0
    assert len(json.loads(path.read_text())) == 5
