"""Takes the devices of an accelerator away, one at a time and all, to see what each one buys.

It does not search: it starts from a finished design. A device is a way to be faster that the paper
of the AGC accelerator names (arXiv 2511.09272): unrolling, double buffering, engines in fabric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from arch_models.board import Board
from arch_models.overlay import Engine, Fusion, Overlay
from arch_models.resources import check
from studies.evaluation.evaluate import Infeasible, evaluate
from studies.evaluation.values import Evaluation
from workloads.graph import Graph, Layer, Operator

OPERATORS = frozenset({Engine.ELEMENTWISE, Engine.LOOKUP, Engine.POOL, Engine.SOFTMAX})
STREAM_FUSIONS = frozenset({Fusion.POOL, Fusion.ADD})
BUFFERS = ("input_words", "weight_words", "output_words")
MOST_UNROLL = 64


class Device(StrEnum):
    """What can be taken away, in the order in which the cumulative rows add it."""

    INT8 = "int8 instead of 16 bits"
    FOLDING = "batch normalization folded"
    UNROLLING = "unrolling beyond 8 x 8"
    DOUBLE_BUFFERING = "double buffering"
    OPERATORS = "small operators in fabric"
    NORM = "group norm in fabric"
    FUSIONS = "pool and addition fused"
    UPSAMPLE = "upsample in fabric"
    GRID_SAMPLE = "grid sampling in fabric"
    DSP_PACKING = "two products a DSP"


#: A device stands in a table only if the network has what it works on.
NEEDS = {Device.NORM: Operator.GROUP_NORM, Device.UPSAMPLE: Operator.UPSAMPLE,
         Device.GRID_SAMPLE: Operator.GRID_SAMPLE}

#: What no row can show, and why.
LEFT_OUT = {
    "the energy of 16 bits": "the data hold no energy of a 16-bit product, so such rows show time "
                             "only; they move the same network's values in twice the bytes",
    "loop order": "the tile search chooses it for every layer, and no field of a design fixes it",
}


def devices(graph: Graph) -> tuple[Device, ...]:
    """The devices that mean something for a network."""
    operators = {layer.operator for layer in graph.layers}
    return tuple(device for device in Device
                 if NEEDS.get(device) in (None, *operators)
                 and (device is not Device.FOLDING or unfolded(graph) is not graph))


def unfolded(graph: Graph) -> Graph:
    """The network as if no batch normalization were folded: the time is that of another graph.

    Behind every convolution with a ReLU stands a per-channel affine step that takes the ReLU over
    (in both decoders' convolutions, where a ReLU stands, a normalization stood before it). The
    step multiplies by one, so the values stay. The graph itself if nothing was folded, or if it
    normalizes by groups.
    """
    folded = [layer for layer in graph.layers
              if layer.operator is Operator.CONVOLUTION and layer.relu]
    if not folded or any(layer.operator is Operator.GROUP_NORM for layer in graph.layers):
        return graph
    tensors, constants = dict(graph.tensors), dict(graph.constants)
    layers: list[Layer] = []
    for layer in graph.layers:
        if layer not in folded:
            layers.append(layer)
            continue
        spec = graph.tensors[layer.output]
        raw, name = f"{layer.output}.unfolded", f"{layer.name}.normalization"
        tensors[raw] = replace(spec, name=raw)
        roles = {role: f"{name}.{role}" for role in ("multiplier", "offset", "shift")}
        for role, array in roles.items():
            constants[array] = np.full(spec.channels, int(role == "multiplier"), np.int32)
        layers += [replace(layer, output=raw, relu=False),
                   Layer(name, Operator.AFFINE, (raw,), layer.output, relu=True,
                         phase=layer.phase, constants=roles)]
    return replace(graph, tensors=tensors, layers=tuple(layers), constants=constants)


@dataclass(frozen=True)
class Step:
    """One row: a design without or with a device. `evaluation` None: `reason` says why not.

    `used` False: the best design does not have the device, so nothing was taken away. `bits`: of
    a value; the energy of other than 8 is not known.
    """

    device: str
    overlay: Overlay
    evaluation: Evaluation | None
    reason: str
    used: bool = True
    bits: int = 8


@dataclass(frozen=True)
class Ablation:
    """`without`: the best design less one device each. `cumulative`: none of them, then one more
    a row, in the order of `Device`; the last row is the best design itself."""

    without: tuple[Step, ...]
    cumulative: tuple[Step, ...]


def strip(best: Overlay, board: Board, removed: frozenset[Device]) -> Overlay:
    """The design without some devices; without none, it is the design itself.

    Buffers keep their bytes when the array shrinks. What is no longer fused goes to an engine of
    its own (a pool engine is added, it takes no DSP), and to the ARM where there is none. Without
    packing, or with 16 bits, the array is the largest that the board has the DSPs for.
    """
    found = best
    if Device.FUSIONS in removed and found.fusions & STREAM_FUSIONS:
        found = replace(found, fusions=found.fusions - STREAM_FUSIONS,
                        engines=found.engines | {Engine.POOL})
    if Device.OPERATORS in removed:
        found = replace(found, engines=found.engines - OPERATORS)
    if Device.UPSAMPLE in removed:
        found = replace(found, engines=found.engines - {Engine.UPSAMPLE},
                        fusions=found.fusions - {Fusion.UPSAMPLE})
    if Device.NORM in removed:
        found = replace(found, engines=found.engines - {Engine.NORM})
    if Device.GRID_SAMPLE in removed:
        found = replace(found, engines=found.engines - {Engine.GRID_SAMPLE})
    if Device.DOUBLE_BUFFERING in removed:
        found = replace(found, input_banks=1, weight_banks=1, output_banks=1)
    if Device.UNROLLING in removed:
        found = resized(found, found.channel_block, found.channel_block, 1)
    if Device.INT8 in removed:
        halves = {name: max(1, getattr(found, name) // 2) for name in BUFFERS}
        found = replace(found, data_bits=16, weight_bits=16, dsp_packing=False, **halves)
    if best.dsp_packing and removed & {Device.DSP_PACKING, Device.INT8}:
        found = _unpacked(replace(found, dsp_packing=False), board)
    return found


def resized(overlay: Overlay, tm: int, tn: int, columns: int) -> Overlay:
    """Another array with as many bytes in every buffer (INPUT has a copy a column)."""
    return replace(
        overlay, tm=tm, tn=tn, columns=columns,
        input_words=max(1, overlay.input_words * overlay.tn * overlay.columns // (tn * columns)),
        weight_words=max(1, overlay.weight_words * overlay.tm * overlay.tn // (tm * tn)),
        output_words=max(1, overlay.output_words * overlay.tm // tm),
        accumulator_words=max(1, overlay.accumulator_words * overlay.tm // tm))


def _unpacked(overlay: Overlay, board: Board) -> Overlay:
    """The design with the largest array that the board has the DSPs for, at most as large; among
    equals, `tm` and then `columns` stay as they are if they can."""
    block = overlay.channel_block
    arrays = [(tm, tn, columns) for tm in range(block, MOST_UNROLL + 1, block)
              for tn in range(block, MOST_UNROLL + 1, block) for columns in (1, 2, 3, 4)
              if tm * tn * columns <= overlay.macs_per_cycle]
    arrays.sort(key=lambda array: (-array[0] * array[1] * array[2], array[0] != overlay.tm,
                                   array[2] != overlay.columns, array))
    for tm, tn, columns in arrays:
        found = resized(overlay, tm, tn, columns)
        misfit = check(found, board)
        if misfit is None or misfit.field != "dsp":
            return found
    return overlay


def ablate(graph: Graph, board: Board, best: Overlay, memory: str = "ddr3",
           told: Callable[[str], None] | None = None) -> Ablation:
    """Evaluate the best design without each device, and from none of them up to all of them."""
    known = devices(graph)
    plain = unfolded(graph) if Device.FOLDING in known else graph

    def step(name: str, removed: frozenset[Device], used: bool = True) -> Step:
        if told:
            told(name)
        overlay = replace(strip(best, board, removed), name=best.name)
        on = plain if Device.FOLDING in removed else graph
        found = evaluate(on, overlay, board, memory, frames=1)
        if isinstance(found, Infeasible):
            return Step(name, overlay, None, str(found), used, overlay.data_bits)
        return Step(name, overlay, found, "", used, overlay.data_bits)

    def differs(one: frozenset[Device], other: frozenset[Device]) -> bool:
        return (strip(best, board, one) != strip(best, board, other)
                or (Device.FOLDING in one) != (Device.FOLDING in other))

    none: frozenset[Device] = frozenset()
    without = tuple(step(device.value, frozenset({device}), differs(frozenset({device}), none))
                    for device in known)
    rows = [step("none of them", frozenset(known))]
    for index, device in enumerate(known):
        left, before = frozenset(known[index + 1:]), frozenset(known[index:])
        rows.append(step(device.value, left, differs(left, before)))
    return Ablation(without, tuple(rows))
