"""The headline study: both decoders on PYNQ-Z1, how fast, how far from the limits, and why.

Everything in it is predicted; it measures nothing and calibrates nothing to the paper's figure.
`cosim study headline --page docs/headline.md` writes its page.

Each design runs at its predicted clock, which no vendor's tool has checked. It searches with the
code of `cosim explore` (`studies.search.exploration`). The figure it is held against is 11.7 uJ a
pixel (arXiv 2511.09272, stated for AGC; which power is counted is not).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arch_models.board import Board
from arch_models.fields import Coefficient, FieldError, Status
from arch_models.overlay import Engine, Overlay
from arch_models.power.energy import LEAKAGE, limits_of
from arch_models.power.fabric import FAMILY
from arch_models.resources import check
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.values import MICROJOULES, Evaluation
from studies.plain.errors import UserError
from studies.search.exploration import FINAL_MEMORY, Means, explore
from studies.search.front import pareto_mask
from studies.search.outcomes import Objective, Settings
from studies.search.space import (
    MEGAHERTZ,
    Choice,
    Space,
    default_space,
)
from studies.search.space_overlays import choice_of, overlay_of
from studies.why.ablation import Ablation, ablate
from studies.why.array_use import ArrayUse, array_use
from studies.why.critical import by_unit, shares
from studies.why.what_if import with_arm
from workloads.graph import Graph, Operator

PAPER_UJ_PER_PIXEL = 11.7
WORKLOADS = ("agc-w64", "agc-w32", "agc-w16", "unicorn-n256-int8")
#: Losses between the board's supply and the rails, for the counting of the whole board.
REGULATOR_EFFICIENCY = Coefficient(
    "regulator_efficiency", 0.85, "1", "switching regulators at a few watts; no measurement of "
    "this board at hand", Status.GUESS)

#: Coefficients of the DRAM's supply whose joules pass with time alone.
STANDING = ("power.dram.idd3n_ma", "power.dram.idd5b_ma", "power.ddr_bus_w")
#: Engines that leave the fabric to make room for a larger array, none first.
TO_ARM: tuple[Choice, ...] = (
    {}, {"fabric_grid_sample": False}, {"fabric_grid_sample": False, "fabric_softmax": False},
    {"fabric_grid_sample": False, "fabric_softmax": False, "fabric_elementwise": False})
#: The costs of operators on the ARM are those of other software; the fastest design is shown with
#: costs so many times as high, too.
ARM_DOUBT = 3.0


@dataclass(frozen=True)
class Limits:
    """What no design at this clock can beat, in milliseconds, and how near this one comes.

    `dsp_ms`: the frame's multiply-accumulates on every DSP of the part, two products each.
    `array_ms`: on the design's own array. `ddr_ms`: the design's bytes at the DRAM's peak.
    `program_ms`: the lower bound of the design's Program. Shares are limit over latency.
    `convolution_share`: useful products over the array's in the cycles of convolution layers.
    `static_share`: energy that passes with time alone (PS, fabric static, DRAM standby).
    """

    dsp_ms: float
    array_ms: float
    ddr_ms: float
    program_ms: float
    dsp_share: float
    array_share: float
    ddr_share: float
    convolution_share: float
    static_share: float


@dataclass(frozen=True)
class Candidate:
    """A design under the final memory model. `counted`: uJ a pixel by the way power is counted;
    `between`: their 80 % limits."""

    overlay: Overlay
    evaluation: Evaluation
    counted: Mapping[str, float]
    between: Mapping[str, tuple[float, float]]
    limits: Limits

    @property
    def mj_per_picture(self) -> float:
        """Millijoules of one picture: a frame of AGC, an image of Unicorn with all its steps."""
        return self.evaluation.energy.total_j * 1e3


@dataclass(frozen=True)
class Point:
    """One workload, each design at its predicted clock.

    `front` is sorted by latency; `reached` holds, for each way to count power, the candidate with
    the least energy by it. `ablation` takes the fastest design apart, `hand_made` the base, which
    has every engine. `slow_arm_ms`: the fastest design with an ARM `ARM_DOUBT` times slower than
    taken. `path`: cycles of its critical path on each unit. `uses`: where the products of its
    array go (of a sampler, one step).
    """

    workload: str
    evaluated: int
    infeasible: int
    latency_best: Candidate
    energy_best: Candidate
    front: tuple[Candidate, ...]
    reached: Mapping[str, Candidate]
    slow_arm_ms: float
    path: Mapping[str, int]
    uses: tuple[ArrayUse, ...]
    ablation: Ablation
    hand_made: Ablation

    @property
    def clock(self) -> str:
        """The rate of its fastest design, and what stands behind it."""
        item = self.latency_best.evaluation
        return f"{item.clock_hz / MEGAHERTZ:.4g} {item.clock.basis}"


def countings(item: Evaluation) -> dict[str, float]:
    """Microjoules a pixel by what is counted, the most first."""
    split = item.energy
    fabric = split.pl_dynamic_j
    joules = {"whole board": split.total_j / REGULATOR_EFFICIENCY.value,
              "PS + PL + DDR": split.total_j,
              "PL static + dynamic": split.pl_static_j + fabric,
              "PL dynamic only": fabric}
    return {name: value / item.pixels * MICROJOULES for name, value in joules.items()}


def counting_limits(item: Evaluation, board: Board) -> dict[str, tuple[float, float]]:
    """The 80 % limits of each counting, microjoules a pixel; the regulators' efficiency is taken as
    exact."""
    counted = {"PS + PL + DDR": None, "PL static + dynamic": FAMILY | LEAKAGE,
               "PL dynamic only": FAMILY}
    found = {name: limits_of(item.energy, board, names) for name, names in counted.items()}
    low, high = found["PS + PL + DDR"]
    lossy = {"whole board": (low / REGULATOR_EFFICIENCY.value, high / REGULATOR_EFFICIENCY.value)}
    return {name: (low / item.pixels * MICROJOULES, high / item.pixels * MICROJOULES)
            for name, (low, high) in {**lossy, **found}.items()}


def limits(item: Evaluation, board: Board) -> Limits:
    """The limits of an evaluation that was made with detail."""
    clock = item.clock_hz
    dsp_s = item.macs / (2 * board.part.dsp * clock)
    array_s = item.macs / (item.peak_macs_per_cycle * clock)
    ddr_s = (item.bytes_read + item.bytes_written) / board.ddr.peak_bytes_per_s
    rows = [layer for layer in item.layers if layer.macs]
    cycles = sum(layer.cycles for layer in rows)
    static_j = item.energy.ps_j + item.energy.pl_static_j + sum(
        item.energy.coefficients.get(name, 0.0) for name in STANDING)
    return Limits(
        dsp_s * 1e3, array_s * 1e3, ddr_s * 1e3, item.lower_bound_cycles / clock * 1e3,
        dsp_s / item.latency_s, array_s / item.latency_s, ddr_s / item.latency_s,
        sum(layer.macs for layer in rows) / max(1, cycles * item.peak_macs_per_cycle),
        static_j / item.energy.total_j)


def largest_arrays(space: Space, base: Overlay, board: Board, count: int = 8) -> list[Choice]:
    """The largest arrays that fit, as designs to try first.

    For each array the most engines in fabric that fit with it (see `TO_ARM`), then the largest
    share of the base's buffers: whole, or a half, quarter or eighth of each.
    """
    found = choice_of(base, space)
    if found is None:
        return []
    first = found
    arrays = sorted(((int(tm) * int(tn) * int(columns), tm, tn, columns)
                     for tm in space.axis("tm").values for tn in space.axis("tn").values
                     for columns in space.axis("columns").values), reverse=True)
    choices: list[Choice] = []
    for _, tm, tn, columns in arrays:
        array: Choice = {"tm": tm, "tn": tn, "columns": columns,
                         "dsp_packing": space.axis("dsp_packing").values[-1]}
        fitting = (choice for moved in TO_ARM for divisor in (1, 2, 4, 8)
                   if (choice := _fitting(space, first | array | moved, divisor, base, board)))
        choice = next(fitting, None)
        if choice is not None:
            choices.append(choice)
        if len(choices) == count:
            break
    return choices


def _fitting(space: Space, wanted: Choice, divisor: int, base: Overlay, board: Board
             ) -> Choice | None:
    """The choice with so much smaller buffers, None if the board does not hold it."""
    buffers = {name: max(int(wanted[name]) // divisor, int(space.axis(name).values[0]))
               for name in ("input_words", "weight_words", "output_words", "accumulator_words")}
    try:
        choice = space.canonical(wanted | buffers)
        return choice if check(overlay_of(choice, base, board), board) is None else None
    except (UserError, FieldError):
        return None


def study(graph: Graph, board: Board, base: Overlay, settings: Settings, workers: int = 1,
          told: Callable[[str], None] | None = None) -> Point:
    """Explore as `cosim explore` does, look at its candidates in detail, take the best apart.

    Seeded: the same arguments give the same point. Raises `UserError` if nothing was feasible.
    """
    space = default_space(board, graph)
    found = explore(graph, board, base, settings, space, Means(workers),
                    earlier=largest_arrays(space, base, board))
    if not found.candidates:
        raise UserError("no design was feasible; try more --designs.")
    if told:
        told(f"{found.found.evaluated} designs evaluated, {found.found.infeasible} infeasible")
    candidates = []
    for item in found.candidates:
        again = feasible(evaluate(graph, item.overlay, board, FINAL_MEMORY, frames=1, detail=True))
        candidates.append(Candidate(item.overlay, again, countings(again),
                                    counting_limits(again, board), limits(again, board)))
    points = np.array([[item.evaluation.latency_ms, item.evaluation.energy_uj_per_pixel]
                       for item in candidates])
    front = [item for item, keep in zip(candidates, pareto_mask(points), strict=True) if keep]
    front.sort(key=lambda item: item.evaluation.latency_ms)
    best = front[0]
    return Point(graph.name, found.found.evaluated, found.found.infeasible, best, front[-1],
                 tuple(front),
                 {name: min(candidates, key=lambda item: item.counted[name])
                  for name in best.counted},
                 feasible(evaluate(graph, best.overlay, with_arm(board, ARM_DOUBT), FINAL_MEMORY,
                                   frames=1)).latency_ms,
                 _path(graph, best.overlay, board),
                 array_use(graph, best.overlay, feasible(simulate_design(
                     graph, best.overlay, board, FINAL_MEMORY, trace=True, steps=1))),
                 ablate(graph, board, best.overlay, FINAL_MEMORY),
                 ablate(graph, board, base, FINAL_MEMORY))


def _path(graph: Graph, overlay: Overlay, board: Board) -> dict[str, int]:
    run = feasible(simulate_design(graph, overlay, board, FINAL_MEMORY, trace=True))
    return by_unit(shares(run.lowered.program, run.result))


def base_for(graph: Graph) -> Overlay:
    """The hand-made design to start from: the default, with the engines that the network uses."""
    base = inputs.design("default")
    operators = {layer.operator for layer in graph.layers}
    engines = set(base.engines)
    if Operator.GROUP_NORM in operators:
        engines.add(Engine.NORM)
    if Operator.GRID_SAMPLE not in operators:
        engines.discard(Engine.GRID_SAMPLE)
    return replace(base, engines=frozenset(engines))


def headline(workloads: Sequence[str] = WORKLOADS, settings: Settings | None = None,
             board: str = "pynq-z1", told: Callable[[str], None] | None = None,
             workers: int = 1) -> tuple[Point, ...]:
    """The study of every workload, in that order."""
    on = inputs.board(board)
    points = []
    for name in workloads:
        if told:
            told(name)
        graph = inputs.workload(name)
        points.append(replace(study(graph, on, base_for(graph), settings or default_settings(),
                                    workers, told), workload=name))
    return tuple(points)


def default_settings(designs: int = 400, seed: int = 0) -> Settings:
    """Latency and energy."""
    return Settings(designs=designs, seed=seed, objectives=(Objective.LATENCY, Objective.ENERGY))
