"""Saves graphs as safetensors and JSON, and finds the ones that ship with the project.

It builds and quantizes nothing by itself; unknown names and damaged files are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from arch_models.fields import FieldError, build, shortened
from arch_models.files import MOST_ARRAYS, read_bytes, read_json
from arch_models.output import write_text, write_whole
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph, GraphError, Layer, Phase, TensorSpec
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph
from workloads.unicorn.run import looped
from workloads.verify import nearest, verify

DATA = Path(__file__).parent / "data"
VERSION = 1
#: Sampler steps of a frame at most.
MOST_STEPS = 64
#: Short names of the networks one means when one names a codec.
ALIASES: Mapping[str, str] = {"agc": "agc-w64", "unicorn": "unicorn-n256-int8"}
#: Networks that need no file: seeded random integer weights, made when they are read.
GENERATED: Mapping[str, AgcConfig | UnicornConfig] = {
    "agc-w64": AgcConfig(),
    "agc-w48": AgcConfig(width=48, motion_width=48, motion_max=768),
    "agc-w24": AgcConfig(width=24, motion_width=24, motion_max=384),
    "unicorn-n256": UnicornConfig(images=256),
    "unicorn-n1024": UnicornConfig(images=1024),
}


#: What the families of networks are, by the beginning of their names.
DESCRIPTIONS: Mapping[str, str] = {
    "agc-w64": "AGC face animation, full width: a source picture and ten keypoints a frame give a "
               "256 x 256 face (source branch once a group); seeded weights",
    "agc": "AGC face animation, narrower",
    "unicorn": "Unicorn latent diffusion: a latent and its condition, some sampler steps, give a "
               "picture",
}


def description(name: str) -> str:
    """One phrase on a network of the library; what it adds to the family's is in its name."""
    family = max((key for key in DESCRIPTIONS if name.startswith(key)), key=len, default="")
    shipped = (DATA / f"{name.replace('-', '_')}.safetensors").exists()
    trained = "; trained and quantized" if shipped else ""
    return f"{DESCRIPTIONS.get(family, 'a shipped network')}{trained}"


def names() -> tuple[str, ...]:
    """Every name that `load` knows: shipped quantized networks, generated ones, short names."""
    shipped = sorted(path.stem.replace("_", "-") for path in DATA.glob("*.json")
                     if path.with_suffix(".safetensors").exists())
    return (*shipped, *GENERATED, *ALIASES)


def load(name: str) -> Graph:
    """The named graph, verified; a name that ends in .onnx is a file to import.

    A decoder with sampler steps comes with its loop inside, so that what is evaluated is what is
    emitted; `unicorn@4` is one with four steps instead of its own. `GraphError` with the nearest
    name if there is none.
    """
    if name.endswith(".onnx"):
        return imported(name)[0]
    name, steps = asked_steps(name)
    if name not in names():
        raise GraphError(f"no network is called {name!r}; {nearest(name, names())}; known: "
                         + ", ".join(names()))
    name = ALIASES.get(name, name)
    stem = DATA / name.replace("-", "_")
    if stem.with_suffix(".json").exists():
        graph = load_graph(stem)
    else:
        config = GENERATED[name]
        graph = agc_graph(config) if isinstance(config, AgcConfig) else unicorn_graph(config)
    if not graph.phase(Phase.STEP):
        if steps is not None:
            raise GraphError(f"{name} has no sampler, so it takes no number of steps")
        return graph
    if steps not in (None, graph.steps):
        graph = replace(graph, steps=steps, name=f"{graph.name}-{steps}-steps")
    return looped(graph)


def asked_steps(name: str) -> tuple[str, int | None]:
    """The name of a network and the sampler steps asked for behind an @, None without."""
    network, at, text = name.partition("@")
    if not at:
        return name, None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_STEPS:
        raise GraphError(f"{name!r}: steps are {shortened(text)!r}, must be from 1 to {MOST_STEPS}")
    return network, int(text)


def provenance(name: str) -> dict[str, Any]:
    """How a shipped network was made, as its file says; for a generated one, that it is random."""
    name = asked_steps(name)[0]
    if name.endswith(".onnx"):
        return {"weights": f"{Path(name).name}: {imported(name)[1]}"}
    stem = DATA / ALIASES.get(name, name).replace("-", "_")
    if name in names() and stem.with_suffix(".json").exists():
        return dict(_document(stem).provenance)
    load(name)
    return {"weights": "seeded random integers", "seed": 0}


def imported(name: str, calibration: Path | None = None,
             symmetric: bool = False,
             sizes: Mapping[str, Sequence[int]] | None = None,
             cached: Sequence[str] = (),
             values: Mapping[str, Sequence[float]] | None = None) -> tuple[Graph, str]:
    """The graph of an ONNX file and how its numbers came about.

    `calibration`: an .npz file with inputs (`importer.read_calibration`), random ones without
    it. `symmetric`: take ranges with a zero point and widen them. `sizes`: shapes of inputs with
    open axes. `cached`: inputs that stay for a group of pictures. `values`: numbers of inputs that
    never change. `GraphError` for anything that cannot be imported.
    """
    from workloads.onnx.importer import import_onnx, read_calibration  # needs the extra onnx

    given = None if calibration is None else read_calibration(calibration)
    found = import_onnx(Path(name), given, symmetric=symmetric, sizes=sizes,
                        cached=cached, values=values)
    return found.graph, found.note


@dataclass(frozen=True)
class Document:
    """What a graph's JSON file holds."""

    version: int
    name: str
    provenance: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    steps: int = 1
    carried: tuple[tuple[str, str], ...] = ()


def save_graph(graph: Graph, stem: Path, made_by: Mapping[str, Any]) -> None:
    """Write `stem`.safetensors (constants) and `stem`.json (layers, tensors, provenance)."""
    verify(graph)
    document = Document(VERSION, graph.name, dict(made_by), graph.inputs, graph.outputs,
                         tuple(graph.tensors.values()), graph.layers, graph.steps, graph.carried)
    arrays = {name: np.ascontiguousarray(array) for name, array in graph.constants.items()}
    packed = save(arrays)
    write_whole(stem.with_suffix(".safetensors"), lambda file: file.write(packed))
    write_text(stem.with_suffix(".json"), json.dumps(asdict(document), indent=1) + "\n")


def load_graph(stem: Path) -> Graph:
    """Read what `save_graph` wrote. `GraphError` says which file is damaged and how."""
    document = _document(stem)
    try:
        constants = load_arrays(read_bytes(stem.with_suffix(".safetensors"), MOST_ARRAYS))
    except FieldError as error:
        raise GraphError(str(error)) from error
    except Exception as error:  # kinds of numbers that numpy lacks raise other types
        raise GraphError(f"{stem.name}.safetensors cannot be read: "
                         f"{shortened(error, 200)}") from error
    for array in constants.values():
        array.setflags(write=False)
    graph = Graph(document.name, document.inputs, document.outputs,
                  {item.name: item for item in document.tensors}, document.layers, constants,
                  document.steps, document.carried)
    verify(graph)
    return graph


def _document(stem: Path) -> Document:
    path = stem.with_suffix(".json")
    try:
        raw = read_json(path)
        version = raw.get("version") if isinstance(raw, dict) else None
        if version != VERSION:
            raise GraphError(f"{path.name}: version is {shortened(version)}, must be {VERSION}")
        return build(Document, raw, path.name)
    except FieldError as error:
        raise GraphError(str(error)) from error
