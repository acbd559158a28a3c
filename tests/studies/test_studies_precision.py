"""Does the study of 4-bit weights say what evaluations say, and do half the weights move?"""

from __future__ import annotations

import json
from dataclasses import replace

from arch_models.board import load_board
from arch_models.overlay import Infeasible
from cosim.build import build
from cosim.lowering.lower import Lowered
from cosim.program.table import layer_bytes
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate
from studies.headline import precision
from tests.support.command import cosim
from workloads.graph import Operator
from workloads.library import load
from workloads.quantization.narrow import narrowed

NETWORK = "agc-t32b4"


def test_rows_are_evaluations_and_narrow_weights_move_less():
    rows = precision.run(precision.Request((NETWORK,), count=0))
    assert [(row.weight_words, row.memory) for row in rows] == [
        (256, "flat"), (256, "ddr3")] * 3 + [(128, "flat"), (128, "ddr3")]
    assert rows[0].narrow_share == 0 and 0.5 <= rows[2].narrow_share < 1 == rows[4].narrow_share
    assert rows[0].traffic_bytes > rows[2].traffic_bytes > rows[4].traffic_bytes
    found = evaluate(load(NETWORK), inputs.design("face"), load_board("pynq-z1"), "flat", 1)
    assert not isinstance(found, Infeasible)
    assert rows[0].latency_ms == found.latency_ms
    assert rows[0].traffic_bytes == found.bytes_read + found.bytes_written


def test_a_wholly_narrow_decoder_loads_half_of_its_weights():
    """The weight master's bytes besides entries and tables, on one tile order, exactly."""
    graph, face = load(NETWORK), inputs.design("face")
    names = [layer.name for layer in graph.layers if layer.operator is Operator.CONVOLUTION]
    sizes = {}
    for able, mine in ((face, graph), (replace(face, narrow_weights=True), narrowed(graph, names))):
        lowered = build(mine, able, load_board("pynq-z1"))
        assert isinstance(lowered, Lowered)
        sizes[able.narrow_weights] = sum(
            blob.size_bytes for (_, role), blob in lowered.placement.blobs.items()
            if role == "weights")
        master = [unit.name for unit in lowered.program.units].index("weight")
        assert layer_bytes(lowered.program)[:, master].sum() > sizes[able.narrow_weights]
    assert sizes[False] == 2 * sizes[True]


def test_the_command_writes_its_table_and_refuses_other_networks(tmp_path, capsys):
    table, file = tmp_path / "table.md", tmp_path / "rows.json"
    assert cosim("study", "precision", "--networks", NETWORK, "--count", "0", "--table", table,
                 "--json", file) == 0
    assert table.read_text().splitlines()[2].startswith(f"| {NETWORK} | 0 % | - | face, 256 |")
    assert json.loads(file.read_text())
    assert cosim("study", "precision", "--networks", "nobody") == 2
    assert "must be among agc-t32b4" in capsys.readouterr().err
