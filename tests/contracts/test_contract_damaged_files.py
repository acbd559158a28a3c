"""Does every kind of file, however damaged, end in a value or in one error that a person reads?

No traceback, no hang, nothing written. Each kind has a whole sample and what reads it.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from arch_models.board import BOARDS, load_board, read_board
from arch_models.boards.rules import problems
from arch_models.builds import build_of
from arch_models.engines.base import backend_timing
from arch_models.files import parse_toml
from arch_models.nets import read_net_model
from arch_models.overlay import DESIGNS, default_overlay, load_overlay
from arch_models.resources import check
from cosim.build import build
from hw.board.measurement import (
    Measurement,
    MeasurementError,
    StepTime,
    UnitCounters,
    load_measurement,
    measurement_text,
)
from hw.interface.descriptors import pack, shell_text
from studies.cli import user_errors
from studies.energy.own_board import read_readings
from studies.energy.power_report import read_power_report
from studies.energy.rails import read_designs, read_sweep
from studies.evaluation.evaluate import evaluate, feasible
from studies.evaluation.inputs import design_of
from studies.evaluation.stored import load_evaluation
from studies.plain.records import save
from studies.plain.terminal import printable, terminal
from studies.proof.enumeration import Enumerated, load_enumerated
from studies.report import tables
from studies.report.collect import Given, collect
from studies.report.page import page_html
from studies.resources.build_check import build_toml
from studies.resources.calibrate import backend_file, choose_loops, read_report
from studies.resources.netlist import read_netlist
from studies.resources.paths import Paths
from studies.resources.vendor_reports import find_reports, read_timing, read_utilization
from studies.search.space import default_space
from studies.search.space_file import load_space
from studies.search.warm_start import earlier_designs
from studies.validate.board import load_program
from studies.validate.vta_rows import read_rows
from tests.support.command import cosim
from tests.support.damage import damaged
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import GraphError
from workloads.library import imported, load_graph, save_graph
from workloads.onnx.importer import read_calibration

DATA = Path(__file__).parents[1] / "studies" / "data"
BOARD = load_board("pynq-z1")
TINY = agc_graph(AgcConfig(width=8, blocks=1, motion_width=8, motion_max=16, motion_blocks=2,
                           keypoints=3, rows=32, cols=32))
SECONDS = 20
FEW, MANY = 40, 10_000


@dataclass(frozen=True)
class Kind:
    """A whole file's bytes, its name, and what reads it (with other whole files beside it)."""

    name: str
    content: bytes
    read: Callable[[Path], object]
    beside: tuple[tuple[str, bytes], ...] = ()


def board(path: Path) -> None:
    problems(read_board(path))
    on = load_board(path)
    check(default_overlay(), on)


def design(path: Path) -> None:
    overlay = load_overlay(path)
    check(overlay, BOARD)
    build(TINY, overlay, BOARD)


def space(path: Path) -> None:
    found = load_space(path, BOARD)
    found.sample(random.Random(0))
    found.size()


def result(path: Path) -> None:
    found = load_evaluation(path)
    console = terminal(file=io.StringIO(), width=200)
    for table in (tables.summary([found]), tables.energy(found), tables.resources(found),
                  tables.units(found), tables.layers(found)):
        console.print(table)
    design_of(found)


def csynth(path: Path) -> None:
    report = read_report(path)
    parse_toml(backend_file(report, choose_loops(report, CHOSEN)), "written")


CHOSEN = {"convolution": "convolution/VITIS_LOOP_77_1_VITIS_LOOP_79_2_VITIS_LOOP_81_3",
          "affine": "affine/VITIS_LOOP_66_3"}
SPACE = b"""[axes]
tm = [8, 16]
clock_mhz = { values = [100, 125], when = { tm = [8] } }
input_masters = [1]
[[constraints]]
product = ["tm", "tn"]
at_most = 256
"""
SEARCH = json.dumps({"front": [0, 1], "designs": [
    {"choice": {"tm": 8, "tn": 8, "fetch": "on_chip", "dsp_packing": True}},
    {"choice": {"tm": 16, "clock_mhz": 100}}]}).encode()
VTA = (Path(__file__).parents[2] / "studies/data/vta_pynq_board_ms_2019.csv").read_bytes()
RAILS = b"""design,dsp48_used,bram36_used,lut_used,f_min_MHz,f_max_MHz,vccint_nJ_per_cycle,\
vccint_intercept_mW,ddr_nJ_per_byte_fit
a,10,4,2000,20,100,0.5,40,0.2
b,20,8,4000,20,100,0.9,44,
"""
SWEEP = b"""design,pl_mhz,vccint_set_V,vccint_W,exec_ms
a,20,1.0,0.05,3
a,50,1.0,0.09,2
"""
READINGS = b"state,clock_mhz,vccint_w,ps_w,ddr_w\nwork,100,0.05,1.2,0.3\nloaded,100,0.1,1.2,0.3\n"


