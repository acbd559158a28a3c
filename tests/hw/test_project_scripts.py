"""Are the scripts for the vendor's tools right in all that can be seen without the tools?

Tcl runs in tclsh with every vendor command written down instead. That the vendor's commands do
what is meant stays unchecked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.overlay import Fusion, default_overlay
from hw.board.seal import SealError, build_report
from hw.interface.configuration import configure
from hw.interface.registers import CONTROL_ADDRESS, INTERRUPTS_ADDRESS
from hw.project import scripts
from hw.project.scripts import Frame, markdown, ports_of, template, texts
from hw.rtl.ip.axi_shell import AxiShell
from tests.support.small_frames import board, lowered_frame

OVERLAY = default_overlay()
MOCK = Path(__file__).parent / "vivado.tcl"
MET = {"CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": "100.000000", "PROGRESS": "100%",
       "STATUS": "write_bitstream Complete!", "STATS.WNS": "0.120", "STATS.TNS": "0.000",
       "STATS.WHS": "0.031", "STATS.THS": "0.000", "STATS.FAILED_NETS": "0",
       "NAME": "s_axi_control"}
#: Pins of the processor block (Zynq-7000) that a design may connect, from its product guide.
PROCESSOR = {"FCLK_CLK0", "FCLK_RESET0_N", "M_AXI_GP0_ACLK", "IRQ_F2P",
             *(f"S_AXI_{port}{pin}" for port in ("HP0", "HP1", "HP2", "HP3", "ACP")
               for pin in ("", "_ACLK"))}
AXI = ("AWADDR", "ARADDR")


@pytest.fixture(scope="module")
def program():
    return lowered_frame(OVERLAY).program


@pytest.fixture(scope="module", params=[True, False], ids=["rtl", "hls"])
def backend(request):
    return request.param


@pytest.fixture
def folder(tmp_path, program, backend):
    """A project's scripts, and the files that the tools would have left."""
    ports = ports_of(program, configure(program, OVERLAY), OVERLAY)
    for name, text in texts("net", OVERLAY, board(), ports, backend).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name in ("vivado/vivado.runs/impl_1/system_wrapper.bit",
                 "vivado/vivado.gen/sources_1/bd/system/hw_handoff/system.hwh",
                 "rtl_ip/component.xml", "hls/solution/impl/ip/component.xml", "overlay.bit"):
        path = tmp_path / "build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def run(folder: Path, script: str, answers: dict[str, str] | None = None, *more: str):
    """Exit code, error text and the vendor commands, each a list of its words."""
    values = {**MET, **(answers or {})}
    given = " ".join(f"{{{name}}} {{{value}}}" for name, value in values.items())
    done = subprocess.run(["tclsh", MOCK, folder / script, folder / "log", given, *more],
                          cwd=folder / "build", capture_output=True, text=True, check=False)
    text = (folder / "log").read_text().splitlines()
    return done.returncode, done.stderr, text


pytestmark = pytest.mark.skipif(shutil.which("tclsh") is None,
                                reason="no tclsh: the Tcl scripts are not run")


def test_every_script_runs_to_its_end(folder, backend):
    names = ["vitis/hls.tcl", "vivado/block_design.tcl"]
    for name in (*names, *(["vivado/package_rtl.tcl"] if backend else [])):
        code, error, log = run(folder, name)
        assert (code, error) == (0, ""), name
        assert any(board().part.name in line for line in log), name


def test_what_is_connected_exists(folder, program, backend):
    """Every pin is one of the IP's, of the processor's or of a known vendor block."""
    shell = AxiShell(program, OVERLAY)
    buses = {name.rpartition("_")[0] for name in shell.ports if name.endswith(AXI)}
    known = {
        "overlay_0": {*shell.ports, *buses}, "ps": PROCESSOR,
        "reset_0": {"slowest_sync_clk", "ext_reset_in", "peripheral_aresetn"},
        "axi_intc_0": {"intr", "irq", "s_axi"}}
    _, _, log = run(folder, "vivado/block_design.tcl")
    pins = [line.split()[-1] for line in log
            if line.startswith(("get_bd_pins", "get_bd_intf_pins"))]
    assert len(pins) > 20
    for pin in pins:
        cell, _, name = pin.partition("/")
        if cell.startswith("join_"):
            assert re.fullmatch(r"aclk|aresetn|M00_AXI|S\d\d_AXI", name)
        else:
            assert name in known[cell], pin
    # Every master, clock, reset and interrupt of the IP is connected.
    needed = (*buses, "ap_clk", "ap_rst_n", "interrupt")
    assert {f"overlay_0/{name}" for name in needed} <= set(pins)


