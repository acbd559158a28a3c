"""Does the RTL of an overlay compute every byte, in the cycles that the model says?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.memory import WINDOW, memory_for
from arch_models.overlay import DESIGNS, Engine, Fetch, Role, default_overlay
from cosim.analysis import interpret
from cosim.program.table import ARGUMENTS, Column, Opcode, WeightOrder
from hw.interface.configuration import EmissionError
from hw.rtl.overlay_top import check_buildable
from hw.rtl_sim.program import OverlayBench
from hw.rtl_sim.tiles import random_tiles
from studies.evaluation.emission import whole_frame
from studies.validate import rtl
from studies.validate.rtl import (
    _no_host,
    compare_frame,
    compare_image,
    compare_tiles,
)
from tests.cosim.test_cosim_bands import BANDED, banded
from tests.support.command import cosim
from tests.support.small_frames import board, small_graph
from workloads.library import load
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph

SMALL = dataclasses.replace(default_overlay(), tm=8, tn=8)


def test_tiles_through_every_engine():
    found = compare_tiles(135, 0, SMALL, board())
    assert found.operations_differing == 0
    assert found.bytes_differing == 0
    assert found.counters_differing == 0
    assert found.operations_compared > 400 and found.bytes_compared > 100_000


def test_a_whole_small_frame():
    found = compare_frame(small_graph(), SMALL, board())
    assert found.equal
    assert found.operations_compared > 300 and found.cycles_compared > 300_000


def test_tiles_and_a_frame_on_the_ddr3_memory():
    """Ports, lines, rows, refresh: the memory answers the RTL's own requests."""
    tiles = compare_tiles(45, 0, SMALL, board(), "ddr3")
    frame = compare_frame(small_graph(), SMALL, board(), 0, "ddr3")
    assert tiles.equal and frame.equal
    flat = compare_frame(small_graph(), SMALL, board())
    assert frame.cycles_compared != flat.cycles_compared


@pytest.mark.parametrize(("name", "width_bits", "outstanding", "kib"), [
    ("pynq-z1", 64, 1, 16), pytest.param("pynq-z1", 32, 4, 16, marks=pytest.mark.long),
    pytest.param("ultra96", 128, 2, 128, marks=pytest.mark.long)])
def test_a_frame_whose_tensors_stay_on_chip(name, width_bits, outstanding, kib):
    """Every cycle, counter and byte, whatever the port's width and its bursts in flight."""
    on = load_board(name)
    overlay = dataclasses.replace(SMALL, tensor_memory_kib=kib, masters=tuple(
        dataclasses.replace(item, port=on.ports[index].name, width_bits=width_bits,
                            outstanding=outstanding, max_burst_beats=4 * outstanding)
        for index, item in enumerate(SMALL.masters)))
    program = whole_frame(small_graph(), overlay, on).lowered.program
    stays = program.operations[:, Column.TRIPS] * (program.operations[:, Column.ADDRESS] >= WINDOW)
    assert np.count_nonzero(stays) > 20
    for model in ("flat", "ddr3"):
        found = compare_frame(small_graph(), overlay, on, 0, model)
        assert found.equal and found.operations_compared > 250


def test_a_frame_whose_tensors_pass_by_bands():
    """Two convolutions at once, and a ring that holds half of what passes between them."""
    overlay = dataclasses.replace(BANDED, engines=frozenset({Engine.CONVOLUTION}))
    assert whole_frame(banded(), overlay, board()).lowered.mapping.bands
    for model in ("flat", "ddr3"):
        assert compare_frame(banded(), overlay, board(), 0, model).equal


def test_a_tensor_memory_for_two_writers_is_no_rtl():
    two = dataclasses.replace(SMALL, tensor_memory_kib=16, masters=(
        *SMALL.masters, dataclasses.replace(SMALL.masters[2], name="second", port="HP3")))
    with pytest.raises(EmissionError, match="masters with role output at a tensor memory"):
        check_buildable((), two)


