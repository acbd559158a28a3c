"""Finds what is legal in a design and surely not meant: parts of it that do nothing for a network.

It judges no figures and searches nothing; a buffer is asked about by halving it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from arch_models.board import Board
from arch_models.clock import clocked, predict
from arch_models.overlay import Engine, Fusion, Infeasible, Overlay, Rate
from arch_models.resources import check, check_clock, needed
from cosim.lowering.lower import Lowered
from studies.evaluation.evaluate import displaced, simulate_design
from studies.why.results import waiting
from workloads.graph import Graph

#: Sizes of buffers, with the engines one of which must be there to read them (none: any).
BUFFERS: dict[str, tuple[Engine, ...]] = {
    "input_words": (), "output_words": (), "weight_words": (Engine.CONVOLUTION,),
    "accumulator_words": (Engine.CONVOLUTION,), "parameter_entries": (Engine.CONVOLUTION,),
    "vector_entries": (Engine.ELEMENTWISE, Engine.NORM),
    "table_bytes": (Engine.LOOKUP, Engine.SOFTMAX)}


@dataclass(frozen=True)
class Finding:
    """One thing that was surely not meant: the field of the design file, and what is wrong.

    `change`: what would mend it, as `cosim what-if --set` takes it; empty where nothing small does.
    """

    field: str
    said: str
    change: str = ""


@dataclass(frozen=True)
class Findings:
    """What `lint` found, with what it was asked about.

    `unchecked`: what of the board was held against no measurement (`Board.unchecked`).
    """

    workload: str
    design: str
    board: str
    unchecked: tuple[str, ...]
    findings: tuple[Finding, ...]


def lint(graph: Graph, overlay: Overlay, board: Board) -> tuple[Finding, ...] | Infeasible:
    """Everything found in a design for a network on a board; empty if nothing was.

    A design that does not fit, or cannot run the network, comes back as `Infeasible`.
    """
    if overlay.rate is Rate.FIXED and (wrong := check_clock(overlay.clock_hz, board)):
        return (Finding("clock_hz", f"the board cannot make {overlay.clock_hz / 1e6:g} MHz; "
                                    f"nearest {wrong.bound / 1e6:g} MHz",
                        f"clock_hz={wrong.bound:.0f}"),)
    misfit = check(clocked(overlay, board), board)
    if misfit is not None:
        return misfit
    run = simulate_design(graph, overlay, board)
    if isinstance(run, Infeasible):
        return run
    return (*_clock(overlay, board), *_idle(graph, overlay, run.lowered), *_ports(overlay, board),
            *(Finding("engines", f"{item.layer} runs on the host although {item.engine} is in "
                                 f"fabric: {item.why}")
              for item in displaced(graph, overlay, run.lowered.mapping)),
            *(Finding("requantize_cycles", said.removeprefix("requantize_cycles: "))
              for said in [str(waiting(graph, overlay, run.lowered.mapping))] if said),
            *_buffers(graph, overlay, board, int(run.result.total_cycles)))


def _clock(overlay: Overlay, board: Board) -> Iterator[Finding]:
    reach = predict(overlay, board).mhz
    if overlay.rate is Rate.FIXED and not overlay.build and overlay.clock_hz > reach * 1e6:
        yield Finding("clock_hz", f"{overlay.clock_hz / 1e6:g} MHz is assumed; the fabric is "
                                  f"predicted to reach {reach:.0f} MHz",
                      f"clock_hz={board.clocks.fastest_hz(reach * 1e6)}")


def _idle(graph: Graph, overlay: Overlay, lowered: Lowered) -> Iterator[Finding]:
    layers = lowered.mapping.layers
    used = {item.engine for item in layers}
    for engine in sorted(overlay.engines - used):
        saved = _freed(overlay, replace(overlay, engines=overlay.engines - {engine}))
        yield Finding("engines", f"{engine.value} runs no layer of {graph.name}; without it "
                                 f"{saved} are free", f"engine.{engine.value}=false")
    absorbed = {Fusion.POOL: any(item.pool for item in layers),
                Fusion.UPSAMPLE: any(item.upsample for item in layers),
                Fusion.ADD: any(item.add for item in layers)}
    for fusion in sorted(overlay.fusions):
        if not absorbed.get(fusion, True):
            yield Finding("fusions", f"no convolution of {graph.name} absorbs the {fusion.value}",
                          f"fusion.{fusion.value}=false")


def _freed(overlay: Overlay, less: Overlay) -> str:
    """Sites that a smaller design does not need, those of which there are any."""
    whole, rest = needed(overlay), needed(less)
    kinds = (("BRAM36", whole.bram36 - rest.bram36), ("DSP", whole.dsp - rest.dsp),
             ("LUT", whole.lut - rest.lut))
    return ", ".join(f"{count:.4g} {kind}" for kind, count in kinds if count >= 0.5)


def _ports(overlay: Overlay, board: Board) -> Iterator[Finding]:
    free = [port.name for port in board.ports
            if port.name not in {master.port for master in overlay.masters}]
    for port in dict.fromkeys(master.port for master in overlay.masters):
        names = [master.name for master in overlay.masters if master.port == port]
        if len(names) > 1 and free:
            yield Finding("masters", f"{' and '.join(names)} share {port} while nobody uses "
                                     f"{', '.join(free)}", f"masters.{names[-1]}.port={free[0]}")


def _buffers(graph: Graph, overlay: Overlay, board: Board, cycles: int) -> Iterator[Finding]:
    """Sizes that can be halved at the same clock without a cycle lost."""
    same = replace(overlay, clock_hz=clocked(overlay, board).clock_hz, rate=Rate.FIXED)
    for name, readers in BUFFERS.items():
        size = getattr(overlay, name)
        if size < 2 or (readers and not overlay.engines & set(readers)):
            continue
        less = replace(same, **{name: size // 2})
        run = simulate_design(graph, less, board)
        if isinstance(run, Infeasible) or int(run.result.total_cycles) > cycles:
            continue
        if saved := _freed(overlay, less):
            yield Finding(name, f"{size} are never needed: with {size // 2} the frame takes no "
                                f"cycle more, and {saved} are free", f"{name}={size // 2}")
