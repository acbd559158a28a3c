"""Does the synthesized top, its processes side by side, do what the scheduler does?"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from arch_models.overlay import default_overlay
from cosim.program.table import Buffer, Channel, Column, Opcode, Program, Segment, Unit, UnitKind
from hw.csim.fabric import (
    FLAGS,
    SOURCES,
    SimulationError,
    compile_sources,
    run_program,
    run_top,
    write_headers,
)
from hw.csim.top import top_source
from hw.interface.configuration import EmissionError, configure
from hw.interface.host_table import host_table
from hw.interface.plan import HostStep, Start, steps
from tests.support.small_frames import QUICK
from tests.support.tiny_programs import (
    CHANNELS,
    ENGINE,
    IN_FILLED,
    IN_FREE,
    OUT_FILLED,
    OUT_FREE,
    UNITS,
    Sheet,
    blocks,
    plain_place,
    unblocked,
)
from workloads.graph import Graph, Layer, Operator, TensorSpec, Window

HOST = len(UNITS)
TILES, POSITIONS = 12, 16


def pipeline() -> tuple[Program, np.ndarray, int, np.ndarray]:
    """Twelve tiles loaded, added to themselves with ping-pong buffers, and stored."""
    generator = np.random.default_rng(0)
    tensor = generator.integers(-60, 60, (8, TILES, POSITIONS), np.int8)
    sheet = Sheet()
    source = sheet.place(blocks(tensor))
    sheet.load_block(np.zeros(8, np.uint8), Buffer.TABLE)
    target = sheet.place(np.zeros(tensor.size, np.uint8))
    for tile in range(TILES):
        bank = tile % 2
        sheet.load(source + tile * POSITIONS * 8, 1, POSITIONS, bank * 100, signal=IN_FILLED)
        sheet.rows[-1][Column.WAIT] = IN_FREE
        sheet.row(ENGINE, Opcode.ADD, {
            "in_base": bank * 100, "other_base": bank * 100, "out_base": bank * 50,
            "positions": POSITIONS, "planes": 1, "multiplier_in": 1, "multiplier_other": 1},
            IN_FILLED | OUT_FREE, OUT_FILLED | IN_FREE)
        sheet.store(target + tile * POSITIONS * 8, 1, POSITIONS, bank * 50)
    return sheet.program(), sheet.image(), target, tensor


def result(memory: np.ndarray, target: int, tensor: np.ndarray) -> np.ndarray:
    return unblocked(memory[target : target + tensor.size], *tensor.shape)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_any_legal_order_gives_the_same_bytes(order):
    program, memory, target, tensor = pipeline()
    run_program(program, default_overlay(), memory, order=order, flags=QUICK)
    assert np.array_equal(result(memory, target, tensor), 2 * tensor)


def test_processes_side_by_side_give_the_same_bytes():
    program, memory, target, tensor = pipeline()
    run_top(program, default_overlay(), memory, flags=QUICK)
    assert np.array_equal(result(memory, target, tensor), 2 * tensor)


def test_repeats_move_the_addresses():
    program, memory, target, tensor = pipeline()
    table = program.operations.copy()
    rows = table[1:7]  # two tiles; six repeats walk the other ten
    rows[:, Column.ADVANCE] = np.where(rows[:, Column.PLANES] > 0, 2 * POSITIONS * 8, 0)
    short = dataclasses.replace(program, operations=table[:7], arguments=program.arguments[:7],
                                segments=(Segment(0, 1), Segment(1, 7, TILES // 2)))
    again = memory.copy()
    run_program(short, default_overlay(), memory, flags=QUICK)
    assert np.array_equal(result(memory, target, tensor), 2 * tensor)
    run_top(short, default_overlay(), again, flags=QUICK)
    assert np.array_equal(again, memory)


def with_host_layer() -> tuple[Program, np.ndarray, bytes, int, np.ndarray]:
    """The pipeline, then an average pool on the host over what it stored."""
    program, memory, target, tensor = pipeline()
    channels = (*CHANNELS, Channel("stored", 2, HOST, 0, "barrier"),
                Channel("host done", HOST, 0, 0, "host"))
    sheet = Sheet()
    sheet.row(HOST, Opcode.HOST, {"layer": 1}, 1 << 6, 1 << 7)
    table = np.concatenate([program.operations, sheet.rows])
    table[-2, Column.SIGNAL] |= 1 << 6
    table[-1, Column.TRIPS] = 1
    whole = Program("host", (*UNITS, Unit("host", UnitKind.COMPUTE)), channels,
                    ("add", "pool"), table, np.concatenate([program.arguments, sheet.arguments]),
                    (Segment(0, len(table)),))
    specs = {"sum": TensorSpec("sum", *tensor.shape),
             "out": TensorSpec("out", 8, TILES // 2, POSITIONS // 2)}
    layer = Layer("pool", Operator.AVERAGE_POOL, ("sum",), "out", Window(2, 2, 2))
    graph = Graph("host", ("sum",), ("out",), specs, (layer,), {})
    places = {
        "sum": plain_place(target, *tensor.shape),
        "out": plain_place(memory.size, *specs["out"].shape)}
    memory = np.concatenate([memory, np.zeros(tensor.size // 4, np.uint8)])
    return whole, memory, host_table(graph, {1: layer}, places), places["out"].address, tensor


def test_host_layers_run_between_starts():
    program, memory, table, address, tensor = with_host_layer()
    plan = steps(program, configure(program, default_overlay()))
    assert plan == (Start(0, len(program.operations) - 1, 1, 0), HostStep(1))
    again = memory.copy()
    run_program(program, default_overlay(), memory, table, flags=QUICK)
    run_top(program, default_overlay(), again, table, flags=QUICK)
    assert np.array_equal(memory, again)
    total = (2 * tensor.astype(int)).reshape(8, TILES // 2, 2, POSITIONS // 2, 2).sum((2, 4))
    assert np.array_equal(unblocked(memory[address:], 8, TILES // 2, POSITIONS // 2),
                          np.rint(total / 4))


def test_a_deadlock_is_found_and_named():
    program, memory, _, _ = pipeline()
    table = program.operations.copy()
    table[3:12:3, Column.SIGNAL] = 0  # three stores never free their bank
    broken = dataclasses.replace(program, operations=table)
    with pytest.raises(SimulationError, match=r"deadlock: .*engine waits for channel output"):
        run_program(broken, default_overlay(), memory, flags=QUICK)
    with pytest.raises(EmissionError, match="waits for channel 'output free' before any earlier"):
        steps(broken, configure(broken, default_overlay()))


@pytest.mark.parametrize(("row", "column", "value", "message"), [
    (1, Column.ADDRESS, 1 << 24, "operation 1 of unit input: transfer: bytes .* memory has"),
    (1, Column.ADDRESS, 4, "multiples of 8"),
    (1, Column.PLANES, 100000, "transfer: bytes"),
])
def test_a_command_outside_the_memory_is_refused(row, column, value, message):
    program, memory, _, _ = pipeline()
    table = program.operations.copy()
    table[row, column] = value
    with pytest.raises(SimulationError, match=message):
        run_program(dataclasses.replace(program, operations=table), default_overlay(), memory,
                    flags=QUICK)


@pytest.mark.parametrize(("row", "place", "what"), [
    (1, 1, "INPUT"), (2, 2, "OUTPUT"), (2, 0, "INPUT"), (3, 0, "OUTPUT")])
def test_a_command_outside_its_buffer_is_refused(row, place, what):
    program, memory, _, _ = pipeline()
    arguments = program.arguments.copy()
    arguments[row, place] = 65000
    with pytest.raises(SimulationError, match=f"operation {row} .*{what}: words"):
        run_program(dataclasses.replace(program, arguments=arguments), default_overlay(), memory,
                    flags=QUICK)


@pytest.mark.parametrize(("field", "value"), [("data_bits", 16), ("weight_bits", 16)])
def test_an_overlay_that_cannot_be_emitted_is_refused(field, value):
    program = pipeline()[0]
    overlay = dataclasses.replace(default_overlay(), **{field: value})
    with pytest.raises(EmissionError, match=f"{field} is 16, must be 8"):
        configure(program, overlay)
    with pytest.raises(EmissionError, match="tm is 12, must be a multiple of 8"):
        configure(program, dataclasses.replace(default_overlay(), tm=12, tn=4, channel_block=4))


@pytest.mark.parametrize("level", [1, 2])
def test_sources_compile_with_their_pragmas(level, tmp_path):
    """g++ ignores them; this finds a pragma that breaks the code around it."""
    program = pipeline()[0]
    write_headers(program, default_overlay(), tmp_path)
    for path in SOURCES.glob("*.hpp"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = top_source(program, configure(program, default_overlay()))
    (tmp_path / "overlay.cpp").write_text(text)
    flags = (*FLAGS, f"-DCOSIM_PRAGMAS={level}", "-Wno-unknown-pragmas")
    compile_sources(tmp_path, ("overlay.cpp",), tmp_path / "top.so",
                    (*flags, "-shared", "-fPIC"))
    compile_sources(tmp_path, ("overlay.cpp",), tmp_path / "top.i", (*flags, "-E"))
    seen = {line.strip() for line in (tmp_path / "top.i").read_text().splitlines()
            if line.strip().startswith("#pragma HLS")}
    assert "#pragma HLS PIPELINE II = 1" in seen
    interface = "#pragma HLS INTERFACE m_axi port = memory_input bundle = port_input depth = 1 " \
                "offset = slave"
    assert (interface in seen) == (level == 1)
    assert all(line.startswith(("#pragma HLS PIPELINE", "#pragma HLS UNROLL")) for line in seen) \
        == (level == 2)


def test_pragmas_come_from_one_header():
    texts = {path.name: path.read_text() for path in SOURCES.iterdir()}
    assert [name for name, text in texts.items() if "Pragma" in text] == ["pragmas.hpp"]
    assert not any("#pragma" in text for text in texts.values())


def test_what_is_synthesized_allocates_nothing():
    host_side = ("host", "scheduler", "check", "testbench", "library", "fifo")
    for path in SOURCES.iterdir():
        if not path.name.startswith(host_side):
            text = path.read_text()
            for word in (r"\bnew\b", "malloc", "std::vector", r"while \(", r"\*\*", "goto"):
                assert not re.search(word, text), f"{path.name}: {word}"
