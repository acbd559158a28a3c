"""Lowers a mapped graph to the Program that the executors run and the hardware executes.

It chooses no tile and no address; the rows of a layer are written by its engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from arch_models.board import Board
from arch_models.engines.host import cache_ns, start_ns
from arch_models.literature import Calls, Phases, Reads, WeightCopies, WeightPath
from arch_models.overlay import Overlay, Start
from cosim.engines import SLICES
from cosim.engines.base import Job, Mapped
from cosim.engines.rows import Table
from cosim.lowering.bands import Ring, interleaved
from cosim.lowering.calls import Host, called, through_dram
from cosim.lowering.copies import through_input, weight_runs
from cosim.lowering.fetches import with_fetches
from cosim.lowering.host_times import host_cycles, host_ns
from cosim.lowering.jobs import fill_costs, jobs
from cosim.lowering.on_chip import time_on_chip
from cosim.lowering.phases import joined, serial
from cosim.lowering.placement import Placement, place
from cosim.lowering.wiring import Wiring, units_of, wire
from cosim.mapping.tiles import LayerMapping, Mapping, Turn
from cosim.program.table import (
    ARGUMENT_COUNT,
    FLAG_FIRST,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
)
from workloads.graph import Graph, Phase, multiply_accumulates

START = "start"  # the pseudo-layer of a host operation that only starts the fabric


@dataclass(frozen=True)
class Lowered:
    """A program, where its data lie, and the mapping it came from.

    `program.layers[i]` is `mapping.layers[i].name`; the last layer is the pseudo-layer `start`.
    A HOST operation's argument is such an index. `host_ns`: the time of every HOST row, in table
    order; its FILL is `host_cycles` of it.
    """

    program: Program
    placement: Placement
    mapping: Mapping
    host_ns: tuple[float, ...] = ()


def lower(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping, frames: int = 1,
          steps: int = 1, placement: Placement | None = None) -> Lowered:
    """The program of the mapped phases: a segment a phase, frames and steps as repeats.

    `placement`: what `place` gives, if it is known already.
    """
    placement = placement or place(graph, overlay, board, mapping)
    return _Lowering(graph, overlay, board, mapping, placement).run(frames, steps)


def retimed(lowered: Lowered, overlay: Overlay, board: Board) -> Lowered:
    """What `lower` gives for an overlay that differs in clock, ports or outstanding limits only.

    They change no row but the host's, whose cycles follow the clock. The mapping must be that of
    the overlay: it depends on the clock where the DDR's peak rate binds.
    """
    program = lowered.program
    table = program.operations.copy()
    hosts = table[:, Column.KIND] == Opcode.HOST
    table[hosts, Column.FILL] = [host_cycles(item, overlay.clock_hz) for item in lowered.host_ns]
    return replace(lowered, program=replace(program, units=units_of(overlay, board),
                                            operations=table))


def _tables(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Operation and argument tables; a row is meaningful once it is written whole."""
    return (np.empty((count, len(Column)), np.int64), np.empty((count, ARGUMENT_COUNT), np.int32))


@dataclass
class _Rows:
    """First and last row of every unit in one lowered layer; -1 if it has none."""

    item: LayerMapping | None
    first: np.ndarray
    last: np.ndarray

    def units(self, wanted: tuple[int, ...]) -> list[int]:
        return [index for index, unit in enumerate(wanted) if self.first[unit] >= 0]


