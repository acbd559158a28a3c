"""Do the loops of described hardware cost what their closed forms say, and compute the same?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from arch_models.engines.host import cache_ns, start_ns
from arch_models.fields import FieldError
from arch_models.literature import (
    Calls,
    Copies,
    Loops,
    Origin,
    Phases,
    Reads,
    Reuse,
    WeightCopies,
    WeightPath,
)
from arch_models.memory import flat_memory
from arch_models.overlay import (
    Control,
    Engine,
    Infeasible,
    Master,
    Overlay,
    Pipeline,
    Rate,
    Role,
    Start,
    load_overlay,
    overlay_of_table,
    save_overlay,
)
from cosim.analysis.bounds import bounds
from cosim.analysis.interpret import interpret
from cosim.build import build
from cosim.executors import des, fast
from cosim.lowering.host_times import host_cycles
from cosim.lowering.lower import Lowered
from cosim.mapping.tiles import PlaneTile
from cosim.program.result import SimResult, Trace
from cosim.program.table import Buffer, Column, Opcode, UnitKind
from cosim.program.verify import verify
from tests.support.small_frames import board
from tests.support.tiny_graphs import TinyGraph
from workloads.graph import Graph
from workloads.reference import execute

FILL = 7
#: Masters that wait for each run, so that every one costs the same cycles more.
WAITING = {"overlap_runs": False, "run_setup_cycles": 5, "setup_cycles": 10, "tail_cycles": 2}
DESIGN = Overlay(
    "tiny", 8, 8, frozenset({Engine.CONVOLUTION, Engine.POOL}),
    tuple(Master(role.value, role, f"HP{index}", **WAITING)  # type: ignore[arg-type]
          for index, role in enumerate((Role.INPUT, Role.WEIGHT, Role.OUTPUT))),
    input_words=256, output_words=256, requantize_cycles=1, most_in_words=1, most_out_words=1,
    fusions=frozenset(), control=Control(start=Start.LAYER),
    pipelines=(Pipeline(Engine.CONVOLUTION, FILL),), origin=Origin.LITERATURE, rate=Rate.FIXED)
READ_LATENCY = 20
MEMORY = flat_memory(4, 8, READ_LATENCY, 8)


def tiny(channels: int = 16, rows: int = 6, columns: int = 10) -> TinyGraph:
    """A 3x3 convolution of 16 channels to 8, 6 x 10 positions, by default."""
    net = TinyGraph(1, channels, rows, columns)
    net.convolution("c", "in", 8, 3, padding=1)
    return net


def lowered(design: Overlay, graph: Graph | None = None) -> Lowered:
    found = build(graph or tiny().graph("c"), design, board())
    assert isinstance(found, Lowered), found
    verify(found.program)
    return found


def loops(**changes: object) -> Overlay:
    return replace(DESIGN, loops=Loops(**changes))  # type: ignore[arg-type]


def simulated(found: Lowered) -> SimResult:
    """The result, equal in both executors and no faster than the bounds."""
    result = fast.simulate(found.program, MEMORY, trace=True)
    assert result.differences(des.simulate(found.program, MEMORY, trace=True)) == []
    assert bounds(found.program, MEMORY).cycles <= result.total_cycles
    return result


def rows_of(found: Lowered, opcode: Opcode, buffer: Buffer | None = None) -> np.ndarray:
    """Numbers of the rows with an opcode, of loads those into a buffer."""
    table, values = found.program.operations, found.program.arguments
    mine = table[:, Column.KIND] == opcode
    if buffer is not None:
        mine &= values[:, 0] == buffer
    return np.flatnonzero(mine)


def durations(result: SimResult, rows: np.ndarray) -> np.ndarray:
    assert result.trace is not None
    return np.asarray(result.trace.end[rows] - result.trace.start[rows])


def moved(found: Lowered, rows: np.ndarray) -> int:
    table = found.program.operations[rows]
    return int((table[:, Column.ROW_BYTES] * table[:, Column.ROWS] * table[:, Column.PLANES]).sum())


def test_rows_that_are_copied_one_by_one_cost_a_run_each() -> None:
    whole, apart = lowered(DESIGN), lowered(loops(copies=Copies.ROWS))
    loads = rows_of(whole, Opcode.LOAD, Buffer.INPUT)
    assert (whole.program.operations[loads][:, Column.ROWS] == 1).all()
    assert (apart.program.operations[loads][:, Column.ROWS] == 6).all()
    assert moved(whole, loads) == moved(apart, loads) == 16 * 6 * 10
    # For each of two planes 6 runs of 10 beats instead of one of 60. A run begins when the one
    # before is done: the latency and the set-up more for each.
    before, after = (durations(simulated(item), loads) for item in (whole, apart))
    each = READ_LATENCY + int(WAITING["run_setup_cycles"])
    assert (after - before).tolist() == [2 * 5 * each]


@pytest.mark.parametrize(("copies", "runs"), [(WeightCopies.CHANNELS, 8),
                                              (WeightCopies.KERNELS, 64)])
def test_weights_are_copied_by_output_channels_or_kernels(copies: WeightCopies,
                                                          runs: int) -> None:
    found = lowered(loops(weight_copies=copies))
    blocks = rows_of(found, Opcode.LOAD, Buffer.WEIGHT)
    table = found.program.operations[blocks]
    assert len(blocks) == 2 and (table[:, Column.ROWS] == runs).all()
    assert (table[:, Column.ROW_BYTES] == 64 * 9 // runs).all()
    assert moved(found, blocks) == 2 * 64 * 9


def test_without_reuse_each_output_tile_reads_inputs_and_weights_again() -> None:
    """Two blocks of output channels, three tiles of two rows: all they read comes six times."""
    net = TinyGraph(1, 8, 6, 10)
    net.convolution("c", "in", 16, 1)
    tiled = replace(DESIGN, tile_rows=2)
    kept = lowered(tiled, net.graph("c"))
    again = lowered(replace(tiled, loops=Loops(reuse=Reuse.NONE)), net.graph("c"))
    block, tile = 8 * 8, 8 * 2 * 10
    assert moved(again, rows_of(again, Opcode.LOAD, Buffer.WEIGHT)) == 6 * block
    assert moved(again, rows_of(again, Opcode.LOAD, Buffer.INPUT)) == 6 * tile
    assert (moved(kept, rows_of(kept, Opcode.LOAD, Buffer.WEIGHT)) < 6 * block
            or moved(kept, rows_of(kept, Opcode.LOAD, Buffer.INPUT)) < 6 * tile)
    simulated(again)


def test_a_padded_stream_moves_rows_and_columns_more() -> None:
    found = lowered(loops(read_rows=2, read_columns=3))
    loads = rows_of(found, Opcode.LOAD, Buffer.INPUT)
    assert moved(found, loads) == 16 * (6 + 2) * (10 + 3)


def test_an_array_that_goes_through_the_padding_works_longer() -> None:
    found = lowered(loops(work_rows=2, work_columns=3))
    work = durations(simulated(found), rows_of(found, Opcode.CONVOLUTION))
    assert work.tolist() == [FILL + (6 + 2) * (10 + 3) * 9] * 2


@pytest.mark.parametrize(("taps", "trips"), [(1, 9), (2, 5), (3, 3), (9, 1), (16, 1)])
def test_taps_of_a_kernel_in_fewer_cycles(taps: int, trips: int) -> None:
    found = lowered(loops(taps_per_cycle=taps))
    work = durations(simulated(found), rows_of(found, Opcode.CONVOLUTION))
    assert work.tolist() == [FILL + 6 * 10 * trips] * 2


def test_a_max_pool_behind_a_convolution_is_free_and_stores_a_quarter() -> None:
    net = tiny()
    graph = net_with_pool(net)
    apart, fused = lowered(DESIGN, graph), lowered(loops(fused_max_pool=True), graph)
    assert len(rows_of(apart, Opcode.MAX_POOL)) == 1
    assert len(rows_of(fused, Opcode.MAX_POOL)) == 0
    assert moved(fused, rows_of(fused, Opcode.STORE)) == 8 * 3 * 5
    work = rows_of(fused, Opcode.CONVOLUTION)
    assert durations(simulated(fused), work).tolist() == [FILL + 6 * 10 * 9] * 2


def net_with_pool(net: TinyGraph) -> Graph:
    net.max_pool("p", "c", 2, 2, 0)
    return net.graph("p")


@pytest.mark.parametrize("bits", [16, 32])
def test_sums_that_go_through_dram_move_twice_for_each_pass_but_one(bits: int) -> None:
    net = tiny(channels=32)  # four passes
    plain, found = (lowered(item, net.graph("c")) for item in (DESIGN, loops(partial_bits=bits)))
    sums = rows_of(found, Opcode.LOAD, Buffer.OUTPUT)
    size = 3 * 8 * 6 * 10 * bits // 8
    assert moved(found, sums) == size
    assert moved(found, rows_of(found, Opcode.STORE)) == size + 8 * 6 * 10
    trace = simulated(found).trace
    assert trace is not None
    stores, work = rows_of(found, Opcode.STORE), rows_of(found, Opcode.CONVOLUTION)
    assert len(work) == 4 and len(stores) == 4 and len(sums) == 3
    for index in range(3):
        assert trace.start[stores[index]] >= trace.end[work[index]]
        assert trace.start[sums[index]] >= trace.end[stores[index]]
        assert trace.start[work[index + 1]] >= trace.end[sums[index]]
    assert simulated(plain).total_cycles < simulated(found).total_cycles


def test_weights_in_the_stream_of_the_inputs_take_its_time() -> None:
    plain, found = lowered(DESIGN), lowered(loops(weights=WeightPath.INPUT))
    unit = found.program.operations[:, Column.UNIT]
    names = [item.name for item in found.program.units]
    assert not (unit == names.index("weight")).any()
    mine, other = names.index("input"), names.index("weight")
    before, after = (durations(simulated(item), np.flatnonzero(np.isin(
        item.program.operations[:, Column.UNIT], (mine, other)))) for item in (plain, found))
    assert before.tolist() == after.tolist() and len(after) == 4
    firsts = found.program.operations[unit == mine][:, Column.FLAGS]
    assert firsts.tolist() == [1] + [0] * (len(firsts) - 1)


def test_a_file_need_not_name_a_weight_master_that_does_nothing() -> None:
    masters = [{"name": "read", "role": "input", "port": "HP0", "width_bits": 32},
               {"name": "write", "role": "output", "port": "HP1"}]
    given = {"name": "t", "tm": 8, "tn": 8, "engines": ["convolution"], "masters": masters,
             "origin": "literature"}
    with pytest.raises(FieldError, match="none has role 'weight'"):
        overlay_of_table(given)
    found = overlay_of_table({**given, "loops": {"weights": "input"}})
    weight, = found.masters_of(Role.WEIGHT)
    assert weight == replace(found.masters[0], name="read_weights", role=Role.WEIGHT)


def spans_in_turn(found: Lowered, trace: Trace, phases: Phases) -> list[tuple[int, int]]:
    """First start and last end of each phase behind a host's step; no two of them overlap."""
    table = found.program.operations
    kinds = np.array([int(unit.kind) for unit in found.program.units])
    kind = kinds[table[:, Column.UNIT]]
    if phases is Phases.DRAINED:
        kind = np.where(kind == UnitKind.WRITE, kind, -2)
    kind = np.where(table[:, Column.KIND] == Opcode.HOST, -1, kind)
    edges = [0, *(1 + np.flatnonzero(np.diff(kind))).tolist(), len(table)]
    spans = [(int(trace.start[begin:end].min()), int(trace.end[begin:end].max()))
             for begin, end in pairwise(edges) if kind[begin] != -1]
    assert all(after[0] >= before[1] for before, after in pairwise(spans))
    return spans


