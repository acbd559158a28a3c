"""Is one program evaluated, emitted and run in RTL, at any clock?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import Overlay, Rate, load_overlay
from cosim.build import build
from cosim.lowering.lower import Lowered
from studies.evaluation import emission
from studies.evaluation.batch import Batch
from studies.evaluation.evaluate import evaluate
from studies.validate import rtl
from workloads.frames import whole_frame
from workloads.graph import Graph
from workloads.library import load
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph
from workloads.unicorn.run import looped

BOARD = load_board("pynq-z1")
SAMPLED = UnicornConfig(
    steps=3, width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=16,
    embedding=64, latent_rows=16, latent_cols=16, decoder_widths=(32, 16), images=4, groups=4)
CASES = (pytest.param("agc-w64", "default", marks=pytest.mark.long), ("agc-w16", "default"),
         ("a sampled network", "diffusion"),
         pytest.param("unicorn", "diffusion", marks=pytest.mark.long))


class Lowering(Exception):
    """Carries what a command was about to emit or to run; nothing is written or compiled."""


def network(name: str) -> Graph:
    """A network as `load` gives it: one with sampler steps has its loop inside."""
    return looped(unicorn_graph(SAMPLED)) if name == "a sampled network" else load(name)


def at(overlay: Overlay, clock_hz: int | None) -> Overlay:
    """The design at a rate, or at its predicted one."""
    if clock_hz is None:
        return replace(overlay, rate=Rate.PREDICTED)
    return replace(overlay, clock_hz=clock_hz, rate=Rate.FIXED)


def stopped(monkeypatch: pytest.MonkeyPatch, module: object, name: str, run) -> Lowered:
    """The first argument that `run` gives to `module.name`."""
    def stop(first, *_rest, **_named):
        raise Lowering(first)

    monkeypatch.setattr(module, name, stop)
    with pytest.raises(Lowering) as caught:
        run()
    return caught.value.args[0]


@pytest.mark.parametrize("clock_hz", [100_000_000, 200_000_000, None])
@pytest.mark.parametrize(("name", "design"), CASES)
def test_evaluate_emit_and_rtl_lower_to_one_content_hash(
        name: str, design: str, clock_hz: int | None, monkeypatch: pytest.MonkeyPatch,
        tmp_path) -> None:
    graph, overlay = network(name), at(load_overlay(design), clock_hz)
    wanted = evaluate(graph, overlay, BOARD, frames=1, detail=True).program_hash
    emitted = stopped(monkeypatch, emission, "emit",
                      lambda: emission.emit_for(graph, overlay, BOARD, tmp_path / "out"))
    assert emitted.program.content_hash() == wanted
    checked = stopped(monkeypatch, emission, "run_frame",
                      lambda: emission.check_emitted(graph, overlay, BOARD))
    assert checked.program.content_hash() == wanted
    run = stopped(monkeypatch, rtl, "OverlayBench",
                  lambda: rtl.compare_frame(graph, overlay, BOARD))
    assert run.content_hash() == wanted
    batch = Batch(graph, BOARD)
    batch.evaluate([overlay])
    assert wanted in {item.lowered.program.content_hash() for item in batch.programs.values()}


def test_a_shipped_sampler_is_evaluated_with_the_loop_that_is_emitted() -> None:
    graph = load("unicorn")
    assert graph.steps == 8 and graph.carried
    assert whole_frame(graph)[0] is graph


def test_the_clock_changes_tiles_of_agc() -> None:
    """So the contract above would notice a mapping that is made without the board's memory."""
    graph, design = load("agc-w64"), load_overlay("default")

    def tiles(overlay: Overlay) -> list:
        return [item.tile for item in build(graph, overlay, BOARD).mapping.layers]

    slow, fast = (tiles(at(design, clock)) for clock in (100_000_000, 200_000_000))
    assert sum(one != other for one, other in zip(slow, fast, strict=True)) >= 3
