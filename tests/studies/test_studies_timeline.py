"""The waits read out of a trace, on a hand-made program whose cycles are known."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as TraceMessage
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from cosim.analysis.timeline import critical_path, timeline
from cosim.analysis.trace import counters, slices
from cosim.program.result import Trace
from cosim.program.table import (
    ARGUMENT_COUNT,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
    Unit,
    UnitKind,
)
from cosim.program.verify import verify
from studies.evaluation.evaluate import feasible, simulate_design
from studies.evaluation.stored import load_evaluation
from tests.support.command import cosim
from workloads.library import load


def ping_pong_program() -> Program:
    """A producer of 2-cycle and a consumer of 5-cycle operations, one buffer between them."""
    rows = np.zeros((2, len(Column)), np.int64)
    rows[:, Column.KIND] = Opcode.OTHER
    rows[:, Column.INTERVAL] = rows[:, Column.TRIPS] = 1
    rows[0, [Column.UNIT, Column.WAIT, Column.SIGNAL, Column.TRIPS]] = [0, 2, 1, 2]
    rows[1, [Column.UNIT, Column.WAIT, Column.SIGNAL, Column.TRIPS]] = [1, 1, 2, 5]
    program = Program("toy", (Unit("make", UnitKind.COMPUTE), Unit("use", UnitKind.COMPUTE)),
                      (Channel("full", 0, 1, 0, "input"), Channel("free", 1, 0, 1, "output")),
                      ("layer",), rows, np.zeros((2, ARGUMENT_COUNT), np.int32),
                      (Segment(0, 2, 3),))
    verify(program)
    return program


# make 0-2, use 2-7, make 7-9, use 9-14, make 14-16, use 16-21 (one buffer: no overlap)
TRACE = Trace(np.array([0, 2, 7, 9, 14, 16]), np.array([2, 7, 9, 14, 16, 21]))


def test_every_wait_has_its_channel_and_its_giver():
    line = timeline(ping_pong_program(), TRACE)
    assert line.channel.tolist() == [-1, 0, 1, 0, 1, 0]
    assert line.source.tolist() == [-1, 0, 1, 2, 3, 4]
    assert line.ready.tolist() == [0, 0, 2, 7, 9, 14]


def test_the_critical_path_of_a_serial_run_is_the_whole_run():
    assert critical_path(timeline(ping_pong_program(), TRACE)).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_trace_of_another_program_is_refused():
    with pytest.raises(ValueError, match="6"):
        timeline(ping_pong_program(), Trace(np.zeros(5), np.zeros(5)))


class _Result:
    trace = TRACE


def test_slices_cover_every_operation_and_stall():
    found = list(slices(ping_pong_program(), _Result()))  # type: ignore[arg-type]
    assert sum(item.category == "operation" for item in found) == 6
    stalls = [(item.unit, item.start, item.end) for item in found if item.category == "stall"]
    assert stalls == [(0, 2, 7), (0, 9, 14), (1, 0, 2), (1, 7, 9), (1, 14, 16)]


def test_the_trace_file_reads_back_in_nanoseconds():
    from cosim.analysis.trace import write_trace

    file = io.BytesIO()
    count = write_trace(ping_pong_program(), _Result(), 100e6, file)  # type: ignore[arg-type]
    message = TraceMessage.FromString(file.getvalue())
    events = [packet for packet in message.packet if packet.HasField("track_event")
              and packet.track_event.type != TrackEvent.TYPE_COUNTER]
    assert len(events) == 2 * count
    assert max(packet.timestamp for packet in events) == 210
    tracks = [packet.track_descriptor.thread.thread_name for packet in message.packet
              if packet.track_descriptor.HasField("thread")]
    assert tracks == ["make", "use"]


def test_tokens_are_counted_from_their_end_to_their_start():
    found = {item.name: item for item in
             counters(ping_pong_program(), _Result(), 1.0)}  # type: ignore[arg-type]
    free, full = found["tokens: free"], found["tokens: full"]
    assert dict(zip(free.cycles.tolist(), free.values.tolist(), strict=True)) == {
        0: 0, 7: 0, 14: 0, 21: 1}
    assert set(full.values.tolist()) == {0} and full.cycles.tolist() == [0, 2, 9, 16]


def test_bytes_a_second_sum_to_the_bytes_and_no_token_is_taken_before_it_is_given():
    board, design = load_board("pynq-z1"), load_overlay("default")
    run = feasible(simulate_design(load("agc-w16"), design, board, "ddr3", trace=True))
    units = run.lowered.program.units
    moved = run.result.layer_bytes.sum(axis=0)
    found = {item.name: item for item in counters(run.lowered.program, run.result, 1e9)}
    for name, kind in (("read", UnitKind.READ), ("written", UnitKind.WRITE)):
        item = found[f"bytes a second {name}"]
        spread = np.diff(item.cycles) @ item.values[:-1] / 1e9
        wanted = sum(moved[place] for place, unit in enumerate(units) if unit.kind == kind)
        assert spread == pytest.approx(wanted, rel=1e-6)
        assert found[f"transfers under way, {name}"].values[-1] == 0
    tokens = [item for name, item in found.items() if name.startswith("tokens")]
    assert len(tokens) == len(run.lowered.program.channels)
    assert min(item.values.min() for item in tokens) == 0


def test_a_trace_is_in_the_time_of_the_clock_that_the_board_gives(tmp_path):
    assert cosim("simulate", "agc-w16", "--frames", 1, "--json", tmp_path / "a.json",
                 "--trace", tmp_path / "a.pftrace", "--csv", tmp_path / "a.csv") == 0
    item = load_evaluation(tmp_path / "a.json")
    message = TraceMessage.FromString((tmp_path / "a.pftrace").read_bytes())
    end = max(packet.timestamp for packet in message.packet)
    assert end == pytest.approx(item.latency_s * 1e9, abs=1)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.name for layer in item.layers]
    assert sum(int(row["cycles"]) for row in rows) == item.latency_cycles