@pytest.mark.parametrize("phases", [Phases.DRAINED, Phases.SERIAL])
@pytest.mark.parametrize("calls", list(Calls))
@pytest.mark.parametrize("bits", [0, 16])
def test_four_read_ports_and_two_write_ports_find_channels_enough(phases: Phases, calls: Calls,
                                                                  bits: int) -> None:
    """As accelerators on Zynq-7000 have them: all of HP0 to HP3, rows joined, sums in DRAM."""
    reads = tuple(Master(f"read{index}", Role.INPUT, f"HP{index}", **WAITING)  # type: ignore
                  for index in range(4))
    writes = tuple(Master(f"write{index}", Role.OUTPUT, f"HP{index}", **WAITING)  # type: ignore
                   for index in range(2))
    weight = Master("weight", Role.WEIGHT, "ACP", **WAITING)  # type: ignore[arg-type]
    design = replace(DESIGN, masters=(*reads, weight, *writes), phases=phases, tile_rows=4,
                     reads=Reads.JOINED, loops=Loops(
                         copies=Copies.ROWS, calls=calls, partial_bits=bits, stream_rows=2))
    net = TinyGraph(2, 32, 8, 12)
    net.convolution("c", "in", 16, 3, padding=1)
    net.max_pool("p", "c", 2, 2, 0)
    net.convolution("d", "p", 8, 1)
    found = lowered(design, net.graph("d"))
    memory = flat_memory(5, 8, READ_LATENCY, 8)
    result = fast.simulate(found.program, memory, trace=True)
    assert result.differences(des.simulate(found.program, memory, trace=True)) == []
    assert result.trace is not None
    assert len(spans_in_turn(found, result.trace, phases)) > 10


