"""Takes the devices of an accelerator away, one at a time and all, to see what each one buys.

It does not search: it starts from a finished design. A device is a way to be faster that the paper
of the AGC accelerator names (arXiv 2511.09272): unrolling, double buffering, engines in fabric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from arch_models.board import Board
from arch_models.overlay import Engine, Fusion, Overlay
from arch_models.resources import check
from studies.evaluate import Infeasible, evaluate
from studies.evaluation import Evaluation
from workloads.graph import Graph

OPERATORS = frozenset({Engine.ELEMENTWISE, Engine.LOOKUP, Engine.POOL, Engine.SOFTMAX})
STREAM_FUSIONS = frozenset({Fusion.POOL, Fusion.ADD})


class Device(StrEnum):
    """What can be taken away, in the order in which the cumulative rows add it."""

    UNROLLING = "unrolling beyond 8 x 8"
    DOUBLE_BUFFERING = "double buffering"
    OPERATORS = "small operators in fabric"
    FUSIONS = "pool and addition fused"
    UPSAMPLE = "upsample in fabric"
    GRID_SAMPLE = "grid sampling in fabric"
    DSP_PACKING = "two products a DSP"


#: Devices of the paper that no row can show, and why.
LEFT_OUT = {
    "int8 instead of 16 bits": "the networks are quantized to int8, and the data hold no energy of "
                               "a 16-bit product: such a row would be of another network",
    "batch normalization folded": "the graphs hold folded weights; no unfolded form exists to run",
}


@dataclass(frozen=True)
class Step:
    """One row: a design without or with a device. `evaluation` None: `reason` says why not.

    `used` False: the best design does not have the device, so nothing was taken away.
    """

    device: str
    overlay: Overlay
    evaluation: Evaluation | None
    reason: str
    used: bool = True


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
    packing the array is halved until the board has the DSPs.
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
    if Device.GRID_SAMPLE in removed:
        found = replace(found, engines=found.engines - {Engine.GRID_SAMPLE})
    if Device.DOUBLE_BUFFERING in removed:
        found = replace(found, input_banks=1, weight_banks=1, output_banks=1)
    if Device.UNROLLING in removed:
        found = resized(found, found.channel_block, found.channel_block, 1)
    if Device.DSP_PACKING in removed and found.dsp_packing:
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
    block = overlay.channel_block
    while True:
        misfit = check(overlay, board)
        if misfit is None or misfit.field != "dsp":
            return overlay
        if overlay.columns > 1:
            overlay = resized(overlay, overlay.tm, overlay.tn, overlay.columns // 2)
        elif overlay.tm > block:
            overlay = resized(overlay, max(block, overlay.tm // 2 // block * block), overlay.tn, 1)
        elif overlay.tn > block:
            overlay = resized(overlay, overlay.tm, max(block, overlay.tn // 2 // block * block), 1)
        else:
            return overlay


def ablate(graph: Graph, board: Board, best: Overlay, memory: str = "ddr3",
           told: Callable[[str], None] | None = None) -> Ablation:
    """Evaluate the best design without each device, and from none of them up to all of them."""
    devices = list(Device)

    def step(name: str, removed: frozenset[Device], used: bool = True) -> Step:
        if told:
            told(name)
        overlay = replace(strip(best, board, removed), name=best.name)
        found = evaluate(graph, overlay, board, memory, frames=1)
        if isinstance(found, Infeasible):
            return Step(name, overlay, None, str(found), used)
        return Step(name, overlay, found, "", used)

    without = tuple(step(device.value, frozenset({device}),
                         strip(best, board, frozenset({device})) != best) for device in devices)
    rows = [step("none of them", frozenset(devices))]
    for index, device in enumerate(devices):
        left = frozenset(devices[index + 1:])
        before = frozenset(devices[index:])
        rows.append(step(device.value, left,
                         strip(best, board, left) != strip(best, board, before)))
    return Ablation(without, tuple(rows))
