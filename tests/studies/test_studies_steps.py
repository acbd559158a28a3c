"""Does a decoder with a sampler run as many steps as it is asked to?"""

from __future__ import annotations

from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from studies.evaluation import inputs
from studies.evaluation.evaluate import feasible, simulate_design
from tests.support.command import cosim
from workloads.graph import GraphError
from workloads.library import load


def test_sampler_steps_may_be_asked_for() -> None:
    """Each step takes the same time; one step of the eight-step network is the network of one."""
    overlay, board = load_overlay("diffusion"), load_board("pynq-z1")
    cycles = [int(feasible(simulate_design(load(name), overlay, board)).result.total_cycles)
              for name in ("unicorn@1", "unicorn@2", "unicorn@3", "unicorn-n256-one-step")]
    assert cycles[2] - cycles[1] == cycles[1] - cycles[0] > 0
    assert cycles[3] == cycles[0]
    assert load("unicorn@8").name == load("unicorn").name != load("unicorn@2").name


@pytest.mark.parametrize(("name", "reason"), [
    ("unicorn@0", "steps are '0', must be from 1 to 64"), ("unicorn@two", "must be from 1 to 64"),
    ("agc-w16@2", "agc-w16 has no sampler"), ("unicor@2", "no network is called 'unicor'")])
def test_steps_that_no_sampler_takes_are_refused(name: str, reason: str) -> None:
    with pytest.raises(GraphError, match=reason):
        load(name)


def test_a_stored_result_knows_its_steps(tmp_path: Path, capsys) -> None:
    """What looks into the result again runs the same number."""
    path = tmp_path / "two.json"
    assert cosim("simulate", "unicorn", "--steps", "2", "--design", "diffusion", "--memory",
                 "flat", "--json", str(path)) == 0
    subject = inputs.subject(str(path))
    assert subject.graph.steps == 2 and subject.network == "unicorn@2"
    capsys.readouterr()
    assert cosim("simulate", "net.onnx", "--steps", "2") == 2
    assert "--steps is for decoders with a sampler" in capsys.readouterr().err