def test_ports_that_wait_for_more_than_there_are_channels_are_infeasible() -> None:
    """Eight read ports, joined at every row, are 56 pairs."""
    reads = tuple(replace(DESIGN.masters[0], name=f"read{index}") for index in range(8))
    design = replace(DESIGN, masters=(*reads, *DESIGN.masters[1:]), reads=Reads.JOINED,
                     input_words=1024, loops=Loops(copies=Copies.ROWS))
    found = build(tiny(channels=64).graph("c"), design, board())
    assert isinstance(found, Infeasible)
    assert (found.field, found.bound, found.unit) == ("channels", 62, "token channels")


def test_drained_results_leave_before_the_next_tile_begins() -> None:
    design = replace(DESIGN, tile_rows=2, phases=Phases.DRAINED)
    found = lowered(design)
    trace = simulated(found).trace
    assert trace is not None
    assert len(spans_in_turn(found, trace, Phases.DRAINED)) == 6
    # Loads and work of a tile overlap: less time than one after the other, more than without.
    times = [simulated(lowered(replace(design, phases=phases))).total_cycles
             for phases in (Phases.OVERLAPPED, Phases.DRAINED, Phases.SERIAL)]
    assert times[0] < times[1] < times[2]


@pytest.mark.parametrize(("calls", "count"), [(Calls.WHOLE, 1), (Calls.TILE, 3),
                                              (Calls.PASS, 6)])
