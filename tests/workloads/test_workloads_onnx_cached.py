"""Does what follows from cached inputs alone run once a group, with the values unchanged?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.onnx_models import model_of
from workloads.graph import GraphError, Phase
from workloads.onnx.importer import import_onnx
from workloads.quantization.post_training import quantized_inputs
from workloads.reference import execute

node = onnx.helper.make_node
SHAPES = {"motion": (1, 4, 6, 6), "source": (1, 4, 6, 6)}


def saved(folder: Path) -> Path:
    """A source branch with a constant beside it, and a sum with what the motion makes."""
    random = np.random.default_rng(0)
    constants = {"w": random.normal(0, 0.5, (4, 8, 3, 3)).astype(np.float32),
                 "coordinates": random.normal(0, 1, (1, 4, 6, 6)).astype(np.float32)}
    model = model_of([
        node("Concat", ["source", "coordinates"], ["wide"], axis=1),
        node("Conv", ["wide", "w"], ["features"], pads=[1] * 4),
        node("Tanh", ["motion"], ["moved"]), node("Add", ["features", "moved"], ["y"])],
        SHAPES, "y", constants)
    onnx.save(model, folder / "own.onnx")
    return folder / "own.onnx"


def test_phases_follow_from_the_cached_input(tmp_path: Path) -> None:
    """A constant that stands as a tensor belongs to the group as well."""
    random = np.random.default_rng(1)
    given = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    plain = import_onnx(saved(tmp_path), [given])
    found = import_onnx(saved(tmp_path), [given], cached=["source"])
    assert {layer.output for layer in found.graph.layers if layer.phase is Phase.FRAME} == {
        found.views["moved"].tensor, found.views["y"].tensor}
    assert all(layer.phase is Phase.FRAME for layer in plain.graph.layers)
    inputs = quantized_inputs(found.graph, found.entered(given))
    group = execute(found.graph, inputs, [Phase.GROUP])
    frame = execute(found.graph, {**inputs, **group}, [Phase.FRAME])
    whole = replace(found.graph, layers=tuple(
        replace(layer, phase=Phase.FRAME) for layer in found.graph.layers))
    name = found.graph.outputs[0]
    assert np.array_equal(frame[name], execute(whole, inputs)[name])


@pytest.mark.parametrize(("cached", "reason"), [
    (["sourc"], "own.onnx has no input 'sourc' to cache; nearest: 'source'"),
    (["source", "motion"], "^own.onnx: every input is cached, so no frame differs")])
def test_inputs_that_cannot_be_cached_are_refused(cached: list[str], reason: str,
                                                  tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=reason):
        import_onnx(saved(tmp_path), cached=cached)