def with_masters(overlay, name, width_bits, count):
    """Every master `width_bits` wide on a port of its own, `count` of input and of output, and
    one that fetches the descriptors."""
    on, masters = load_board(name), []
    ports = [port.name for port in on.ports if width_bits in port.widths_bits]
    fetch = dataclasses.replace(overlay.masters[0], name="fetch", role=Role.FETCH)
    for master in (*overlay.masters, fetch):
        copies = count if master.role in (Role.INPUT, Role.OUTPUT) else 1
        for index in range(copies):
            port = ports[len(masters) % len(ports)]
            masters.append(dataclasses.replace(
                master, name=f"{master.name}_{index}", port=port, width_bits=width_bits))
    return dataclasses.replace(overlay, masters=tuple(masters), fetch=Fetch.DRAM), on


@pytest.mark.parametrize(("name", "width_bits", "count", "model"), [
    ("pynq-z1", 32, 1, "flat"), ("ultra96", 128, 2, "ddr3")])
def test_narrow_wide_and_several_masters(name, width_bits, count, model):
    """Beats in halves and in pairs, runs that begin in the upper half, two writers of INPUT;
    units that wait for their descriptors."""
    small = dataclasses.replace(SMALL, engines=frozenset({Engine.LOOKUP}))
    overlay, on = with_masters(small, name, width_bits, count)
    found = compare_tiles(90, 0, overlay, on, model)
    assert found.equal and found.operations_compared > 350


@pytest.mark.long
@pytest.mark.parametrize(("name", "width_bits", "count", "model"), [
    ("pynq-z1", 32, 2, "ddr3"), ("pynq-z1", 64, 2, "flat"), ("ultra96", 128, 1, "flat"),
    ("ultra96", 128, 2, "ddr3")])
def test_convolutions_behind_every_kind_of_master(name, width_bits, count, model):
    small = dataclasses.replace(SMALL, engines=frozenset({Engine.CONVOLUTION, Engine.ELEMENTWISE}))
    overlay, on = with_masters(small, name, width_bits, count)
    assert compare_tiles(180, 0, overlay, on, model).equal


def test_the_comparison_sees_a_wrong_weight_and_a_wrong_cycle():
    memory = memory_for(board(), SMALL, model="flat")
    program, image = random_tiles(SMALL, board(), 9, 8)
    bench = OverlayBench(program, SMALL)
    spoiled = image.copy()
    load_row = np.flatnonzero(program.operations[:, Column.KIND] == Opcode.LOAD)[0]
    spoiled[program.operations[load_row, Column.ADDRESS]] ^= 255
    bench.run(program, memory, spoiled)
    clean = image.copy()
    bench.run(program, memory, clean)
    assert np.count_nonzero(clean != spoiled) > 1
    operations = program.operations.copy()
    engine = np.flatnonzero(operations[:, Column.KIND] == Opcode.LOOKUP)[0]
    operations[engine, Column.DRAIN] += 1
    slower = dataclasses.replace(program, operations=operations)
    found, _ = compare_image(slower, memory, image, bench, SMALL, _no_host)
    assert found.operations_differing > 0 and found.bytes_differing == 0


@pytest.mark.parametrize(("changes", "words"), [
    ({"data_bits": 16}, "data_bits is 16, must be 8"),
    ({"weight_bits": 16}, "weight_bits is 16, must be 8"),
    ({"masters": tuple(dataclasses.replace(item, width_bits=16) for item in SMALL.masters)},
     "input.width_bits is 16, must be one of"),
    ({"masters": (SMALL.masters[0], dataclasses.replace(SMALL.masters[0], name="b"),
                  dataclasses.replace(SMALL.masters[0], name="c"), *SMALL.masters[1:])},
     "3 with role 'input', at most 2"),
])
def test_designs_that_are_not_built_are_refused(changes, words):
    program, _ = random_tiles(SMALL, board(), 9, 0)
    with pytest.raises(EmissionError, match=words):
        check_buildable(program.units, dataclasses.replace(SMALL, **changes))


def test_another_wiring_is_refused():
    program, image = random_tiles(SMALL, board(), 9, 0)
    bench = OverlayBench(program, SMALL)
    other = dataclasses.replace(program, channels=program.channels[:-1])
    with pytest.raises(ValueError, match="not those of the compiled overlay"):
        bench.run(other, memory_for(board(), SMALL, model="flat"), image)


def test_bad_arguments_end_with_two(tmp_path, capsys):
    for words in (("--programs", "-1"), ("--design", "missing.toml"), ("--json", tmp_path),
                  ("--board", "pink-z1")):
        assert cosim("validate", "rtl", *words) == 2
        assert capsys.readouterr().err


