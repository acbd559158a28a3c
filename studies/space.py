"""The design space as data: axes with legal values, conditions between axes, and the overlay a
choice stands for. It does not sample or evaluate; see `search`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError, check_keys, read_toml
from arch_models.overlay import (
    Engine,
    Fetch,
    Fusion,
    Layout,
    Master,
    Overlay,
    Role,
    Start,
)
from arch_models.resources import check
from studies.errors import UserError

Value = bool | int | str
Choice = dict[str, Value]

#: Engines whose place, fabric or ARM, is a choice. Convolution stays in fabric: on the ARM one
#: frame would take most of a minute, at the host costs of the board file.
MOVABLE = (Engine.ELEMENTWISE, Engine.LOOKUP, Engine.POOL, Engine.UPSAMPLE, Engine.SOFTMAX,
           Engine.GRID_SAMPLE)
MEGAHERTZ = 1_000_000
#: The array's three extents share the DSPs.
COUPLINGS = (("tm", "tn", "columns"),)


@dataclass(frozen=True, slots=True)
class Condition:
    """An axis exists only while another axis has one of these values."""

    axis: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One decision and its legal values, in order."""

    name: str
    values: tuple[Value, ...]
    when: Condition | None = None


@dataclass(frozen=True)
class Space:
    """Axes in order; a condition may only name an axis that stands before it.

    `couplings`: groups of axes that share a resource, so that the way from one good design to the
    next changes two at once (an array of 24 x 8 and one of 8 x 24 take the same DSPs).
    """

    axes: tuple[Axis, ...]
    couplings: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, Axis] = {}
        for axis in self.axes:
            if not axis.values or len(set(axis.values)) != len(axis.values):
                raise UserError(f"axis {axis.name!r}: {axis.values}, must be different values, "
                                "at least one")
            if axis.when and axis.when.axis not in seen:
                raise UserError(f"axis {axis.name!r}: its condition names {axis.when.axis!r}, "
                                "which must stand before it")
            seen[axis.name] = axis

    def axis(self, name: str) -> Axis:
        """The axis of that name; KeyError if there is none."""
        return next(axis for axis in self.axes if axis.name == name)

    def active(self, axis: Axis, choice: Mapping[str, Value]) -> bool:
        """Does this axis exist, given what was chosen so far?"""
        return axis.when is None or choice.get(axis.when.axis) in axis.when.values

    def canonical(self, choice: Mapping[str, Value]) -> Choice:
        """The choice without axes that do not exist in it; equal designs become equal.

        Raises `UserError` when a value is missing or not legal.
        """
        kept: Choice = {}
        for axis in self.axes:
            if not self.active(axis, kept):
                continue
            if axis.name not in choice or choice[axis.name] not in axis.values:
                raise UserError(f"axis {axis.name!r}: {choice.get(axis.name)!r}, must be one of "
                                f"{axis.values}")
            kept[axis.name] = choice[axis.name]
        return kept

    def size(self) -> int:
        """How many different designs there are (conditions counted, infeasible ones included)."""
        total = 1
        for axis in self.axes:
            if axis.when is not None:
                continue
            children = [child for child in self.axes
                        if child.when is not None and child.when.axis == axis.name]
            ways = 0
            for value in axis.values:
                product = 1
                for child in children:
                    if child.when is not None and value in child.when.values:
                        product *= len(child.values)
                ways += product
            total *= ways
        return total

    def neighbours(self, choice: Mapping[str, Value]) -> list[tuple[str, Choice]]:
        """Every choice that differs in one axis, with that axis' name.

        Axes that come into being by the change take their last value.
        """
        found = []
        for axis in self.axes:
            if axis.name not in choice:
                continue
            for value in axis.values:
                if value != choice[axis.name]:
                    changed: Choice = dict(choice) | {axis.name: value}
                    for other in self.axes:
                        changed.setdefault(other.name, other.values[-1])
                    found.append((axis.name, self.canonical(changed)))
        return found

    def coupled(self, choice: Mapping[str, Value]) -> list[Choice]:
        """Every choice that differs in two axes of a coupling."""
        found = []
        for names in self.couplings:
            for first, second in combinations([name for name in names if name in choice], 2):
                found += [self.canonical({**choice, first: one, second: other})
                          for one in self.axis(first).values if one != choice[first]
                          for other in self.axis(second).values if other != choice[second]]
        return found

    def sample(self, generator: random.Random) -> Choice:
        """One choice, each existing axis drawn alike."""
        choice: Choice = {}
        for axis in self.axes:
            if self.active(axis, choice):
                choice[axis.name] = generator.choice(axis.values)
        return choice


