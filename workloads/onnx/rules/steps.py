"""Collects the nodes that stand for one of the file's.

It gives no operator a meaning; the rules do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.onnx.read import Node, made_node
from workloads.onnx.walk import Walk

#: A rule that gives the nodes which stand for one of the file's, None where it is simple already.
Expansion = Callable[[Walk, Node], list[Node] | None]


class Steps:
    """Nodes in order; what they make is named after the first output that the node they stand for
    does not leave out."""

    def __init__(self, walk: Walk, node: Node) -> None:
        self.walk, self.node, self.nodes = walk, node, list[Node]()
        self.prefix = next(filter(None, node.outputs), node.name)

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Append a node; return the name of what it makes."""
        made = out or f"{self.prefix}.step{len(self.nodes)}"
        self.nodes.append(made_node(operator, inputs, (made,), name=self.node.name, **attributes))
        return made

    def constant(self, value: object, kind: type = np.float32) -> str:
        """A constant by a name of its own."""
        name = f"{self.prefix}.constant{len(self.walk.constants)}"
        self.walk.constants[name] = np.asarray(value, kind)
        return name

    def softmax(self, name: str, axis: int, opset: int) -> str:
        """Append a Softmax; before operator set 13 it takes all axes from that one on together."""
        made = self("Softmax", name, axis=axis)
        self.nodes[-1] = replace(self.nodes[-1], opset=opset)
        return made

    def last(self, name: str) -> list[Node]:
        """All nodes; the node's output is what `name` is."""
        self("Identity", name, out=self.node.outputs[0])
        return self.nodes
