"""Has every emitted interface the signals, directions and widths of its protocol, and is the
Verilog clean for a second tool?

The lists are those of the AXI specification (ARM IHI 0022) for what an interface here has, and of
the bus definitions that the vendor's packager finds by name (aximm_rtl, interrupt, clock, reset).
"""

from __future__ import annotations

import dataclasses
import re
import subprocess

import pytest

from arch_models.overlay import Engine, default_overlay
from hw.rtl.ip.axi_shell import AxiShell
from hw.rtl.verilog import ip_verilog, yosys_path
from hw.rtl_sim.tiles import random_tiles
from tests.support.small_frames import board

#: Small buffers: Verilog writes every word's first value down.
BASE = dataclasses.replace(default_overlay(), input_words=256, output_words=256, weight_words=64,
                           accumulator_words=64, parameter_entries=64, table_bytes=256)
#: Of an AXI4 master: signal -> (driven by the master?, bits; None: the width of its data).
READS = {"ARADDR": (True, 32), "ARLEN": (True, 8), "ARSIZE": (True, 3), "ARBURST": (True, 2),
         "ARCACHE": (True, 4), "ARPROT": (True, 3), "ARVALID": (True, 1), "ARREADY": (False, 1),
         "RDATA": (False, None), "RRESP": (False, 2), "RLAST": (False, 1), "RVALID": (False, 1),
         "RREADY": (True, 1)}
WRITES = {"AWADDR": (True, 32), "AWLEN": (True, 8), "AWSIZE": (True, 3), "AWBURST": (True, 2),
          "AWCACHE": (True, 4), "AWPROT": (True, 3), "AWVALID": (True, 1), "AWREADY": (False, 1),
          "WDATA": (True, None), "WSTRB": (True, None), "WLAST": (True, 1), "WVALID": (True, 1),
          "WREADY": (False, 1), "BRESP": (False, 2), "BVALID": (False, 1), "BREADY": (True, 1)}
#: Of an AXI4-Lite slave: signal -> driven by the slave?
LITE = {"AWADDR": False, "AWVALID": False, "AWREADY": True, "WDATA": False, "WSTRB": False,
        "WVALID": False, "WREADY": True, "BRESP": True, "BVALID": True, "BREADY": False,
        "ARADDR": False, "ARVALID": False, "ARREADY": True, "RDATA": True, "RRESP": True,
        "RVALID": True, "RREADY": False}
PORT = re.compile(r"^  (input|output)(?: reg)?(?: wire)? (?:\[(\d+):0\] )?(\w+) *;", re.MULTILINE)


def emit(width: int) -> str:
    masters = tuple(dataclasses.replace(item, width_bits=width) for item in BASE.masters)
    overlay = dataclasses.replace(BASE, tm=8, tn=8, engines=frozenset({Engine.UPSAMPLE}),
                                  masters=masters)
    program, _ = random_tiles(overlay, board(), 3, 0)
    return ip_verilog(AxiShell(program, overlay))


@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_port_belongs_to_an_interface_and_has_its_direction(width):
    text = emit(width)
    top = text[text.index("module overlay("):]
    left = {name: (way == "output", int(high or 0) + 1)
            for way, high, name in PORT.findall(top[: top.index("endmodule")])}
    assert left.pop("ap_clk") == (False, 1) and left.pop("ap_rst_n") == (False, 1)
    assert left.pop("interrupt") == (True, 1)
    for name, drives in LITE.items():
        assert left.pop(f"s_axi_control_{name}")[0] is drives, name
    masters = {name.rpartition("_")[0] for name in left}
    assert len(masters) == 4  # descriptors, input, weight, output
    for master in masters:
        signals = READS if f"{master}_ARADDR" in left else WRITES
        data = 64 if master.endswith("descriptors") else width
        for name, (drives, bits) in signals.items():
            wide = bits or (data // 8 if name == "WSTRB" else data)
            assert left.pop(f"{master}_{name}") == (drives, wide), (master, name)
    assert not left


def test_a_second_tool_finds_no_fault(tmp_path):
    """Yosys: no missing module, no undriven or twice driven net, no loop."""
    (tmp_path / "overlay.v").write_text(emit(64))
    done = subprocess.run(
        [yosys_path(), "-q", "-p", "read_verilog overlay.v; hierarchy -check -top overlay; proc; "
         "check -assert"], cwd=tmp_path, capture_output=True, text=True,
        check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
