"""A design's sheet: everything the page shows of one design, as plain JSON values.

It computes nothing beyond shares and units, and simulates nothing; `page` puts sheets into a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from arch_models.board import Board
from arch_models.engines import MODELS
from arch_models.files import parse_toml
from arch_models.overlay import Engine, Overlay, Role, overlay_toml
from arch_models.resources import buffers
from cosim.analysis.timeline import NONE, Timeline, timeline
from cosim.program.result import Trace
from cosim.program.table import Opcode, Program
from studies.evaluation.evaluate import Run
from studies.evaluation.values import Evaluation, LayerReport
from studies.report import tables
from workloads.graph import Graph

#: Operations of a timeline that a page still carries; a longer one is left to the trace.
MOST_OPERATIONS = 40_000


def sheet(item: Evaluation, board: Board, overlay: Overlay | None = None,
          graph: Graph | None = None, run: Run | None = None,
          sqnr: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The sheet of an evaluation; milliseconds, microjoules a pixel, bytes, 10^9 a second.

    `overlay` adds parameters and the diagram, `graph` the drawing of the network, `run` (traced)
    the timeline; each is None in the sheet where it is not given. `sqnr`: decibels by layer.
    """
    low, high = item.energy_limits_uj_per_pixel
    return {
        "heading": tables.heading(item), "displaced": tables.displaced(item.displaced),
        "figures": _figures(item), "latency_ms": item.latency_ms,
        "energy_uj_per_pixel": item.energy_uj_per_pixel, "energy_limits": [low, high],
        "energy_parts": {name: value / item.pixels * 1e6
                         for name, value in item.energy.parts.items()},
        "sites": tables.sites_basis(item),
        "resources": [{"name": part.name, "used": part.used, "available": part.available}
                      for part in item.resources],
        "roof": {"gmacs": item.peak_macs_per_cycle * item.clock_hz / 1e9,
                 "gbytes": board.ddr.peak_bytes_per_s / 1e9},
        "clock_hz": item.clock_hz,
        "units": [{"name": unit.name, "states": _states(unit.busy_cycles, unit.stalls,
                                                        unit.idle_cycles)}
                  for unit in item.units],
        "layers": [_layer(layer, item) for layer in item.layers],
        "row_hits": item.row_hits, "row_misses": item.row_misses,
        "parameters": parameters(overlay) if overlay else None,
        "design_file": overlay_toml(overlay) if overlay else None,
        "diagram": diagram(overlay, board) if overlay else None,
        "network": network(graph, sqnr) if graph else None,
        "timeline": operations(run.lowered.program, run.result.trace)
        if run and run.result.trace else None,
    }


def _figures(item: Evaluation) -> list[list[str]]:
    table = tables.summary([item], [item.overlay])
    names, values = (list(column.cells) for column in table.columns)
    return [[str(name).strip(), str(value)] for name, value in zip(names, values, strict=True)]


def _states(busy: int, stalls: Mapping[str, int], idle: int) -> dict[str, int]:
    return {"busy": busy, **dict(sorted(stalls.items())), "idle": idle}


def _layer(layer: LayerReport, item: Evaluation) -> dict[str, Any]:
    return {
        "name": layer.name, "operator": layer.operator, "engine": layer.engine,
        "absorbed": list(layer.absorbed), "start_ms": layer.start_cycles / item.clock_hz * 1e3,
        "ms": layer.cycles / item.clock_hz * 1e3, "macs": layer.macs,
        "read": layer.bytes_read, "written": layer.bytes_written, "intensity": layer.intensity,
        "gmacs": layer.macs * item.clock_hz / max(1, layer.cycles) / 1e9,
        "utilization": layer.utilization, "mj": layer.energy_j * 1e3, "bound": layer.bound,
        "states": {name: cycles / item.clock_hz * 1e3
                   for name, cycles in split(layer).items()},
    }


def split(layer: LayerReport) -> dict[str, int]:
    """The layer's cycles as its engine spends them: busy, stalls by cause, idle.

    What the engine did before the layer before it had ended is not this layer's time, so parts
    are cut where they would pass the layer's cycles; they sum to them.
    """
    unit = next((item for item in layer.units if item.name == layer.engine), None)
    parts = ({"busy": unit.busy_cycles, **dict(sorted(unit.stalls.items()))} if unit
             else {"busy": layer.cycles})
    left = layer.cycles
    found = {}
    for name, cycles in parts.items():
        found[name] = min(cycles, left)
        left -= found[name]
    return {**found, "idle": left}


def parameters(overlay: Overlay) -> list[list[str]]:
    """Every field of a design with its value, in the order and words of a design file."""
    rows: list[list[str]] = []

    def add(prefix: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}.", value)
            elif isinstance(value, list) and value and isinstance(value[0], Mapping):
                for index, part in enumerate(value):
                    add(f"{prefix}{name}.{part.get('name', index)}.", part)
            else:
                rows.append([prefix + name, ", ".join(map(str, value))
                             if isinstance(value, list) else str(value)])

    add("", parse_toml(overlay_toml(overlay), "the design"))
    return rows


