"""The units and token channels of an overlay, the same for every program of it.

It writes no operations; `lower` decides which operation waits on what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from arch_models.board import Board
from arch_models.engines import MODELS
from arch_models.overlay import PARAMETER_SETS, Engine, Fetch, Master, Overlay, Role
from cosim.engines.rows import Wires
from cosim.program.table import Channel, Unit, UnitKind


@dataclass(frozen=True)
class Wiring:
    """Units in order: input masters, weight, output masters, engines, host, fetch.

    Masks of one channel each: `layer_done[j][i]` output j to input i, `to_host[j]`,
    `release[j]` output j to host, `stored[j]` output j to weight, `host_in[i]`,
    `host_weight`, `fetched[unit]`, `credit`.
    """

    units: tuple[Unit, ...]
    channels: tuple[Channel, ...]
    inputs: tuple[int, ...]
    weight: int
    outputs: tuple[int, ...]
    host: int
    fetch: int
    engines: dict[Engine, Wires]
    layer_done: tuple[tuple[int, ...], ...]
    to_host: tuple[int, ...]
    release: tuple[int, ...]
    stored: tuple[int, ...]
    host_in: tuple[int, ...]
    host_weight: int
    fetched: dict[int, int]
    credit: int

    def with_initial(self, masks: int) -> tuple[Channel, ...]:
        """The channels, with one token at the start in each of a mask."""
        return tuple(replace(channel, initial=1) if masks >> bit & 1 else channel
                     for bit, channel in enumerate(self.channels))


class _Channels:
    """Hands out channel bits."""

    def __init__(self) -> None:
        self.found: list[Channel] = []

    def add(self, name: str, source: int, target: int, cause: str, initial: int = 0) -> int:
        self.found.append(Channel(name, source, target, initial, cause))
        return 1 << (len(self.found) - 1)


def _unit(master: Master, ports: list[str]) -> Unit:
    kind = UnitKind.WRITE if master.role is Role.OUTPUT else UnitKind.READ
    return Unit(master.name, kind, ports.index(master.port), master.outstanding,
                master.max_burst_beats, master.setup_cycles, master.tail_cycles,
                master.overlap_runs, master.run_setup_cycles)


def units_of(overlay: Overlay, board: Board) -> tuple[Unit, ...]:
    """The units alone, in the order of `Wiring`."""
    ports = [port.name for port in board.ports]
    masters = [*overlay.masters_of(Role.INPUT), *overlay.masters_of(Role.WEIGHT),
               *overlay.masters_of(Role.OUTPUT)]
    engines = [Unit(item.engine.value, UnitKind.COMPUTE) for item in MODELS
               if item.engine in overlay.engines]
    fetch = overlay.masters_of(Role.FETCH)[:1] if overlay.fetch is Fetch.DRAM else ()
    return (*(_unit(master, ports) for master in masters), *engines,
            Unit("host", UnitKind.COMPUTE), *(_unit(master, ports) for master in fetch))


def wire(overlay: Overlay, board: Board) -> Wiring:
    """Units and channels of an overlay on a board; `Unit.port` indexes `board.ports`."""
    units = units_of(overlay, board)
    count = len(overlay.masters_of(Role.INPUT))
    inputs, weight = tuple(range(count)), count
    outputs = tuple(range(count + 1, count + 1 + len(overlay.masters_of(Role.OUTPUT))))
    made = _Channels()
    engines: dict[Engine, Wires] = {}
    host = count + 1 + len(outputs)
    for item in MODELS:
        if item.engine in overlay.engines:
            engines[item.engine] = _engine(made, item.engine, host, inputs, weight, outputs,
                                           overlay)
            host += 1
    layer_done = tuple(tuple(
        made.add(f"layer done {j}-{i}", output, target, "barrier")
        for i, target in enumerate(inputs)) for j, output in enumerate(outputs))
    to_host = tuple(made.add(f"to host {j}", output, host, "barrier")
                    for j, output in enumerate(outputs))
    release = tuple(made.add(f"release {j}", output, host, "barrier")
                    for j, output in enumerate(outputs))
    stored = tuple(made.add(f"stored {j}", output, weight, "barrier")
                       for j, output in enumerate(outputs))
    host_in = tuple(made.add(f"host to input {i}", host, target, "host")
                    for i, target in enumerate(inputs))
    host_weight = made.add("host to weight", host, weight, "host")
    fetch, fetched, credit = -1, {}, 0
    if overlay.fetch is Fetch.DRAM:
        fetch = host + 1
        fetched = {unit: made.add(f"descriptors {units[unit].name}", fetch, unit, "fetch")
                   for unit in range(fetch)}
        credit = made.add("descriptors used", outputs[0], fetch, "buffer")
    return Wiring(units, tuple(made.found), inputs, weight, outputs, host, fetch, engines,
                  layer_done, to_host, release, stored, host_in, host_weight, fetched, credit)


def _engine(made: _Channels, engine: Engine, unit: int, inputs: tuple[int, ...], weight: int,
            outputs: tuple[int, ...], overlay: Overlay) -> Wires:
    name = engine.value
    incoming = np.array([[
        master, made.add(f"{name} filled {index}", master, unit, "input"),
        made.add(f"{name} free {index}", unit, master, "buffer", overlay.input_banks),
    ] for index, master in enumerate(inputs)], np.int64)
    outgoing = np.array([[
        master, made.add(f"{name} result {index}", unit, master, "data"),
        made.add(f"{name} room {index}", master, unit, "output", overlay.output_banks), 0,
    ] for index, master in enumerate(outputs)], np.int64)
    if engine is Engine.CONVOLUTION:
        for index, master in enumerate(outputs):
            outgoing[index, 3] = made.add(f"skip room {index}", master, inputs[0], "output",
                                          overlay.output_banks)
        return Wires(
            unit, incoming, outgoing, weight, made.add("weights filled", weight, unit, "weights"),
            made.add("weights free", unit, weight, "buffer", overlay.weight_banks),
            made.add("skip filled", inputs[0], unit, "input"))
    filled = free = 0
    if engine in PARAMETER_SETS:
        filled = made.add(f"{name} parameters", weight, unit, "weights")
        free = made.add(f"{name} parameters free", unit, weight, "buffer", PARAMETER_SETS[engine])
    return Wires(unit, incoming, outgoing, weight, filled, free, 0)
