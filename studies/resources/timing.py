"""Longest paths of a part of the RTL, or of a whole design: `python -m studies.resources.timing`.

It synthesizes with Yosys (the extra `rtl`) and asks `paths`; it predicts no design's clock.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from amaranth.hdl import UnusedElaboratable

from arch_models.fields import FieldError
from arch_models.nets import read_net_model
from arch_models.overlay import load_overlay
from studies.plain.errors import UserError, unknown
from studies.resources.netlist import Netlist, read_netlist, synthesized
from studies.resources.paths import Hop, Paths, TimingPath
from studies.resources.resource_grid import PARTS, Sites, points, top_of, whole

#: What a result of synthesis, and no parameter, is.
_COUNTS = frozenset({"part", "dsp", "bram36", "lut", "ff"})


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("part", help="a design's .toml file, a netlist's .json file, or one of: "
                        + ", ".join(PARTS))
    parser.add_argument("parameters", nargs="*", help="name=value, as the columns of the grid")
    parser.add_argument("--share", type=float, default=0.5,
                        help="of the fabric's LUTs that the whole design uses (default 0.5)")
    parser.add_argument("--registers", action="store_true",
                        help="leave out paths from and to ports")
    parser.add_argument("--count", type=int, default=10, help="so many paths (default 10)")
    parser.add_argument("--hops", type=int, default=2, help="of so many, all hops (default 2)")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        netlist = netlist_of(given.part, given.parameters)
    except (UserError, FieldError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = time.monotonic()
    if given.registers:
        netlist = replace(netlist, inputs={}, outputs={})
    for index, path in enumerate(
            Paths(netlist, read_net_model(), given.share).longest(given.count)):
        print("\n".join(path_lines(path, index < given.hops)))
    print(f"{len(netlist.cells)} cells; synthesis {made - began:.0f} s, "
          f"analysis {time.monotonic() - made:.1f} s; nets for {given.share:.0%} of the fabric")
    return 0


if __name__ == "__main__":
    sys.exit(main())
