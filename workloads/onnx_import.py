"""Imports ONNX networks: static int8 (QDQ) as they are, float ones by quantizing them.

It reads no files itself (`onnx_read`) and invents no meaning: an operator it does not know is
listed with its node, all of them at once, and nothing is dropped.

Batch one, tensors of rank 4 (one, channels, rows, columns) or 2 (one, features). Weights and
activations of a QDQ network must be symmetric; uint8 with zero point 128 is the same as int8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .float_network import FloatNetwork
from .graph import Graph, GraphError
from .onnx_operators import RULES
from .onnx_read import Model, read_model
from .onnx_walk import Unsupported, Walk
from .post_training import Recipe, quantize


@dataclass(frozen=True)
class Imported:
    """A quantized graph, the float network behind it, and how its numbers came about."""

    graph: Graph
    network: FloatNetwork
    note: str


def import_onnx(
    path: Path, calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
    recipe: Recipe | None = None, seed: int = 0,
) -> Imported:
    """The integer graph of an ONNX file.

    `calibration`: real inputs by name, each (channels, rows, columns); without it, four seeded
    inputs from a standard normal distribution are used and the note says so. Scales and weights
    that the file states (QDQ) are kept. `recipe`: multiplier-and-shift scales if not given.
    `GraphError` lists every unsupported node.
    """
    network = float_network(read_model(path))
    stated = bool(network.weight_steps)
    recipe = recipe or Recipe(power_of_two=False, correct_bias=not stated)
    if calibration is None:
        calibration = random_inputs(network.graph, 4, seed)
        origin = "random calibration (standard normal, 4 inputs)"
    else:
        origin = f"calibrated with {len(calibration)} given inputs"
    graph = quantize(network, calibration, recipe)
    note = "scales as the file states them" if stated else f"float network, {origin}"
    return Imported(graph, network, note)


def random_inputs(graph: Graph, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Seeded standard normal inputs of a graph."""
    random = np.random.default_rng(seed)
    return [{name: random.normal(0, 1, graph.tensors[name].shape).astype(np.float32)
             for name in graph.inputs} for _ in range(count)]


def float_network(model: Model) -> FloatNetwork:
    """The model as a float network; `GraphError` lists every unsupported node."""
    walk = Walk(model)
    problems = []
    # What follows a node that failed is judged by its operator only.
    failed: set[str] = set()
    for name in model.inputs:
        try:
            walk.tensor(name)
        except Unsupported as problem:
            problems.append(f"input {name!r}: {problem}")
            failed.add(name)
    for node in model.nodes:
        rule = RULES.get(node.operator)
        try:
            if rule is None:
                raise Unsupported("no such operator here")
            if failed.isdisjoint(node.inputs):
                rule(walk, node)
            else:
                failed.update(node.outputs)
        except Unsupported as problem:
            problems.append(f"{node.operator} {node.name!r}: {problem}")
            failed.update(node.outputs)
    if problems:
        raise GraphError(f"{model.name}: {len(problems)} nodes are not supported: "
                         + "; ".join(problems))
    return walk.network()
