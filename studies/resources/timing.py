"""Longest paths of a part of the RTL, of a whole design or of a netlist: `cosim study paths`.

It synthesizes with Yosys (the extra `rtl`) and asks `paths`; it predicts no design's clock.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from amaranth.hdl import UnusedElaboratable

from arch_models.nets import read_net_model
from arch_models.overlay import load_overlay
from studies.plain.errors import UserError, unknown
from studies.resources.netlist import Netlist, read_netlist, synthesized
from studies.resources.paths import Hop, Paths, TimingPath
from studies.resources.resource_grid import PARTS, Sites, points, top_of, whole

#: What a result of synthesis, and no parameter, is.
_COUNTS = frozenset({"part", "dsp", "bram36", "lut", "ff"})


@dataclass(frozen=True)
class Request:
    """`subject`: a part (with `name=value` parameters), a design's .toml or a netlist's .json file.

    `share`: of the fabric's LUTs that the whole design uses, 0 to 1. `registers`: leave out paths
    from and to ports. `count`: so many paths.
    """

    subject: str
    parameters: tuple[str, ...] = ()
    share: float = 0.5
    registers: bool = False
    count: int = 10


@dataclass(frozen=True)
class Longest:
    """The longest paths of a netlist, longest first, and what finding them took."""

    paths: tuple[TimingPath, ...]
    cells: int
    synthesis_s: float
    analysis_s: float


def row_of(part: str, given: Sequence[str]) -> Sites:
    """A part with the parameters of the first row of its grid, but those given as `name=value`."""
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    known = {item.name: item for item in fields(Sites) if item.name not in _COUNTS}
    values: dict[str, int | str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise unknown("parameter", name, list(known))
        if name != "form" and not value.isdigit():
            raise UserError(f"{name}: {value!r} must be a whole number, as in {name}=8")
        values[name] = value if name == "form" else int(value)
    return replace(points(part)[0], **values)  # type: ignore[arg-type]


def netlist_of(part: str, given: Sequence[str]) -> Netlist:
    """Synthesize a part with its parameters, or the design of a file with all that it has; or
    read a netlist that Yosys wrote (`write_json`, module `top`)."""
    warnings.simplefilter("ignore", UnusedElaboratable)
    if part.endswith(".json"):
        return read_netlist(Path(part))
    if part.endswith(".toml"):
        return synthesized(*whole(load_overlay(part)))
    return synthesized(*top_of(row_of(part, given)))


def path_lines(path: TimingPath, hops: bool = True) -> list[str]:
    """A path as text: its sum, then its hops, one a line."""
    found = [f"{path.period_ns:6.2f} ns {path.mhz:4.0f} MHz = {path.logic_ns:5.2f} logic "
             f"+ {path.nets_ns:5.2f} nets, {len(path.hops) - 1} hops: {path.start} -> {path.end}"]
    return found + [_hop_line(hop) for hop in path.hops] if hops else found


def _hop_line(hop: Hop) -> str:
    net = (f"net {hop.net_ns:5.2f} {hop.net.value:8}x{hop.fan_out:<5}" if hop.fan_out else " " * 24)
    name = "" if hop.name.startswith("$") else hop.name
    return f"      {net} {hop.cell:18} {hop.logic_ns:5.2f}  {name:36} {hop.source}".rstrip()


def run(request: Request) -> Longest:
    """Synthesize and look for the longest paths; `UserError` without such a part or Yosys."""
    began = time.monotonic()
    try:
        netlist = netlist_of(request.subject, request.parameters)
    except RuntimeError as error:
        raise UserError(str(error)) from error
    made = time.monotonic()
    if request.registers:
        netlist = replace(netlist, inputs={}, outputs={})
    paths = Paths(netlist, read_net_model(), request.share).longest(request.count)
    return Longest(tuple(paths), len(netlist.cells), made - began, time.monotonic() - made)


def told(request: Request, found: Longest, hops: int = 2) -> str:
    """The paths as text; of the first `hops`, every hop."""
    lines = [line for index, path in enumerate(found.paths)
             for line in path_lines(path, index < hops)]
    return "\n".join([*lines, f"{found.cells} cells; synthesis {found.synthesis_s:.0f} s, analysis "
                      f"{found.analysis_s:.1f} s; nets for {request.share:.0%} of the fabric"])
