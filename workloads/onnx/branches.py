"""Takes the branch of an If whose condition is known while importing.

It imports no loop: what runs a number of times that only an input tells has no fixed program.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from workloads.onnx.read import Node, graphs_of, node_of
from workloads.onnx.rules.steps import Steps
from workloads.onnx.walk import Unsupported, Walk


def branch(walk: Walk, node: Node) -> list[Node]:
    """The nodes of the branch that is taken. Their names get the output's in front, since two
    branches may use the same ones."""
    if node.inputs[0] not in walk.constants:
        raise Unsupported(f"the condition {node.inputs[0]!r} depends on activations; export with "
                          "the branch that is taken (torch.jit.trace, fixed sizes)")
    condition = walk.constant(node.inputs[0])
    if condition.size != 1:
        raise Unsupported(f"the condition has {condition.size} values, must be one")
    taken = node.attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"]
    graph = onnx.GraphProto()
    graph.CopyFrom(taken)
    _renamed(graph, f"{next(filter(None, node.outputs), node.name)}/", {})
    for tensor in graph.initializer:
        walk.constants[tensor.name] = numpy_helper.to_array(tensor)
    steps = Steps(walk, node)
    steps.nodes += [node_of(item, index, node.opset) for index, item in enumerate(graph.node)]
    for inner, outer in zip(graph.output, node.outputs, strict=True):
        if outer:
            steps("Identity", inner.name, out=outer)
    return steps.nodes


def _renamed(graph: onnx.GraphProto, prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """Put a prefix before what the graph makes itself. `names`: new names of what the graphs
    around it make. Returns these with its own; what comes from further outside stays."""
    own = dict(names)
    made = [tensor.name for tensor in graph.initializer]
    made += [name for node in graph.node for name in node.output if name]
    own.update((name, prefix + name) for name in made)
    for tensor in graph.initializer:
        tensor.name = own[tensor.name]
    for node in graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
        for inner in graphs_of(node):
            _renamed(inner, prefix, own)
    for value in graph.output:
        value.name = own.get(value.name, value.name)
    return own