def default_space(board: Board) -> Space:
    """All the axes, with the ports and clocks that the board has."""
    ports = tuple(port.name for port in board.ports)
    clocks = tuple(mhz for mhz in (100, 111, 125, 142, 150, 166, 187, 200)
                   if board.clocks.minimum_hz <= mhz * MEGAHERTZ <= board.clocks.usual_max_hz)
    switch = (False, True)
    axes = [
        Axis("tm", (8, 16, 24, 32, 40, 48, 64)),
        Axis("tn", (8, 16, 24, 32)),
        Axis("columns", (1, 2, 3, 4)),
        Axis("dsp_packing", switch),
        Axis("requantize_cycles", (4, 8, 16)),
        Axis("clock_mhz", clocks),
        Axis("input_words", (1024, 2048, 4096, 8192, 16384)),
        Axis("weight_words", (128, 256, 512, 1024, 2048)),
        Axis("output_words", (512, 1024, 2048, 4096, 8192)),
        Axis("accumulator_words", (256, 512, 1024, 2048, 4096)),
        Axis("input_banks", (1, 2)),
        Axis("weight_banks", (1, 2)),
        Axis("output_banks", (1, 2)),
        Axis("input_masters", (1, 2)),
        Axis("input_port", ports),
        Axis("input_port_2", ports, Condition("input_masters", (2,))),
        Axis("weight_port", ports),
        Axis("output_port", ports),
        Axis("port_width_bits", (32, 64)),
        Axis("read_outstanding", (1, 2, 4, 8, 12)),
        Axis("write_outstanding", (1, 2, 4, 8)),
        Axis("fetch", tuple(str(item.value) for item in Fetch)),
        Axis("fetch_port", ports, Condition("fetch", (Fetch.DRAM.value,))),
        Axis("start", tuple(str(item.value) for item in Start)),
        Axis("layout", tuple(str(item.value) for item in Layout)),
        *(Axis(f"fuse_{item.value}", switch) for item in Fusion),
    ]
    # With a fusion on, the convolution absorbs every pool or upsample it can, so the engine of
    # its own would stand idle; its place is a question only without the fusion.
    absorbed = {Engine.POOL: "fuse_pool", Engine.UPSAMPLE: "fuse_upsample"}
    for engine in MOVABLE:
        when = Condition(absorbed[engine], (False,)) if engine in absorbed else None
        axes.append(Axis(f"fabric_{engine.value}", switch, when))
    return Space(tuple(axes), COUPLINGS)


def load_space(path: Path, board: Board) -> Space:
    """The default space narrowed by a TOML file: `[axes]` with `name = [values]`.

    Axes that the file leaves out keep all their values. Raises `FieldError` for an unknown axis
    or a value that the axis does not have.
    """
    table = read_toml(path)
    check_keys(str(path), table, ["axes"])
    full = default_space(board)
    wanted: dict[str, Any] = table.get("axes", {})
    check_keys(f"{path}: axes", wanted, [axis.name for axis in full.axes])
    axes = []
    for axis in full.axes:
        values = wanted.get(axis.name, list(axis.values))
        values = values if isinstance(values, list) else [values]
        for value in values:
            if not any(value == legal and type(value) is type(legal) for legal in axis.values):
                raise FieldError(f"{path}: axes.{axis.name}: {value!r}, must be one of "
                                 f"{list(axis.values)}")
        axes.append(Axis(axis.name, tuple(values), axis.when))
    return Space(tuple(axes), full.couplings)


def overlay_of(choice: Mapping[str, Value], base: Overlay, board: Board,
               name: str = "explored") -> Overlay:
    """The overlay a choice stands for; what no axis names comes from `base`.

    A port that lacks the chosen width gets the nearest one it has. Raises `FieldError` when the
    choice describes no hardware at all.
    """
    engines = set(base.engines) - set(MOVABLE)
    for engine in MOVABLE:
        # An axis that does not exist means the operator is absorbed; the engine is left out.
        if choice.get(f"fabric_{engine.value}", False):
            engines.add(engine)
    fusions = {item for item in Fusion if choice[f"fuse_{item.value}"]}
    direct = {key: int(choice[key]) for key in (
        "tm", "tn", "columns", "requantize_cycles", "input_words", "weight_words", "output_words",
        "accumulator_words", "input_banks", "weight_banks", "output_banks")}
    return replace(
        base, name=name, clock_hz=int(choice["clock_mhz"]) * MEGAHERTZ,
        dsp_packing=bool(choice["dsp_packing"]), engines=frozenset(engines),
        fusions=frozenset(fusions), masters=_masters(choice, base, board),
        fetch=Fetch(str(choice["fetch"])), layout=Layout(str(choice["layout"])),
        control=replace(base.control, start=Start(str(choice["start"]))),
        **direct,  # type: ignore[arg-type]
    )