BACKEND = b"".join(b'[mine.add]\n' * (not index) + (
    b'%s = { value = 2, unit = "cycles", source = "a report", status = "vendor report" }\n' % name)
    for index, name in enumerate((b"fill", b"interval", b"drain")))


#: What Yosys writes of a LUT between two registers.
NETLIST = json.dumps({"modules": {"top": {
    "ports": {"clk": {"direction": "input", "bits": [2]}, "q": {"direction": "output",
                                                               "bits": [5]}},
    "cells": {name: {"type": kind, "parameters": {}, "attributes": {"src": "hw/rtl/a.py:3"},
                     "connections": pins} for name, kind, pins in (
        ("a", "FDRE", {"C": [2], "D": ["0"], "Q": [3]}),
        ("b", "LUT1", {"I0": [3], "O": [4]}),
        ("c", "FDRE", {"C": [2], "D": [4], "Q": [5]}))},
    "netnames": {name: {"hide_name": 0, "bits": [bit], "attributes": {"src": "hw/rtl/a.py:4"}}
                 for bit, name in enumerate(("clk", "x", "y", "q"), 2)}}}}, indent=1).encode()


def measurement() -> bytes:
    return measurement_text(Measurement(
        "board", "pynq-z1", "default", "0" * 64, "1" * 64, "2" * 64, 100_000_000,
        "2026-01-01T00:00:00Z", 2, True, (0.1, 0.2),
        (StepTime("fabric", (0.05, 0.06), 0, 3), StepTime("host", (0.01, 0.01), layer=2)),
        (UnitCounters("input", 10, 5, {"memory": 3}),), 100, 0, 2.5, 7)).encode()


def onnx_model() -> bytes:
    """A float convolution and what follows it, on 8 x 8 pixels."""
    draw = np.random.default_rng(1)
    weights = [numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
               for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,)))]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
         helper.make_node("Relu", ["y"], ["z"])], "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4, 8, 8))], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                             ir_version=8).SerializeToString()


def calibration() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32))
    return file.getvalue()


def shown(path: Path) -> None:
    """What `cosim report` does with a file before it writes."""
    page_html(collect([path], Given(), "", "", most_sheets=0))


def of_commands(folder: Path) -> Iterator[Kind]:
    """What the commands write and `cosim report` reads."""
    network = ("-w", "agc-w16")
    assert cosim("explore", "agc-w16", "--designs", 4, "--workers", 1, "--out", folder,
                 "--json", folder / "searched.json") == 0
    assert cosim("compare", "default", folder / "best.toml", *network, "-m", "flat",
                 "--json", folder / "compared.json") == 0
    assert cosim("what-if", *network, "--set", "tm=8,16", "--out", folder,
                 "--json", folder / "asked.json") == 0
    for name in ("searched.json", "compared.json", "asked.json"):
        yield Kind(name, (folder / name).read_bytes(), shown)


def saved(folder: Path) -> Iterator[Kind]:
    """The kinds whose samples this program writes."""
    save_graph(TINY, folder / "graph", {"seed": 0})
    text, arrays = ((folder / f"graph.{end}").read_bytes() for end in ("json", "safetensors"))

    def graph(path: Path) -> None:
        load_graph(path.with_suffix(""))

    yield Kind("graph.json", text, graph, (("graph.safetensors", arrays),))
    yield Kind("graph.safetensors", arrays, graph, (("graph.json", text),))
    item = feasible(evaluate(TINY, default_overlay(), BOARD, "flat", detail=True))
    save(folder / "result.json", "evaluation", item)
    yield Kind("result.json", (folder / "result.json").read_bytes(), result)
    codes = np.arange(40, dtype=np.int64)
    Enumerated(codes, codes + 0.5, codes + 1.5, 1.0, 2.0).save(folder / "all.npz")
    yield Kind("all.npz", (folder / "all.npz").read_bytes(), load_enumerated)
    lowered = feasible(build(TINY, default_overlay(), BOARD))
    program = lowered.program
    packed = pack(program)
    yield Kind("data/descriptors.bin", packed, lambda path: load_program(path.parents[1]),
               (("data/program.json", shell_text(program).encode()),))
    yield Kind("data/program.json", shell_text(program).encode(),
               lambda path: load_program(path.parents[1]), (("data/descriptors.bin", packed),))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return {kind.name: kind for kind in (
        Kind("board.toml", (BOARDS / "pynq_z1.toml").read_bytes(), board),
        Kind("design.toml", (DESIGNS / "default.toml").read_bytes(), design),
        Kind("space.toml", SPACE, space),
        Kind("explore.json", SEARCH, lambda path: earlier_designs([path], default_space(BOARD))),
        Kind("csynth.xml", (DATA / "csynth.xml").read_bytes(), csynth),
        Kind("backend.toml", BACKEND, lambda path: backend_timing(str(path), "add")),
        Kind("vta.csv", VTA, read_rows),
        Kind("rails.csv", RAILS, read_designs), Kind("sweep.csv", SWEEP, read_sweep),
        Kind("readings.csv", READINGS, read_readings),
        Kind("power.rpt", (DATA / "power.rpt").read_bytes(), read_power_report),
        Kind("timing.rpt", (DATA / "timing.rpt").read_bytes(), read_timing),
        Kind("utilization.rpt", (DATA / "utilization.rpt").read_bytes(), read_utilization),
        Kind("build.toml", build_toml(default_overlay(), *find_reports(DATA)).encode(),
             lambda path: build_of(replace(default_overlay(), build=str(path)))),
        Kind("network.onnx", onnx_model(), lambda path: imported(str(path))),
        Kind("calibration.npz", calibration(), read_calibration),
        Kind("measured.json", measurement(), lambda path: load_measurement(str(path))),
        Kind("netlist.json", NETLIST, lambda path: Paths(
            read_netlist(path), read_net_model()).longest()),
        *of_commands(tmp_path_factory.mktemp("results")),
        *saved(tmp_path_factory.mktemp("whole")))}