def test_the_board_is_the_one_that_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(rtl, "_compared", lambda request, overlay, on: asked.append(
        (on.name, overlay.clock_hz)) or rtl.Comparison())
    for name in ("pynq-z1", "zedboard", "ultra96"):
        assert cosim("validate", "rtl", "--board", name) in (0, 1)
    assert [name for name, _ in asked] == ["pynq-z1", "zedboard", "ultra96"]
    assert asked[2][1] != asked[0][1]  # another generator, another rate


@pytest.mark.long
def test_tiles_of_the_default_design():
    assert compare_tiles(450, 100, default_overlay(), board()).equal


@pytest.mark.long
def test_a_whole_narrow_agc_frame():
    assert compare_frame(load("agc-w16"), default_overlay(), board()).equal


@pytest.mark.long
def test_a_frame_whose_descriptors_come_from_memory():
    overlay, on = with_masters(SMALL, "pynq-z1", 64, 1)
    assert compare_frame(small_graph(), overlay, on).equal


ONE_BANK = dataclasses.replace(SMALL, input_banks=1, weight_banks=1, output_banks=1)


@pytest.mark.parametrize(("field", "value"), [
    ("input_words", 256), ("weight_words", 16), ("output_words", 64), ("accumulator_words", 16),
    ("parameter_entries", 24), ("vector_entries", 16)])
def test_tiles_fit_small_buffers(field, value):
    """Each of these is too small for many tiles; the interpreter refuses what leaves a buffer."""
    overlay = dataclasses.replace(ONE_BANK, **{field: value})
    program, image = random_tiles(overlay, board(), 45, 0)
    interpret.run(program, interpret.Machine(overlay, image, _no_host))
    with pytest.raises(interpret.InterpretError, match="of a buffer of"):
        larger, image = random_tiles(SMALL, board(), 180, 0)
        interpret.run(larger, interpret.Machine(overlay, image, _no_host))


@pytest.mark.parametrize(("field", "value"), [
    ("input_words", 1), ("weight_words", 1), ("output_words", 1),
    ("parameter_entries", 1), ("vector_entries", 1), ("table_bytes", 256)])
def test_buffers_that_hold_no_tile_are_named(field, value):
    overlay = dataclasses.replace(ONE_BANK, **{field: value})
    with pytest.raises(FieldError, match=f"{field} is {value}, too small"):
        random_tiles(overlay, board(), 45, 0)


def test_designs_that_cannot_be_wired_are_refused_in_one_line(tmp_path, capsys):
    text = (DESIGNS / "default.toml").read_text()
    master = text[text.rindex("[[masters]]"):]
    path = tmp_path / "odd.toml"
    for odd, words in (
            (text.replace("HP2", "HP7"), "HP7"),
            (text[:text.index("engines =")] + "engines = []\n" + text[text.index("fusions ="):],
             "engines is []"),
            (text.replace("width_bits = 64", "width_bits = 128"), "width_bits"),
            (text + "".join(master.replace('"output"\nrole', f'"{name}"\nrole')
                            for name in "abc"), "token channels")):
        path.write_text(odd)
        assert cosim("validate", "rtl", "--design", path, "--programs", "0", "--tiles", "9") == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1


def test_group_norms_and_their_entries():
    """Groups across planes, chunks, film, padded channels; a second program finds old entries."""
    norm = dataclasses.replace(SMALL, engines=frozenset({Engine.NORM}))
    found = compare_tiles(90, 0, norm, board())
    assert found.equal and found.operations_compared > 400


@pytest.mark.long
def test_steps_whose_operands_are_loaded_from_memory():
    graph = unicorn_graph(UnicornConfig(
        width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8,
        embedding=32, latent_rows=8, latent_cols=8, decoder_widths=(16, 8), images=4, groups=4))
    graph = dataclasses.replace(graph, steps=2)
    frame = whole_frame(graph, SMALL, board())
    program = frame.lowered.program
    assert [part.repeat for part in program.segments] == [2, 1]
    order = ARGUMENTS[Opcode.LOAD].index("order")
    loads = program.operations[:, Column.KIND] == Opcode.LOAD
    assert set(program.arguments[loads, order]) == set(WeightOrder)
    assert compare_frame(graph, SMALL, board()).equal
