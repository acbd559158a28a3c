"""Saves graphs as safetensors and JSON, and finds the ones that ship with the project.

It builds and quantizes nothing by itself; unknown names and damaged files are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, GraphError, Layer, Operator, Phase, TensorSpec, Window
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph
from workloads.verify import nearest, verify

DATA = Path(__file__).parent / "data"
VERSION = 1
#: Short names of the networks one means when one names a codec.
ALIASES: Mapping[str, str] = {"agc": "agc-w64", "unicorn": "unicorn-n256-int8"}
#: Networks that need no file: seeded random integer weights, made when they are read.
GENERATED: Mapping[str, AgcConfig | UnicornConfig] = {
    "agc-w64": AgcConfig(),
    "agc-w48": AgcConfig(width=48, motion_width=48, motion_max=768),
    "agc-w32": AgcConfig(width=32, motion_width=32, motion_max=512),
    "agc-w24": AgcConfig(width=24, motion_width=24, motion_max=384),
    "agc-w16": AgcConfig(width=16, motion_width=16, motion_max=256),
    "unicorn-n256": UnicornConfig(images=256),
    "unicorn-n1024": UnicornConfig(images=1024),
}


def names() -> tuple[str, ...]:
    """Every name that `load` knows: shipped quantized networks, generated ones, short names."""
    shipped = sorted(path.stem.replace("_", "-") for path in DATA.glob("*.json")
                     if path.with_suffix(".safetensors").exists())
    return (*shipped, *(name for name in GENERATED if name not in shipped), *ALIASES)


def load(name: str) -> Graph:
    """The named graph, verified; a name that ends in .onnx is a file to import.

    `GraphError` with the nearest name if there is none.
    """
    if name.endswith(".onnx"):
        return imported(name)[0]
    if name not in names():
        raise GraphError(f"no network is called {name!r}; {nearest(name, names())}; known: "
                         + ", ".join(names()))
    name = ALIASES.get(name, name)
    stem = DATA / name.replace("-", "_")
    if stem.with_suffix(".json").exists():
        return load_graph(stem)
    config = GENERATED[name]
    return agc_graph(config) if isinstance(config, AgcConfig) else unicorn_graph(config)


def provenance(name: str) -> dict[str, Any]:
    """How a shipped network was made, as its file says; for a generated one, that it is random."""
    if name.endswith(".onnx"):
        return {"weights": f"{Path(name).name}: {imported(name)[1]}"}
    stem = DATA / ALIASES.get(name, name).replace("-", "_")
    if name in names() and stem.with_suffix(".json").exists():
        return dict(_document(stem)["provenance"])
    load(name)
    return {"weights": "seeded random integers", "seed": 0}


def imported(name: str, calibration: Path | None = None,
             symmetric: bool = False) -> tuple[Graph, str]:
    """The graph of an ONNX file and how its numbers came about.

    `calibration`: an .npz file with inputs (`onnx_import.read_calibration`), random ones without
    it. `symmetric`: take ranges with a zero point and widen them. `GraphError` for anything that
    cannot be imported.
    """
    try:
        from workloads.onnx.importer import import_onnx, read_calibration
    except ImportError as error:
        raise GraphError(f"{name}: reading ONNX files needs the extra 'onnx' ({error})") from error
    given = None if calibration is None else read_calibration(calibration)
    found = import_onnx(Path(name), given, symmetric=symmetric)
    return found.graph, found.note


def save_graph(graph: Graph, stem: Path, made_by: Mapping[str, Any]) -> None:
    """Write `stem`.safetensors (constants) and `stem`.json (layers, tensors, provenance)."""
    verify(graph)
    document = {
        "version": VERSION,
        "name": graph.name,
        "provenance": dict(made_by),
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "steps": graph.steps,
        "carried": graph.carried,
        "tensors": [asdict(spec) for spec in graph.tensors.values()],
        "layers": [asdict(layer) for layer in graph.layers],
    }
    text = json.dumps(document, indent=1)
    arrays = {name: np.ascontiguousarray(array) for name, array in graph.constants.items()}
    stem.with_suffix(".safetensors").write_bytes(save(arrays))
    stem.with_suffix(".json").write_text(text + "\n")


def load_graph(stem: Path) -> Graph:
    """Read what `save_graph` wrote. `GraphError` says which file is damaged and how."""
    document = _document(stem)
    try:
        constants = load_file(stem.with_suffix(".safetensors"))
    except (OSError, SafetensorError) as error:
        raise GraphError(f"{stem.name}.safetensors cannot be read: {error}") from error
    for array in constants.values():
        array.setflags(write=False)
    try:
        tensors = {item["name"]: TensorSpec(**item) for item in document["tensors"]}
        layers = tuple(_layer(item) for item in document["layers"])
        graph = Graph(document["name"], tuple(document["inputs"]), tuple(document["outputs"]),
                      tensors, layers, constants, document["steps"],
                      tuple((given, made) for given, made in document.get("carried", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(f"{stem.name}.json is damaged: {error!r}") from error
    verify(graph)
    return graph


def _layer(item: Mapping[str, Any]) -> Layer:
    fields = dict(item)
    fields |= {
        "operator": Operator(item["operator"]),
        "phase": Phase(item["phase"]),
        "inputs": tuple(item["inputs"]),
        "window": Window(**item["window"]),
    }
    return Layer(**fields)


def _document(stem: Path) -> dict[str, Any]:
    path = stem.with_suffix(".json")
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise GraphError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("version") != VERSION:
        found = document.get("version") if isinstance(document, dict) else None
        raise GraphError(f"{path.name}: version is {found!r}, must be {VERSION}")
    return document
