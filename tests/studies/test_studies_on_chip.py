"""Does the study of tensors on chip say what evaluations say, and is no size ever slower?"""

from __future__ import annotations

import json
from dataclasses import replace

from arch_models.board import load_board
from arch_models.overlay import Infeasible
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate
from studies.why import on_chip
from tests.support.command import cosim


def test_rows_are_evaluations_and_no_size_is_slower_than_none():
    rows = on_chip.run(on_chip.Request(("agc-w16",), ("pynq-z1",), ("flat",)))
    assert [row.kib for row in rows] == [0, 16, 32, 64, 128]  # 140 block RAMs hold no more
    for before, after in zip(rows, rows[1:], strict=False):
        assert after.latency_ms <= rows[0].latency_ms
        assert after.traffic_bytes < before.traffic_bytes
    design = on_chip.with_room(inputs.design("default"))
    found = evaluate(inputs.workload("agc-w16"), replace(design, tensor_memory_kib=64),
                     load_board("pynq-z1"), "flat", 1)
    assert not isinstance(found, Infeasible)
    assert rows[3].latency_ms == found.latency_ms
    assert rows[3].traffic_bytes == found.bytes_read + found.bytes_written
    without, best = on_chip.pairs(rows)[0]
    assert without.kib == 0 and best.energy_uj == min(row.energy_uj for row in rows[1:])


def test_the_command_writes_its_table_and_refuses_other_networks(tmp_path, capsys):
    table, file = tmp_path / "table.md", tmp_path / "rows.json"
    assert cosim("study", "on-chip", "--networks", "agc-w16", "--boards", "zc702",
                 "--table", str(table), "--json", str(file)) == 0
    assert table.read_text().splitlines()[2].startswith("| agc-w16 | zc702 | flat | 128 |")
    assert "128" in json.dumps(json.loads(file.read_text()))
    assert cosim("study", "on-chip", "--networks", "nobody") == 2
    assert "must be among agc-w16" in capsys.readouterr().err
