"""LSTM, GRU and RNN as single steps, one after the other in time.

It makes no layers. The product of the inputs with their weights is one matrix product for all
steps; what remains is as serial on the hardware as it is in the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workloads.onnx.read import Node
from workloads.onnx.rules.steps import Steps
from workloads.onnx.walk import Unsupported, Walk

#: Steps in time, both directions together.
MOST_STEPS = 512
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RECURRENT = frozenset(_GATES)
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@dataclass(frozen=True)
class Cell:
    """One direction: gates, and the names of its weights and biases of the recurrence."""

    kind: str
    size: int
    recurrent: np.ndarray
    bias: np.ndarray
    before_reset: bool


def recurrent(walk: Walk, node: Node) -> list[Node] | None:
    """All steps of an LSTM, GRU or RNN; weights are constant, activations the usual ones."""
    _check(walk, node)
    steps = Steps(walk, node)
    weights, recurrence = (walk.constant(name) for name in node.inputs[1:3])
    bias = walk.optional(node, 3)
    directions, size = len(weights), recurrence.shape[-1]
    gates, length = _GATES[node.operator], walk.lazy(node.inputs[0]).shape[0]
    if length * directions > MOST_STEPS:
        raise Unsupported(f"{length * directions} steps in time, must be at most {MOST_STEPS}")
    bias = np.zeros((directions, 2 * gates * size)) if bias is None else bias
    backward = node.text("direction", "forward") == "reverse"
    rows, ends, memories = [], [], []
    for direction in range(directions):
        own, state = bias[direction].reshape(2, -1), bias[direction].reshape(2, -1)[1].copy()
        cell = Cell(node.operator, size, recurrence[direction], state,
                    bool(node.attribute("linear_before_reset", 0)))
        # A bias of the recurrence that no gate scales is one with that of the input.
        joined = own.sum(axis=0)
        if node.operator == "GRU" and cell.before_reset:
            joined[2 * size:] = own[0][2 * size:]
        product = steps("Add", steps("MatMul", node.inputs[0], steps.constant(
            weights[direction].T)), steps.constant(joined))
        states = [_part(steps, node, place, direction) for place in (5, 6)]
        made = [""] * length
        turned = backward or direction == 1
        for time in reversed(range(length)) if turned else range(length):
            entered = steps("Gather", product, steps.constant(time, np.int64), axis=0)
            states = _step(steps, cell, entered, *states)
            made[time] = steps("Unsqueeze", states[0], steps.constant([0, 1], np.int64))
        rows.append(steps("Concat", *made, axis=0))
        ends.append(steps("Unsqueeze", states[0], steps.constant([0], np.int64)))
        if node.operator == "LSTM":
            memories.append(steps("Unsqueeze", states[1], steps.constant([0], np.int64)))
    for name, parts, axis in zip(node.outputs, (rows, ends, memories), (1, 0, 0), strict=False):
        if name:
            whole = parts[0] if len(parts) == 1 else steps("Concat", *parts, axis=axis)
            steps("Identity", whole, out=name)
    return steps.nodes


def _check(walk: Walk, node: Node) -> None:
    usual = _USUAL[node.operator]
    given = [item.decode() if isinstance(item, bytes) else item
             for item in node.attribute("activations", usual)]
    if given[: len(usual)] != usual or given not in (usual, 2 * usual):
        raise Unsupported(f"activations {given} must be {usual}")
    if node.attribute("layout", 0):
        raise Unsupported("layout must be 0")
    if "clip" in node.attributes or node.attribute("input_forget", 0):
        raise Unsupported("clip and input_forget must be left out")
    if len(node.inputs) > 7 and node.inputs[7]:
        raise Unsupported("peepholes must be left out")
    shape = walk.lazy(node.inputs[0]).shape
    lengths = walk.optional(node, 4)
    if lengths is not None and (lengths != shape[0]).any():
        raise Unsupported(f"sequence_lens must be {shape[0]}, all of the input")


def _part(steps: Steps, node: Node, place: int, direction: int) -> str:
    """The initial state of a direction, "" for zeros."""
    if len(node.inputs) <= place or not node.inputs[place]:
        return ""
    given = steps.walk.constants.get(node.inputs[place])
    if given is not None and not given.any():
        return ""
    return steps("Gather", node.inputs[place], steps.constant(direction, np.int64), axis=0)


def _gate(steps: Steps, cell: Cell, whole: str, index: int) -> str:
    places = steps.constant(np.arange(cell.size) + index * cell.size, np.int64)
    return steps("Gather", whole, places, axis=1)


def _step(steps: Steps, cell: Cell, entered: str, state: str, memory: str) -> list[str]:
    """State and memory after one step. The order of the gates is the specification's."""
    if cell.kind == "GRU":
        return [_gru(steps, cell, entered, state), ""]
    total = entered if not state else steps(
        "Add", entered, steps("MatMul", state, steps.constant(cell.recurrent.T)))
    if cell.kind == "RNN":
        return [steps("Tanh", total), ""]
    into, out, keep = (steps("Sigmoid", _gate(steps, cell, total, index)) for index in range(3))
    found = steps("Mul", into, steps("Tanh", _gate(steps, cell, total, 3)))
    if memory:
        found = steps("Add", steps("Mul", keep, memory), found)
    return [steps("Mul", out, steps("Tanh", found)), found]


def _gru(steps: Steps, cell: Cell, entered: str, state: str) -> str:
    """z * h + (1 - z) * tanh(...), the reset gate before or behind the recurrence."""
    size = cell.size
    gates = [_gate(steps, cell, entered, index) for index in range(3)]
    parts = cell.recurrent.reshape(3, size, -1)
    if state:
        for index in (0, 1):
            gates[index] = steps("Add", gates[index], steps(
                "MatMul", state, steps.constant(parts[index].T)))
    update, reset = (steps("Sigmoid", gates[index]) for index in (0, 1))
    late = steps.constant(cell.bias[2 * size:])
    if cell.before_reset:
        inner = late if not state else steps("Add", steps(
            "MatMul", state, steps.constant(parts[2].T)), late)
        gates[2] = steps("Add", gates[2], steps("Mul", reset, inner))
    elif state:
        gates[2] = steps("Add", gates[2], steps(
            "MatMul", steps("Mul", reset, state), steps.constant(parts[2].T)))
    fresh = steps("Mul", steps("Sub", steps.constant(1.0), update), steps("Tanh", gates[2]))
    return fresh if not state else steps("Add", steps("Mul", update, state), fresh)