def test_masters_reach_their_ports_and_slaves_their_addresses(folder):
    _, _, log = run(folder, "vivado/block_design.tcl")
    for master in OVERLAY.masters:
        join = f"join_{master.port.lower()}"
        place = next(line.split()[-1] for line in log
                     if line.startswith(f"connect_bd_intf_net overlay_0/m_axi_port_{master.name} "))
        assert place.startswith(f"{join}/S")
        assert f"connect_bd_intf_net {join}/M00_AXI ps/S_AXI_{master.port}" in log
        assert any(f"CONFIG.PCW_USE_S_AXI_{master.port} 1" in line for line in log)
        assert any(f"CONFIG.PCW_S_AXI_{master.port}_DATA_WIDTH 64" in line for line in log)
    for slave, base in (("overlay_0/s_axi_control", CONTROL_ADDRESS),
                        ("axi_intc_0/s_axi", INTERRUPTS_ADDRESS)):
        line = next(line for line in log if line.startswith("assign_bd_address")
                    and line.endswith(f"{slave}/*"))
        assert f"-offset {base:#010x} -range 0x10000" in line


@pytest.mark.parametrize(("name", "megahertz"), (
    ("pynq-z1", "50.000000"), ("zedboard", "33.333333"), ("zc702", "33.333333")))
def test_the_block_knows_the_oscillator_of_the_board(folder, program, backend, name, megahertz):
    ports = ports_of(program, configure(program, OVERLAY), OVERLAY)
    found = texts("net", OVERLAY, load_board(name), ports, backend)
    for path in ("vivado/design.tcl", "vivado/block_design.tcl"):
        (folder / path).write_text(found[path])
    code, _, log = run(folder, "vivado/block_design.tcl")
    assert code == 0
    options = next(line for line in log if line.startswith("set_property")
                   and "PCW_FPGA0_PERIPHERAL_FREQMHZ" in line)
    assert f"CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ {megahertz}" in options
    assert f"oscillator has {float(megahertz):.4g} MHz" in found["README.md"]


def test_an_oscillator_that_is_not_known_is_left_to_the_tool_and_told(folder, program, backend):
    ports = ports_of(program, configure(program, OVERLAY), OVERLAY)
    other = replace(board(), clocks=replace(board().clocks, crystal_hz=0))
    found = texts("net", OVERLAY, other, ports, backend)
    (folder / "vivado/design.tcl").write_text(found["vivado/design.tcl"])
    code, _, log = run(folder, "vivado/block_design.tcl")
    assert code == 0 and not any("PCW_CRYSTAL" in line for line in log)
    assert "is not in the board file" in found["README.md"]


@pytest.mark.parametrize(("answers", "message"), [
    ({"STATS.WNS": "-0.001"}, "timing is missed at 100.000000 MHz: worst slack -0.001 ns"),
    ({"STATS.WHS": "-0.2"}, "timing is missed"),
    ({"STATS.FAILED_NETS": "3"}, "3 nets not routed"),
    ({"STATS.WNS": ""}, "does not say its STATS.WNS"),
    ({"PROGRESS": "70%", "STATUS": "route_design ERROR"}, "ended at route_design ERROR"),
    ({"CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": "96.969"}, "the processor makes 96.969 MHz")])
def test_a_build_that_is_not_well_leaves_no_bitstream(folder, answers, message):
    code, error, _ = run(folder, "vivado/block_design.tcl", answers)
    assert code == 1
    assert message in error
    assert not (folder / "build/overlay.bit").exists()


def test_a_good_build_leaves_bitstream_and_figures_that_seal_takes(folder, backend):
    kind = "rtl" if backend else "hls"
    code, _, _ = run(folder, "vivado/block_design.tcl", None, kind)
    assert code == 0
    assert (folder / "build/overlay.bit").read_text().endswith("system_wrapper.bit")
    assert (folder / "build/overlay.hwh").exists()
    found = build_report(str(folder / "build/overlay.bit"))
    assert found == {"clock_mhz": 100.0, "wns_ns": 0.12, "tns_ns": 0.0, "whs_ns": 0.031,
                     "ths_ns": 0.0, "failed_nets": 0}


@pytest.mark.parametrize(("change", "message"), [
    ({"wns_ns": -0.1}, "timing is missed"), ({"whs_ns": float("nan")}, "timing is missed"),
    ({"failed_nets": 1}, "1 nets not routed"), ({"wns_ns": None}, "does not say"),
    (None, "does not say")])