def test_the_host_starts_every_call_and_keeps_its_caches_right(calls: Calls, count: int) -> None:
    """Three tiles of two passes; the call of a tile reads its bytes and writes its results."""
    design = replace(DESIGN, tile_rows=2, loops=Loops(calls=calls, call_us=9.0, call_cache=True))
    found = lowered(design)
    result = simulated(found)
    hosts = rows_of(found, Opcode.HOST)
    assert len(hosts) == count == len(found.host_ns)
    each = start_ns(board(), design)
    assert each == pytest.approx(start_ns(board(), DESIGN) + 9000)
    if calls is Calls.WHOLE:
        assert found.host_ns == (each,)
        return
    table, trace = found.program.operations, result.trace
    assert trace is not None
    kinds = np.array([int(unit.kind) for unit in found.program.units])[table[:, Column.UNIT]]
    for index, (step, after) in enumerate(pairwise([*hosts.tolist(), len(table)])):
        rows = np.arange(step + 1, after)
        upkeep = sum(cache_ns(board(), design.control, moved(found, rows[kinds[rows] == kind]))
                     for kind in (UnitKind.READ, UnitKind.WRITE))
        assert found.host_ns[index] == pytest.approx(each + upkeep)
        assert table[step, Column.FILL] == host_cycles(found.host_ns[index], design.clock_hz)
        assert trace.start[rows].min() >= trace.end[step]
        if after < len(table):
            assert trace.start[after] >= trace.end[rows].max()