def diagram(overlay: Overlay, board: Board) -> dict[str, Any]:
    """Ports, masters, buffers and engines with their sizes, and the wires between, for drawing.

    `bytes`: of a buffer's word; `copies`: memories with the same contents, one a column of unroll.
    """
    banks = {"input": overlay.input_banks, "output": overlay.output_banks,
             "weight": overlay.weight_banks}
    words = {"input": (overlay.input_words, overlay.tn * overlay.data_bits // 8),
             "output": (overlay.output_words, overlay.tm * overlay.data_bits // 8),
             "weight": (overlay.weight_words, overlay.tm * overlay.tn * overlay.weight_bits // 8)}
    return {
        "ports": [{"name": port, "controller": board.port(port).ddr_port}
                  for port in dict.fromkeys(master.port for master in overlay.masters)],
        "masters": [{"name": master.name, "role": master.role.value, "port": master.port,
                     "bits": master.width_bits, "outstanding": master.outstanding,
                     "beats": master.max_burst_beats} for master in overlay.masters],
        "buffers": [{"name": name, "bram36": sites.bram36, "banks": banks.get(name),
                     "words": words[name][0] if name in words else None,
                     "bytes": words[name][1] if name in words else None,
                     "copies": overlay.columns if name == "input" else 1}
                    for name, sites in buffers(overlay)],
        "engines": [{"name": engine.value,
                     "note": f"{overlay.tm} x {overlay.tn} x {overlay.columns} MAC"
                     if engine is Engine.CONVOLUTION else ""}
                    for engine in sorted(overlay.engines)],
        "wires": wires(overlay),
        "fusions": sorted(fusion.value for fusion in overlay.fusions),
    }


def wires(overlay: Overlay) -> list[tuple[str, str]]:
    """Who hands data to whom, as pairs of kind and name, from the memory's side to the engines'.

    Buffers that several engines share are named here; an engine's own are those of its model.
    """
    there = {name for name, _ in buffers(overlay)}
    own = {model.engine: [item.name for item in model.memories(overlay)]
           for model in MODELS if model.engine in overlay.engines}
    own[Engine.CONVOLUTION] = ["weight", "accumulator", "skip", *own.get(Engine.CONVOLUTION, ())]
    tables = {engine: ["table"] for engine in (Engine.LOOKUP, Engine.SOFTMAX)}
    filled = {Role.INPUT: ["input", "skip"], Role.OUTPUT: ["output"], Role.FETCH: [],
              Role.WEIGHT: [name for names in own.values() for name in names
                            if name not in ("accumulator", "skip")] + ["table"]}
    found = []
    for master in overlay.masters:
        found.append((f"port {master.port}", f"master {master.name}"))
        found += [(f"master {master.name}", f"buffer {name}")
                  for name in filled[master.role] if name in there]
    for engine in sorted(overlay.engines):
        names = ["input", "output", *own.get(engine, ()), *tables.get(engine, ())]
        found += [(f"buffer {name}", f"engine {engine.value}") for name in names if name in there]
    return found


def network(graph: Graph, sqnr: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Layers in execution order and who reads what: `edges` are pairs of places in `nodes`.

    `sqnr`: decibels by layer, int8 against float; None where there is no float network.
    """
    makers = {layer.output: place for place, layer in enumerate(graph.layers)}
    nodes = []
    for layer in graph.layers:
        out = graph.tensors[layer.output]
        nodes.append({"name": layer.name, "operator": layer.operator.value,
                      "phase": layer.phase.value, "sqnr_db": (sqnr or {}).get(layer.name),
                      "shape": f"{out.channels} x {out.rows} x {out.columns}"})
    edges = [[makers[name], place] for place, layer in enumerate(graph.layers)
             for name in layer.inputs if makers.get(name, place) < place]
    return {"nodes": nodes, "edges": edges}


def operations(program: Program, trace: Trace) -> dict[str, Any] | None:
    """Every operation of a traced run in cycles: unit by unit, in time order on each unit.

    Parallel lists: `start`, `length`, `layer`, `kind`, `waited` (cycles that the unit stalled
    before it) and `cause` (place in `causes`, -1 where it did not stall), `hits`, `misses`.
    None for a run of more than `MOST_OPERATIONS`.
    """
    line = timeline(program, trace)
    if len(line) > MOST_OPERATIONS:
        return None
    causes = list(dict.fromkeys(channel.cause for channel in program.channels))
    units = []
    for index, unit in enumerate(program.units):
        own = np.flatnonzero(line.unit == index)
        units.append({"name": unit.name, **_columns(program, line, trace, own, causes)})
    return {"units": units, "layers": list(program.layers), "causes": causes,
            "kinds": [kind.name.lower().replace("_", " ") for kind in Opcode],
            "end": int(line.end.max(initial=0))}


def _columns(program: Program, line: Timeline, trace: Trace, own: np.ndarray,
             causes: list[str]) -> dict[str, list[int]]:
    places = [int(kind) for kind in Opcode]
    stalled = ((line.channel[own] != NONE) & (line.first[own] == 0)
               & (line.start[own] > line.ready[own]))
    cause = [causes.index(program.channels[channel].cause) if stalls else NONE
             for channel, stalls in zip(line.channel[own], stalled, strict=True)]
    zeros = np.zeros(len(own), np.int64)
    return {
        "start": line.start[own].tolist(), "length": (line.end[own] - line.start[own]).tolist(),
        "layer": line.layer[own].tolist(),
        "kind": [places.index(int(kind)) for kind in line.opcode[own]],
        "waited": np.where(stalled, line.start[own] - line.ready[own], 0).tolist(),
        "cause": cause,
        "hits": (zeros if trace.row_hits is None else trace.row_hits[own]).tolist(),
        "misses": (zeros if trace.row_misses is None else trace.row_misses[own]).tolist(),
    }