def test_seal_refuses_a_build_that_misses_timing(tmp_path, change, message):
    good = {"wns_ns": 0.1, "whs_ns": 0.1, "failed_nets": 0}
    if change is not None:
        (tmp_path / "report.json").write_text(json.dumps({**good, **change}))
    with pytest.raises(SealError, match=message):
        build_report(str(tmp_path / "overlay.bit"))


def test_a_backend_that_is_not_there_is_refused(folder):
    code, error, _ = run(folder, "vivado/block_design.tcl", None, "vhdl")
    assert (code, error) == (1, "error: backend vhdl: must be hls or rtl\n")
    shutil.rmtree(folder / "build/rtl_ip")
    code, error, _ = run(folder, "vivado/block_design.tcl", None, "rtl")
    assert code == 1 and "run make ip BACKEND=rtl first" in error


def test_the_ip_that_a_bitstream_needs_is_made_first(folder, backend):
    """`make bitstream` alone does what the README says, with either backend."""
    for name in ("rtl/overlay.v", "sources/overlay.cpp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    shutil.rmtree(folder / "build")
    done = subprocess.run(["make", "-n", "bitstream"], cwd=folder, capture_output=True, text=True,
                          check=True, env={"PATH": os.environ["PATH"]})
    scripts_run = re.findall(r"(\w+)\.tcl", done.stdout)
    assert scripts_run == ["package_rtl" if backend else "hls", "block_design"]
    assert f"-tclargs {'rtl' if backend else 'hls'}" in done.stdout
    text = (folder / "README.md").read_text()
    commands = re.findall(r"`make (\w+)`", text)
    assert commands[:4] == ["csim", "ip", "bitstream", "host"]
    assert f"`build/{'rtl_ip' if backend else 'hls/solution/impl/ip'}/component.xml`" in text


def test_the_readme_says_what_this_design_has(program, backend):
    ports = ports_of(program, configure(program, OVERLAY), OVERLAY)
    def told(**changes: object) -> str:
        return texts("net", replace(OVERLAY, **changes), board(), ports, backend,
                     Frame("Noise.", 12.345, 3 << 20))["README.md"]

    plain = told(columns=1, fusions=frozenset(), tensor_memory_kib=0)
    assert f"\n{OVERLAY.tm} x {OVERLAY.tn} int8" in plain
    assert "SKIP" not in plain and "block RAM" not in plain
    assert "about 12.35 ms (predicted)" in plain and "buffer of 3 MiB" in plain
    full = told(columns=2, fusions=frozenset({Fusion.ADD}), tensor_memory_kib=64)
    assert f"\n{OVERLAY.tm} x {OVERLAY.tn} x 2 int8" in full and "SKIP" in full
    assert "Tensors at 0x80000000 and above" in full and "64 KiB of block RAM" in full


def test_constraints_name_ports_that_exist(folder, program, backend):
    said = "vivado/overlay_ooc.xdc" in (folder / "README.md").read_text()
    assert said == backend == (folder / "vivado/overlay_ooc.xdc").exists()
    if not backend:
        return
    text = (folder / "vivado/overlay_ooc.xdc").read_text()
    assert set(re.findall(r"get_ports (\w+)", text)) == {"ap_clk", "ap_rst_n", "interrupt"}
    assert {"ap_clk", "ap_rst_n", "interrupt"} <= set(AxiShell(program, OVERLAY).ports)
    assert "-period 10.000 " in text


def test_templates_take_exactly_their_values(monkeypatch, tmp_path):
    monkeypatch.setattr(scripts, "TEMPLATES", tmp_path)
    (tmp_path / "a").write_text("x @ONE@ $y user@host")
    assert template("a", ONE="@TWO@") == "x @TWO@ $y user@host"
    for values in ({}, {"ONE": "1", "TWO": "2"}):
        with pytest.raises(ValueError, match="a: has"):
            template("a", **values)


def test_prose_is_escaped_for_markdown():
    assert markdown("Digilent PYNQ-Z1 (XC7Z020)") == "Digilent PYNQ-Z1 (XC7Z020)"
    assert markdown("<b>`a`|[x](y)") == r"&lt;b&gt;\`a\`\|\[x\](y)"


def test_seal_is_a_script(tmp_path):
    done = subprocess.run([sys.executable, scripts.BOARD / "seal.py", tmp_path / "none.bit"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("usage: seal.py")
