"""Do the executors agree on the networks that ship, with both memories?"""

from __future__ import annotations

import pytest

from arch_models.board import load_board
from arch_models.memory import memory_for
from arch_models.overlay import default_overlay
from cosim.build import build
from cosim.executors import des, fast
from cosim.program.table import Program
from cosim.program.verify import verify
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph
from workloads.library import load

BOARD, OVERLAY = load_board("pynq-z1"), default_overlay()


def lowered(graph: Graph, frames: int = 1) -> Program:
    program = build(graph, OVERLAY, BOARD, frames).program
    verify(program)
    return program


@pytest.mark.parametrize("model", [pytest.param("flat", marks=pytest.mark.long), "ddr3"])
def test_narrow_decoder_agrees(model: str) -> None:
    program, memory = lowered(load("agc-w16")), memory_for(BOARD, OVERLAY, model)
    quick = fast.simulate(program, memory, trace=True)
    assert des.simulate(program, memory, trace=True).differences(quick) == []
    assert quick.broken_invariants() == []


@pytest.mark.long
@pytest.mark.parametrize("model", ["flat", "ddr3"])
def test_full_decoder_agrees(model: str) -> None:
    program = lowered(agc_graph(AgcConfig(width=64), seed=0))
    memory = memory_for(BOARD, OVERLAY, model)
    quick = fast.simulate(program, memory)
    assert des.simulate(program, memory).differences(quick) == []