def test_calls_inside_a_layer_need_a_start_of_every_layer() -> None:
    with pytest.raises(FieldError, match=r"control\.start is 'frame' with loops\.calls 'tile'"):
        replace(loops(calls=Calls.TILE), control=Control())


@pytest.mark.parametrize(("field", "value", "nearest"), [
    ("taps_per_cycle", 0, 1), ("work_rows", -1, 0), ("stream_rows", 5000, 4096),
    ("call_us", -2.0, 0), ("partial_bits", 12, 8)])
def test_loops_that_no_hardware_has_are_refused(field: str, value: float, nearest: int) -> None:
    with pytest.raises(FieldError, match=rf"loops\.{field} is .*nearest {nearest}"):
        loops(**{field: value})


def test_loops_are_for_designs_of_the_literature() -> None:
    with pytest.raises(FieldError, match="origin must be 'literature'"):
        replace(loops(taps_per_cycle=3), origin=Origin.OWN)


def test_loops_come_back_from_a_file_and_are_not_written_where_there_are_none(tmp_path) -> None:
    design = loops(copies=Copies.ROWS, calls=Calls.PASS, call_us=1.5, partial_bits=16)
    save_overlay(design, tmp_path / "d.toml")
    assert load_overlay(tmp_path / "d.toml") == design
    save_overlay(DESIGN, tmp_path / "e.toml")
    assert "loops" not in (tmp_path / "e.toml").read_text()
    assert load_overlay(tmp_path / "e.toml") == DESIGN


@pytest.mark.parametrize("phases", list(Phases))
@pytest.mark.parametrize("seed", range(6))
def test_loops_together_run_to_their_end_and_compute_the_same(seed: int, phases: Phases) -> None:
    """All but the sums that go through DRAM and the padded streams are executed as well."""
    draw = np.random.default_rng(seed)

    def some(choices: type) -> object:
        return list(choices)[draw.integers(len(list(choices)))]

    chosen = Loops(copies=some(Copies), weight_copies=some(WeightCopies),  # type: ignore[arg-type]
                   weights=some(WeightPath), calls=some(Calls), taps_per_cycle=3,  # type: ignore
                   reuse=some(Reuse),  # type: ignore[arg-type]
                   fused_max_pool=bool(draw.integers(2)), call_cache=True)
    net = TinyGraph(seed, 24, 8, 12)
    net.convolution("c", "in", 16, 3, padding=1, relu=True)
    net.max_pool("p", "c", 2, 2, 0)
    net.convolution("d", "p", 8, 1)
    graph, inputs = net.graph("d"), net.inputs()
    second = Master("second", Role.INPUT, "HP3", **WAITING)  # type: ignore[arg-type]
    design = replace(DESIGN, loops=chosen, phases=phases, tile_rows=4, tile_columns=6,
                     masters=(*DESIGN.masters, second) if seed % 2 else DESIGN.masters)
    found = lowered(design, graph)
    simulated(found)
    wanted = execute(graph, inputs)
    got = interpret(found, graph, design, inputs, seed)
    assert np.array_equal(got["d"], wanted["d"])
    timed = replace(design, loops=replace(chosen, partial_bits=16, read_rows=1, work_columns=2))
    simulated(lowered(timed, graph))


def image_net(seed: int = 0) -> tuple[Graph, TinyGraph]:
    """Every operator that is cut in rows and columns, 9 x 26 positions of 16 channels."""
    net = TinyGraph(seed, 16, 9, 26)
    net.max_pool("m", "in", 3, 1, 0)
    net.affine("a", "m")
    net.sum("s", "a", "m")
    net.upsample("u", "s")
    net.max_pool("n", "u", 2, 2, 0)
    net.pool("p", "u")
    return net.graph("n", "p"), net


