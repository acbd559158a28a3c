"""A synthesized netlist as values: cells with their pins, and names and source lines of nets.

It synthesizes with Yosys and reads its JSON; it knows no delay.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Signal

from arch_models.fields import shortened
from arch_models.files import MOST_ARRAYS, parse_json, read_text
from hw.rtl.verilog import yosys_path
from studies.plain.errors import UserError

#: What a net between two LUTs takes, in ps: the mapper then saves levels as the vendor's tool does.
#: Without it (300 ps) public cores came out a tenth slower, in as many cells.
WIRE_PS = 700
#: The address of a write is undefined while nothing is written. A memory whose reader takes a
#: writer's port then has three ports, unless the writer's address is defined first (`opt_expr`).
SCRIPT = (f"scratchpad -set synth_xilinx.abc9.W {WIRE_PS}; "
          "read_rtlil top.il; hierarchy -top top; proc; opt_expr -mux_undef; "
          "synth_xilinx -family xc7 -top top -flatten -noiopad; write_json netlist.json")


@dataclass(frozen=True)
class Cell:
    """One primitive: its pins by port, a net's number for each bit, -1 where it is constant."""

    name: str
    kind: str
    parameters: Mapping[str, str]
    pins: Mapping[str, tuple[int, ...]]
    source: str


@dataclass(frozen=True)
class Netlist:
    """Cells, and ports of the top with the nets of their bits.

    `names`: a net's name as the RTL has it, with its bit; `sources`: where the RTL declares it.
    """

    cells: tuple[Cell, ...]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    names: Mapping[int, str]
    sources: Mapping[int, str]


def synthesized(top: Any, ports: Sequence[Signal], limit_s: float | None = None) -> Netlist:
    """The netlist of a module; RuntimeError if Yosys fails, TimeoutExpired after `limit_s`."""
    os.environ.setdefault("YOSYS", yosys_path())
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "top.il").write_text(rtlil.convert(top, name="top", ports=list(ports)))
        done = subprocess.run([yosys_path(), "-q", "-p", SCRIPT], cwd=place, text=True,
                              capture_output=True, check=False, timeout=limit_s)
        if done.returncode:
            raise RuntimeError(f"yosys failed: {done.stderr[-1000:]}")
        return read_netlist(Path(place) / "netlist.json")


def read_netlist(path: Path, top: str = "top") -> Netlist:
    """The netlist of a file that Yosys wrote (`write_json`) after synthesis.

    `UserError` for any other file.
    """
    document = parse_json(read_text(path, MOST_ARRAYS), str(path))
    try:
        return _netlist(document["modules"][top])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: is no netlist of a module {top!r} that Yosys wrote with "
                        f"write_json: {shortened(said)}") from None


def _netlist(module: Any) -> Netlist:
    cells = tuple(
        Cell(name, cell["type"], {key: str(value) for key, value in cell["parameters"].items()},
             {port: _bits(bits) for port, bits in cell["connections"].items()},
             _source(cell["attributes"]))
        for name, cell in module["cells"].items() if not cell["type"].startswith("$"))
    ports = module["ports"]
    names, sources = _names(module["netnames"])
    return Netlist(
        cells, {name: _bits(port["bits"]) for name, port in ports.items()
                if port["direction"] == "input"},
        {name: _bits(port["bits"]) for name, port in ports.items()
         if port["direction"] == "output"}, names, sources)


def _bits(bits: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(bit if isinstance(bit, int) else -1 for bit in bits)


def _source(attributes: Mapping[str, str]) -> str:
    """The line of Python that an object comes from, below the repository; "" if none is kept."""
    for part in attributes.get("src", "").split("|"):
        if found := re.search(r"(?:hw|amaranth)/[\w/]*\.py:\d+", part):
            return found.group()
    return ""


def _names(netnames: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, str]]:
    """Of all names of a net: one that the RTL gave rather than Yosys, then the longest path."""
    names: dict[int, str] = {}
    sources: dict[int, str] = {}
    ranks: dict[int, tuple[bool, bool, int]] = {}
    for name, item in netnames.items():
        rank = (not item["hide_name"], not name.startswith("$"), name.count("."))
        source = _source(item["attributes"])
        wide = len(item["bits"]) > 1
        for index, bit in enumerate(item["bits"]):
            if isinstance(bit, int) and rank > ranks.get(bit, (False, False, -1)):
                ranks[bit] = rank
                names[bit] = f"{name}[{index}]" if wide else name
                sources[bit] = source
    return names, sources
