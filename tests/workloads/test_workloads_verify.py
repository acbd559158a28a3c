"""Checks that ill-formed graphs and damaged files are refused with a message that helps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workloads import library
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, GraphError, Window
from workloads.library import load_graph, save_graph
from workloads.verify import verify

TINY = AgcConfig(
    width=4, blocks=2, motion_width=4, motion_max=16, motion_blocks=3, keypoints=3,
    rows=64, cols=96,
)


def with_layer(graph: Graph, which: str, **changes: Any) -> Graph:
    layers = tuple(replace(layer, **changes) if layer.name == which else layer
                   for layer in graph.layers)
    return replace(graph, layers=layers)


def with_tensor(graph: Graph, name: str, **changes: Any) -> Graph:
    changed = replace(graph.tensors[name], **changes)
    return replace(graph, tensors={**graph.tensors, name: changed})


def with_constant(graph: Graph, name: str, array: np.ndarray | None) -> Graph:
    constants = {key: graph.constants[key] for key in graph.constants if key != name}
    if array is not None:
        constants[name] = array
    return replace(graph, constants=constants)


GRAPH = agc_graph(TINY)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (with_layer(GRAPH, "up0", inputs=("up0.upsampel",)), r"no spec; nearest: 'up0.upsample'"),
        (with_layer(GRAPH, "down0", inputs=("up1",)), "before any layer wrote it"),
        (with_layer(GRAPH, "res0.conv2", output="res0.conv1"), "written once"),
        (with_layer(GRAPH, "down1", name="down0"), "used twice"),
        (with_layer(GRAPH, "down0", window=Window(5, 5, 1, 1)), r"makes \(8, 62, 94\)"),
        (with_layer(GRAPH, "res0.add", inputs=("res0.conv2",)), "1 inputs, add takes 2"),
        (with_layer(GRAPH, "down0.pool", window=Window(3, 3, 2, 1)), "window of 9 needs"),
        (with_layer(GRAPH, "up0", constants={}), "constant 'weights' is missing"),
        (with_tensor(GRAPH, "dec2", scale=0.5), "has scale 0.5"),
        (with_tensor(GRAPH, "up0", bits=12), "bits is 12"),
        (with_tensor(GRAPH, "up0", scale=0.0), "must be positive"),
        (with_tensor(GRAPH, "res0.norm", bits=32), "a convolution reads 8 or 16"),
        (with_constant(GRAPH, "up0.bias", None), "not in the graph; nearest: 'up"),
        (with_constant(GRAPH, "up0.bias", np.zeros(3, np.int32)), r"shape \(3,\)"),
        (with_constant(GRAPH, "up0.shift", np.full(8, 48, np.int32)), "from 0 to 47"),
        (with_constant(GRAPH, "up0.multiplier", np.full(8, 1 << 15, np.int32)), "to 32767"),
        (with_constant(GRAPH, "up0.bias", np.full(8, 2**31 - 1, np.int32)), "accumulator"),
        (replace(GRAPH, outputs=("pictures",)), "nearest: 'picture'"),
        (replace(GRAPH, layers=GRAPH.layers[:-1]), "never written"),
    ],
)
def test_a_broken_graph_is_refused(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        verify(graph)


def test_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(GraphError, match=r"nearest: \['final'\]"):
        GRAPH.layer("fnal")


def test_saved_and_loaded_is_equal(tmp_path: Path) -> None:
    save_graph(GRAPH, tmp_path / "tiny", {"weights": "random"})
    loaded = load_graph(tmp_path / "tiny")
    assert (loaded.name, loaded.inputs, loaded.outputs) == (
        GRAPH.name, GRAPH.inputs, GRAPH.outputs)
    assert loaded.layers == GRAPH.layers and loaded.tensors == dict(GRAPH.tensors)
    assert set(loaded.constants) == set(GRAPH.constants)
    for name, array in loaded.constants.items():
        assert array.dtype == GRAPH.constants[name].dtype
        assert np.array_equal(array, GRAPH.constants[name])


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_graph(agc_graph(TINY), tmp_path / name, {})
    for suffix in (".json", ".safetensors"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


@pytest.mark.parametrize("name", library.names())
def test_every_network_loads(name: str) -> None:
    verify(library.load(name))
    assert "weights" in library.provenance(name)


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(GraphError, match="nearest: 'agc-w16'"):
        library.load("agc_w16")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("version", "version is 99"),
        ("field", r"layers\[0\]: unknown field 'colour'"),
        ("operator", r"layers\[0\]\.operator: 'guess'; known"),
        ("text", "not JSON"),
        ("list", "version is None"),
        ("weights", "safetensors cannot be read"),
        ("missing", "there is no file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str, message: str) -> None:
    stem = tmp_path / "tiny"
    save_graph(GRAPH, stem, {})
    path = stem.with_suffix(".json")
    document = json.loads(path.read_text())
    match damage:
        case "version":
            path.write_text(json.dumps(document | {"version": 99}))
        case "field":
            document["layers"][0]["colour"] = 1
            path.write_text(json.dumps(document))
        case "operator":
            document["layers"][0]["operator"] = "guess"
            path.write_text(json.dumps(document))
        case "text":
            path.write_text(path.read_text()[:100])
        case "list":
            path.write_text("[]")
        case "weights":
            weights = stem.with_suffix(".safetensors")
            weights.write_bytes(weights.read_bytes()[:200])
        case "missing":
            path.unlink()
    with pytest.raises(GraphError, match=message):
        load_graph(stem)


@pytest.mark.parametrize("name", ("../x", "a b", "", "$x$", "x" * 200))
def test_a_name_that_is_no_files_name_is_refused(name: str) -> None:
    graph = agc_graph(TINY)
    with pytest.raises(GraphError, match="graph: name: .*must be letters"):
        verify(replace(graph, name=name))
    with pytest.raises(GraphError, match="layer: .*must be letters"):
        verify(with_layer(graph, graph.layers[0].name, name=name))
    tensors = {**graph.tensors, name: replace(next(iter(graph.tensors.values())), name=name)}
    with pytest.raises(GraphError, match="tensor: .*must be letters"):
        verify(replace(graph, tensors=tensors))