def _masters(choice: Mapping[str, Value], base: Overlay, board: Board) -> tuple[Master, ...]:
    """One master a role (two for input if asked), with the base's pipeline figures."""
    width = int(choice["port_width_bits"])
    wanted = [(Role.INPUT, "input", "input_port", "read_outstanding")]
    if choice["input_masters"] == 2:
        wanted.append((Role.INPUT, "input_2", "input_port_2", "read_outstanding"))
    wanted += [(Role.WEIGHT, "weight", "weight_port", "read_outstanding"),
               (Role.OUTPUT, "output", "output_port", "write_outstanding")]
    if choice["fetch"] == Fetch.DRAM.value:
        wanted.append((Role.FETCH, "fetch", "fetch_port", "read_outstanding"))
    masters = []
    for role, name, port, outstanding in wanted:
        known = base.masters_of(role) or base.masters
        legal = board.port(str(choice[port])).widths_bits
        masters.append(replace(
            known[0], name=name, role=role, port=str(choice[port]),
            width_bits=min(legal, key=lambda bits: abs(bits - width)),
            outstanding=int(choice[outstanding])))
    return tuple(masters)


def starting_choices(space: Space, base: Overlay, board: Board, count: int = 6) -> list[Choice]:
    """Designs to start a search from: the base, then the largest arrays that fit the board.

    Twice `count` of them: with the base's engines, and with every movable operator on the ARM,
    which leaves DSPs to the array. Each takes the base's other values, the fastest clock, packed
    DSPs, and the largest of the base's buffers, halves or quarters that still fits.
    """
    first = choice_of(base, space)
    if first is None:
        return []
    arrays = sorted(((int(tm) * int(tn) * int(columns), tm, tn, columns)
                     for tm in space.axis("tm").values for tn in space.axis("tn").values
                     for columns in space.axis("columns").values), reverse=True)
    on_arm = {name: False for name in first if name.startswith("fabric_")}
    found = [first]
    for engines in ({}, on_arm):
        fitting = (_largest_fitting(space, base, board, {
            **first, **engines, "tm": tm, "tn": tn, "columns": columns,
            "clock_mhz": max(space.axis("clock_mhz").values),
            "dsp_packing": max(space.axis("dsp_packing").values)})
            for _, tm, tn, columns in arrays)
        found += [choice for choice in islice((item for item in fitting if item), count)
                  if choice not in found]
    return found


def _largest_fitting(space: Space, base: Overlay, board: Board, wanted: Choice) -> Choice | None:
    for divisor in (1, 2, 4):
        moved = {**wanted, **{name: int(wanted[name]) // divisor
                              for name in ("input_words", "weight_words", "output_words")}}
        try:
            choice = space.canonical(moved)
            if check(overlay_of(choice, base, board), board) is None:
                return choice
        except (UserError, FieldError):
            continue
    return None


def choice_of(overlay: Overlay, space: Space) -> Choice | None:
    """The choice that stands for an overlay, or None when it lies outside the space.

    Used to start a search from designs made by hand.
    """
    inputs = overlay.masters_of(Role.INPUT)
    weight, output = overlay.masters_of(Role.WEIGHT)[0], overlay.masters_of(Role.OUTPUT)[0]
    fetch = overlay.masters_of(Role.FETCH)
    choice: Choice = {
        "tm": overlay.tm, "tn": overlay.tn, "columns": overlay.columns,
        "dsp_packing": overlay.dsp_packing,
        "requantize_cycles": overlay.requantize_cycles, "clock_mhz": overlay.clock_hz // MEGAHERTZ,
        "input_words": overlay.input_words, "weight_words": overlay.weight_words,
        "output_words": overlay.output_words, "accumulator_words": overlay.accumulator_words,
        "input_banks": overlay.input_banks, "weight_banks": overlay.weight_banks,
        "output_banks": overlay.output_banks, "input_masters": len(inputs),
        "input_port": inputs[0].port, "weight_port": weight.port, "output_port": output.port,
        "port_width_bits": min(master.width_bits for master in overlay.masters),
        "read_outstanding": weight.outstanding,
        "write_outstanding": output.outstanding, "fetch": overlay.fetch.value,
        "start": overlay.control.start.value, "layout": overlay.layout.value,
    }
    if len(inputs) > 1:
        choice["input_port_2"] = inputs[1].port
    if fetch:
        choice["fetch_port"] = fetch[0].port
    choice |= {f"fuse_{item.value}": item in overlay.fusions for item in Fusion}
    choice |= {f"fabric_{engine.value}": engine in overlay.engines for engine in MOVABLE}
    try:
        return space.canonical(choice)
    except UserError:
        return None