KINDS = ("board.toml", "design.toml", "space.toml", "explore.json", "csynth.xml", "backend.toml",
         "vta.csv", "rails.csv", "sweep.csv", "readings.csv", "power.rpt", "timing.rpt",
         "utilization.rpt", "build.toml", "network.onnx", "calibration.npz", "measured.json",
         "graph.json", "graph.safetensors", "result.json", "all.npz", "data/descriptors.bin",
         "data/program.json", "searched.json", "compared.json", "asked.json", "netlist.json")


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def laid(kind: Kind, folder: Path, content: bytes) -> Path:
    """A folder of its own with the file and those beside it: some readers remember names."""
    for name, whole in (*kind.beside, (kind.name, content)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(whole)
    return folder / kind.name


def read(kind: Kind, folder: Path, content: bytes) -> str:
    """The error a damaged file ends in, empty for none; anything else is an exception here."""
    path = laid(kind, folder, content)
    try:
        with limited(SECONDS):
            kind.read(path)
        said = ""
    except (*user_errors(), MeasurementError) as error:
        said = str(error)
        assert said
    files = [item for item in folder.rglob("*") if item.is_file()]
    assert len(files) == 1 + len(kind.beside), f"left behind: {files}"
    shutil.rmtree(folder)
    return said


def fuzzed(kind: Kind, folder: Path, seed: int, count: int) -> None:
    refused = 0
    for number in range(count):
        draw = random.Random(f"{kind.name} {seed} {number}")
        content = damaged(kind.content, draw)
        try:
            said = read(kind, folder / str(number), content)
        except Exception as error:
            error.add_note(f"{kind.name}, seed {seed}, number {number}")
            raise
        assert len(printable(said)) < 20_000, f"{kind.name} {number}: {said[:300]}"
        refused += bool(said)
    assert refused > count // 20


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_taken(kinds: dict[str, Kind], tmp_path: Path, name: str) -> None:
    assert read(kinds[name], tmp_path / "whole", kinds[name].content) == ""


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_a_value_or_one_error(kinds: dict[str, Kind], tmp_path: Path,
                                                name: str) -> None:
    fuzzed(kinds[name], tmp_path, 0, FEW)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_ten_thousand_damaged_files_are_values_or_one_error(kinds: dict[str, Kind],
                                                            tmp_path: Path, name: str) -> None:
    fuzzed(kinds[name], tmp_path, 1, MANY // len(KINDS))


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    model = onnx.load_from_string(onnx_model())
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    with pytest.raises(GraphError, match="Conv 'conv0': 'w' holds NaN or infinity"):
        imported(str(path))


@pytest.mark.parametrize("value", ("", '"x"', "0.000ns", "-5ns", "nanns"))
def test_a_path_without_a_requirement_is_left_out(tmp_path: Path, value: str) -> None:
    path = tmp_path / "timing.rpt"
    text = (DATA / "timing.rpt").read_text()
    path.write_text(re.sub(r"(Requirement: +)\S+", rf"\g<1>{value}", text, count=1))
    assert len(read_timing(path).paths) == len(read_timing(DATA / "timing.rpt").paths) - 1