class _Lowering:
    """One lowering: the tables being filled and where the next row goes."""

    def __init__(self, graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
                 placement: Placement) -> None:
        self.graph, self.overlay, self.board = graph, overlay, board
        self.mapping, self.placement = mapping, placement
        self.layouts = mapping.layouts
        self.wiring: Wiring = wire(overlay, board)
        self.layers = {layer.name: layer for layer in graph.layers}
        self.row = 0
        self.initial = 0
        self.host_ns: list[float] = []
        self.ops, self.args = _tables(0)
        units = len(self.wiring.units)
        self.blocks = np.zeros(units, np.int64)
        # First and last rows by unit: at most a host start and the layer itself for each layer.
        self.marks = np.full((2 * len(mapping.layers) + 4, 2, units), -1, np.int64)
        self.marked = 0

    def run(self, frames: int, steps: int) -> Lowered:
        found = jobs(self.graph, self.overlay, self.mapping, self.placement, self.wiring)
        most = (2 * len(found) + len(self.mapping.phases) + 2
                + sum(item[1].most_rows for item in found if item is not None))
        self.ops, self.args = _tables(most)
        segments = []
        for phase, indices in self._phases():
            begin = self.row
            self._segment(found, indices)
            repeat = {Phase.FRAME: frames, Phase.STEP: steps}.get(phase, 1)
            segments.append(Segment(begin, self.row, repeat))
        self.ops, self.args = self.ops[: self.row], self.args[: self.row]
        if self.mapping.kept:
            time_on_chip(self.ops, self.wiring, self.overlay)
        channels = self.wiring.with_initial(self.initial)
        segments, channels = self._loops(segments, channels)
        if self.wiring.fetch >= 0:
            self.ops, self.args, segments = with_fetches(
                self.ops, self.args, segments, self.wiring, self.placement.size_bytes)
        names = (*(item.name for item in self.mapping.layers), START)
        program = Program(self.graph.name, self.wiring.units,
                          channels, names, self.ops, self.args,
                          tuple(segments))
        return Lowered(program, self.placement, self.mapping, tuple(self.host_ns))

    def _loops(self, segments: list[Segment], channels: tuple[Channel, ...]
               ) -> tuple[list[Segment], tuple[Channel, ...]]:
        """What the loops of described hardware do besides: segments and channels anew."""
        overlay, loops, wiring = self.overlay, self.overlay.loops, self.wiring
        if loops.weight_copies is not WeightCopies.BLOCK:
            weight_runs(self.ops, self.args, self.graph, overlay, self.mapping)
        if loops.partial_bits:
            sums = [(self.placement.addresses[item.output],
                     self.graph.tensors[self.layers[item.name].output].columns)
                    for item in self.mapping.layers]
            self.ops, self.args, segments, channels = through_dram(
                self.ops, self.args, segments, channels, wiring, overlay, sums)
        if loops.weights is WeightPath.INPUT:
            channels = through_input(self.ops, channels, wiring)
        if loops.calls is not Calls.WHOLE:
            (self.ops, self.args, segments, channels), self.host_ns = called(
                self.ops, self.args, segments, channels, wiring, Host(
                    loops.calls, start_ns(self.board, overlay), len(self.mapping.layers),
                    self.host_ns, self._call_cache_ns))
            hosts = self.ops[:, Column.KIND] == Opcode.HOST
            self.ops[hosts, Column.FILL] = [host_cycles(item, overlay.clock_hz)
                                            for item in self.host_ns]
        if overlay.reads is Reads.JOINED:
            self.ops, self.args, segments, channels = joined(
                self.ops, self.args, segments, channels, wiring)
        if overlay.phases is not Phases.OVERLAPPED:
            channels = serial(self.ops, segments, wiring.units, channels,
                              overlay.phases is Phases.DRAINED)
        return segments, channels

    def _call_cache_ns(self, read: int, written: int) -> float:
        """Flush of what a call reads and invalidation of what it writes, if there is any."""
        if not self.overlay.loops.call_cache:
            return 0.0
        control = self.overlay.control
        return cache_ns(self.board, control, read) + cache_ns(self.board, control, written)

    def _phases(self) -> Iterator[tuple[Phase, list[int]]]:
        phase: Phase | None = None
        indices: list[int] = []
        for index, item in enumerate(self.mapping.layers):
            if item.phase is not phase and indices:
                assert phase is not None
                yield phase, indices
                indices = []
            phase = item.phase
            indices.append(index)
        if phase is not None:
            yield phase, indices

    def _emit(self, mapped: Mapped, job: Job, rows: _Rows) -> None:
        table = Table(self.ops, self.args, rows.first, rows.last, self.blocks)
        begin = self.row
        self.row = job.kernel(table, begin, job.common, job.plan, job.areas, job.wires)
        fill_costs(self.ops[begin : self.row], self.args[begin : self.row], mapped,
                   job.common.engine)

    # --- order between layers -------------------------------------------------------------

    def _segment(self, jobs: list[tuple[Mapped, Job] | None], indices: list[int]) -> None:
        """Write one phase: its layers in order, tied by barriers, repeatable."""
        self.blocks[:] = 0
        done: list[_Rows] = []
        fabric = [index for index in indices if jobs[index] is not None]
        starts_on_host = bool(indices) and jobs[indices[0]] is None
        if fabric and not starts_on_host:
            done.append(self._host(None, fabric[0], len(self.mapping.layers),
                                   start_ns(self.board, self.overlay)))
        for place_in, index in enumerate(indices):
            item, job = self.mapping.layers[index], jobs[index]
            if job is None:
                after = indices[place_in + 1] if place_in + 1 < len(indices) else None
                to_fabric = after is not None and jobs[after] is not None
                done.append(self._host(item, index, index, host_ns(
                    self.graph, self.overlay, self.board, self.layouts, self.layers[item.name],
                    item, to_fabric)))
                continue
            if (self.overlay.control.start is Start.LAYER and done
                    and done[-1].item is not None and done[-1].item.engine is not None):
                done.append(self._host(None, index, len(self.mapping.layers),
                                       start_ns(self.board, self.overlay)))
            rows, begin = self._blank(item), self.row
            self._emit(*job, rows)
            done.append(rows)
            if self._bands(item):
                self._interleave(done[-2:], self.mapping.bands[item.inputs[0]], begin)
        for rows, following in itertools.pairwise(done):
            if following.item is None or not self._bands(following.item):
                self._barrier(rows, following)
        self._wrap(done)
        self._release(done)
        self._activations(done, jobs)

    def _bands(self, item: LayerMapping) -> bool:
        """Does a layer take its input from the one before it by bands of rows?"""
        return bool(item.inputs) and item.inputs[0] in self.mapping.bands

    def _interleave(self, pair: list[_Rows], turns: tuple[Turn, ...], middle: int) -> None:
        """Order the rows of the last two layers by their bands; the second's begin at `middle`."""
        assert pair[0].item is not None
        found = [rows.first for rows in pair] + [rows.last for rows in pair]
        first = int(min(item[item >= 0].min() for item in found))
        ring = Ring.of(self.placement.place(pair[0].item.output))
        places = interleaved(self.ops[first : self.row], self.args[first : self.row],
                             middle - first, turns, ring, self.overlay, self.wiring)
        for item in found:
            item[item >= 0] = first + places[item[item >= 0] - first]

    def _blank(self, item: LayerMapping | None) -> _Rows:
        first, last = self.marks[self.marked]
        self.marked += 1
        return _Rows(item, first, last)

    def _host(self, item: LayerMapping | None, layer: int, argument: int,
              time_ns: float) -> _Rows:
        rows, row = self._blank(item), self.row
        self.ops[row], self.args[row] = 0, 0
        line = self.ops[row]
        line[Column.UNIT], line[Column.KIND] = self.wiring.host, Opcode.HOST
        line[Column.LAYER], line[Column.FLAGS] = layer, FLAG_FIRST
        line[Column.FILL] = host_cycles(time_ns, self.overlay.clock_hz)
        self.host_ns.append(time_ns)
        self.args[row, 0] = argument
        if item is not None:
            source = self.layers[item.name]
            line[Column.MACS] = multiply_accumulates(self.graph, source)
        rows.first[self.wiring.host] = rows.last[self.wiring.host] = row
        self.row += 1
        return rows

    def _tie(self, signal_row: int, wait_row: int, mask: int) -> None:
        self.ops[signal_row, Column.SIGNAL] |= mask
        self.ops[wait_row, Column.WAIT] |= mask

    def _barrier(self, before: _Rows, after: _Rows) -> None:
        """The first loads of a layer wait for the last stores of the layer before it."""
        wiring = self.wiring
        from_host = before.first[wiring.host] >= 0
        to_host = after.first[wiring.host] >= 0
        if from_host and to_host:
            return
        if from_host:
            for i in after.units(wiring.inputs):
                self._tie(before.last[wiring.host], after.first[wiring.inputs[i]],
                          wiring.host_in[i])
            return
        for j in before.units(wiring.outputs):
            store = before.last[wiring.outputs[j]]
            if to_host:
                self._tie(store, after.first[wiring.host], wiring.to_host[j])
                continue
            for i in after.units(wiring.inputs):
                self._tie(store, after.first[wiring.inputs[i]], wiring.layer_done[j][i])

    def _wrap(self, done: list[_Rows]) -> None:
        """A repeat, or the next segment, starts when this one's last stores are done."""
        wiring = self.wiring
        fabric = [rows for rows in done if rows.first[wiring.host] < 0]
        if not fabric:
            return
        first, last = fabric[0], fabric[-1]
        weight = next((int(rows.first[wiring.weight]) for rows in fabric
                       if rows.first[wiring.weight] >= 0), -1)
        for j in last.units(wiring.outputs):
            store = last.last[wiring.outputs[j]]
            for i in first.units(wiring.inputs):
                self._tie(store, first.first[wiring.inputs[i]], wiring.layer_done[j][i])
                self.initial |= wiring.layer_done[j][i]
            if weight >= 0:
                # Banks of weights begin anew in each repeat, so none may still be in use.
                self._tie(store, weight, wiring.stored[j])
                self.initial |= wiring.stored[j]

    def _release(self, done: list[_Rows]) -> None:
        """The host may write the next frame's tensors when this frame has read them."""
        wiring = self.wiring
        written: set[str] = set()
        first_host = -1
        for rows in done:
            if rows.first[wiring.host] < 0:
                break
            if rows.item is not None:
                written.add(rows.item.output)
                first_host = int(rows.first[wiring.host]) if first_host < 0 else first_host
        last = None
        for rows in done:
            if rows.item is None or rows.first[wiring.host] >= 0:
                continue
            names = {leaf for name in rows.item.inputs for leaf in self.layouts.leaves(name)}
            if names & written:
                last = rows
        if first_host < 0 or last is None:
            return
        for j in last.units(wiring.outputs):
            self._tie(last.last[wiring.outputs[j]], first_host, wiring.release[j])
            self.initial |= wiring.release[j]

    def _activations(self, done: list[_Rows], jobs: list[tuple[Mapped, Job] | None]) -> None:
        """The weight master may load an activation only after the layer that makes it.

        Having waited for a layer it need not wait for an earlier one, so its tokens come in the
        order of its waits.
        """
        weight = self.wiring.weight
        made: dict[str, int] = {}
        waited = -1
        mapped = {job[0].item.name: job[0] for job in jobs if job is not None}
        for index, rows in enumerate(done):
            item = rows.item
            if item is None:
                continue
            if item.engine is not None and rows.first[weight] >= 0:
                loaded = SLICES[item.engine].activations(mapped[item.name])
                maker = max((made.get(leaf, -1) for name in loaded
                             for leaf in self.layouts.leaves(name)), default=-1)
                if maker > waited:
                    waited = maker
                    self._tie_weight(done[maker], self._activation_row(item, rows))
            made[item.output] = index

    def _activation_row(self, item: LayerMapping, rows: _Rows) -> int:
        """The first row of the weight master that loads an activation: constants come first."""
        weight = self.wiring.weight
        row, last = int(rows.first[weight]), int(rows.last[weight])
        if not self.placement.roles.get(item.name):
            return row
        return row + 1 + int(np.argmax(self.ops[row + 1 : last + 1, Column.UNIT] == weight))

    def _tie_weight(self, maker: _Rows, wait_row: int) -> None:
        wiring = self.wiring
        if maker.first[wiring.host] >= 0:
            self._tie(int(maker.last[wiring.host]), wait_row, wiring.host_weight)
            return
        for j in maker.units(wiring.outputs):
            self._tie(int(maker.last[wiring.outputs[j]]), wait_row, wiring.stored[j])
