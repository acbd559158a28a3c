"""Finds normalizations that an exporter wrote out as single steps, and puts one node in place.

It changes no numbers. Only the pattern (x - mean) / sqrt(variance + epsilon) is known, where mean
and variance are taken over the same axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from workloads.onnx.read import Model, Node

#: Stands for a written-out normalization; it is no operator of ONNX.
OVER_AXES = "Normalize over axes"


def with_normalizations(model: Model, constants: Mapping[str, np.ndarray]) -> Model:
    """The model with one node for each pattern. Its steps go if nothing else reads them."""
    makers = {name: node for node in model.nodes for name in node.outputs}
    found: dict[int, tuple[Node, list[Node]]] = {}
    for index, node in enumerate(model.nodes):
        match = _match(node, makers, constants)
        if match is not None:
            found[index] = match
    if not found:
        return model
    nodes = [found[index][0] if index in found else node
             for index, node in enumerate(model.nodes)]
    steps = [id(step) for _, used in found.values() for step in used]
    return replace(model, nodes=tuple(_without_unread(nodes, set(steps), model.outputs)))


def _without_unread(nodes: Sequence[Node], steps: set[int], outputs: Sequence[str]) -> list[Node]:
    kept, read = [], set(outputs)
    for node in reversed(nodes):
        if id(node) in steps and read.isdisjoint(node.outputs):
            continue
        kept.append(node)
        read.update(node.reads)
    return kept[::-1]


def _match(node: Node, makers: Mapping[str, Node],
           constants: Mapping[str, np.ndarray]) -> tuple[Node, list[Node]] | None:
    """The one node for a pattern that ends here, and the steps it replaces."""
    def maker(name: str, *operators: str) -> Node | None:
        made = makers.get(name)
        return made if made is not None and made.operator in operators else None

    if node.operator not in ("Div", "Mul") or len(node.inputs) != 2:
        return None
    centered, spread = maker(node.inputs[0], "Sub"), maker(node.inputs[1], "Sqrt", "Reciprocal")
    if centered is None or spread is None or (
            (node.operator == "Div") != (spread.operator == "Sqrt")):
        return None
    used = [centered, spread]
    if spread.operator == "Reciprocal":
        root = maker(spread.inputs[0], "Sqrt")
        if root is None:
            return None
        used.append(root)
        spread = root
    total = maker(spread.inputs[0], "Add")
    if total is None:
        return None
    variance = maker(total.inputs[0], "ReduceMean")
    epsilon = constants.get(total.inputs[1])
    square = maker(variance.inputs[0], "Pow", "Mul") if variance is not None else None
    mean = maker(centered.inputs[1], "ReduceMean")
    if variance is None or epsilon is None or square is None or mean is None or epsilon.size != 1:
        return None
    squared = (square.inputs == (centered.outputs[0],) * 2 if square.operator == "Mul" else
               square.inputs[0] == centered.outputs[0] and _is_two(constants, square.inputs[1]))
    axes, same = _axes(mean, constants), _axes(variance, constants)
    if not squared or mean.inputs[0] != centered.inputs[0] or not axes or axes != same:
        return None
    attributes = {"axes": axes, "epsilon": float(epsilon.reshape(-1)[0])}
    made = Node(node.name, OVER_AXES, (centered.inputs[0],), node.outputs, attributes, node.proto,
                node.opset)
    return made, [*used, total, variance, square, mean]


def _is_two(constants: Mapping[str, np.ndarray], name: str) -> bool:
    return name in constants and bool((constants[name] == 2).all())


def _axes(node: Node, constants: Mapping[str, np.ndarray]) -> list[int]:
    if not node.attribute("keepdims", 1):
        return []
    given = node.attribute("axes", None)
    if given is None and len(node.inputs) > 1 and node.inputs[1] in constants:
        given = constants[node.inputs[1]].reshape(-1).tolist()
    return sorted(int(axis) for axis in given or [])