@pytest.mark.parametrize("masters", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (0, 5), (4, 10), (3, 7)])
def test_images_cut_in_rows_and_columns_compute_the_same(rows: int, columns: int,
                                                         masters: int) -> None:
    graph, net = image_net()
    design = replace(loops(stream_rows=rows, stream_columns=columns, copies=Copies.ROWS),
                     engines=frozenset({Engine.CONVOLUTION, Engine.POOL, Engine.ELEMENTWISE,
                                        Engine.UPSAMPLE}), input_words=600, output_words=600)
    if masters == 2:
        second = Master("second", Role.INPUT, "HP3", **WAITING)  # type: ignore[arg-type]
        design = replace(design, masters=(*design.masters, second))
    found = lowered(design, graph)
    assert all(item.engine is not None for item in found.mapping.layers)
    for item in found.mapping.layers:
        assert isinstance(item.tile, PlaneTile)
        even = 2 if item.name == "u" else 1
        assert not rows or item.tile.rows == max(even, rows // even * even)
        assert not columns or item.tile.columns == max(even, columns // even * even)
    simulated(found)
    inputs = net.inputs()
    wanted, got = execute(graph, inputs), interpret(found, graph, design, inputs)
    for name in ("m", "a", "s", "u", "n", "p"):
        assert np.array_equal(got[name], wanted[name]), name


def test_a_tile_of_a_pool_costs_its_own_outputs_and_reads_its_own_edges() -> None:
    """A 3x3 pool of step 1 over 9 x 26, cut at 4 x 10: tiles of 4 and 3 rows, 10 and 4 columns."""
    net = TinyGraph(0, 8, 9, 26)
    net.max_pool("m", "in", 3, 1, 0)
    design = replace(loops(stream_rows=4, stream_columns=10),
                     pipelines=(Pipeline(Engine.POOL, FILL),))
    found = lowered(design, net.graph("m"))
    sizes = [(rows, columns) for rows in (4, 3) for columns in (10, 10, 4)]
    work = durations(simulated(found), rows_of(found, Opcode.MAX_POOL))
    assert work.tolist() == [FILL + rows * columns for rows, columns in sizes]
    assert moved(found, rows_of(found, Opcode.LOAD)) == 8 * sum(
        (rows + 2) * (columns + 2) for rows, columns in sizes)


def test_a_pool_too_wide_for_whole_rows_stays_in_fabric() -> None:
    """416 columns and 256 words, of our own hardware: no two rows of the input fit a bank."""
    net = TinyGraph(0, 16, 8, 416)
    net.max_pool("m", "in", 2, 2, 0)
    graph, inputs = net.graph("m"), net.inputs()
    design = replace(DESIGN, origin=Origin.OWN)
    found = lowered(design, graph)
    tile = found.mapping.layers[0].tile
    assert isinstance(tile, PlaneTile) and 4 * tile.rows * tile.columns <= 256
    assert np.array_equal(interpret(found, graph, design, inputs)["m"],
                          execute(graph, inputs)["m"])


def test_padded_windows_are_cut_for_described_hardware_alone() -> None:
    """Their tiles are timed: a tile costs its outputs and loads what there is of its window."""
    net = TinyGraph(0, 8, 40, 40)
    net.max_pool("m", "in", 3, 2, 1)
    graph = net.graph("m")
    found = lowered(replace(loops(stream_rows=8, stream_columns=8),
                            pipelines=(Pipeline(Engine.POOL, FILL),), input_words=400), graph)
    work = durations(simulated(found), rows_of(found, Opcode.MAX_POOL))
    sizes = [(rows, columns) for rows in (8, 8, 4) for columns in (8, 8, 4)]
    assert work.tolist() == [FILL + rows * columns for rows, columns in sizes]
    first = found.program.operations[rows_of(found, Opcode.LOAD)[0]]
    assert (first[Column.ROWS], first[Column.ROW_BYTES]) == (16, 8 * 16)
    ours = lowered(replace(DESIGN, origin=Origin.OWN), graph)
    assert ours.mapping.layers[0].why_host == "no tile fits INPUT and OUTPUT"
