"""The overlay that a choice of the space stands for, the choice of an overlay, and first choices.

It does not say which axes there are; see `space`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.fields import FieldError
from arch_models.overlay import (
    Engine,
    Fetch,
    Fusion,
    Layout,
    Master,
    Overlay,
    Rate,
    Role,
    Start,
    Wait,
)
from arch_models.resources import check
from studies.evaluation.inputs import own_designs
from studies.plain.errors import UserError
from studies.search.space import (
    CLOCK,
    MEGAHERTZ,
    MOVABLE,
    SIZES,
    WIDTH_ROLES,
    WORKLOAD,
    Choice,
    Space,
    Value,
)


def overlay_of(choice: Mapping[str, Value], base: Overlay, board: Board,
               name: str = "explored") -> Overlay:
    """The overlay a choice stands for, at its clock; what no axis names comes from `base`.

    Without an axis for the clock, a base whose clock is predicted has each design's predicted.

    A port that lacks the chosen width gets the nearest one it has. Raises `FieldError` when the
    choice describes no hardware at all.
    """
    engines = {Engine.CONVOLUTION}
    for engine in MOVABLE:
        # Without its axis an engine has no work: the operator is absorbed, or not in the graph.
        if choice.get(f"fabric_{engine.value}", False):
            engines.add(engine)
    fusions = {item for item in Fusion
               if choice.get(f"fuse_{item.value}", item in base.fusions)}
    direct = {key: int(choice[key]) for key in SIZES if key in choice}
    if CLOCK in choice:
        base = replace(base, rate=Rate.FIXED, clock_hz=rate_hz(int(choice[CLOCK]), board))
    return clocked(replace(
        base, name=name,
        dsp_packing=bool(choice.get("dsp_packing", base.dsp_packing)),
        engines=frozenset(engines), fusions=frozenset(fusions),
        masters=_masters(choice, base, board),
        fetch=Fetch(str(choice.get("fetch", base.fetch.value))),
        layout=Layout(str(choice.get("layout", base.layout.value))),
        clock_gating=bool(choice.get("clock_gating", base.clock_gating)),
        narrow_weights=bool(choice.get("narrow_weights", base.narrow_weights)),
        zero_points=bool(choice.get("zero_points", base.zero_points)),
        control=replace(
            base.control, start=Start(str(choice.get("start", base.control.start.value))),
            wait=Wait(str(choice.get("wait", base.control.wait.value)))),
        **direct,  # type: ignore[arg-type]
    ), board)


def whole_megahertz(board: Board) -> tuple[int, ...]:
    """The rates of a board as the clock axis names them, rounded down to a megahertz."""
    return tuple(dict.fromkeys(rate // MEGAHERTZ for rate in board.clocks.rates_hz))


def rate_hz(mhz: int, board: Board) -> int:
    """The rate that a value of the clock axis stands for; `FieldError` if the board has none."""
    for rate in board.clocks.rates_hz:
        if rate // MEGAHERTZ == mhz:
            return rate
    near = " and ".join(str(rate // MEGAHERTZ)
                        for rate in board.clocks.nearest_hz(mhz * MEGAHERTZ))
    raise FieldError(f"{CLOCK} is {mhz}, which {board.name} cannot make; nearest {near}")


#: Axes of all the masters of a role, which `moved` leaves as they are unless it moves them.
SHARED = frozenset({"port_width_bits", "read_outstanding", "write_outstanding", "max_burst_beats",
                    *(f"{role.value}_width_bits" for role in WIDTH_ROLES)})


def moved(overlay: Overlay, board: Board, axis: str, value: Value) -> Overlay:
    """The overlay with one axis at another value and all else as it is, legal in a space or not.

    Raises `FieldError` when that describes no hardware.
    """
    kept = SHARED | {CLOCK}  # whole MHz would round the clock
    choice = {name: at for name, at in values_of(overlay).items() if name not in kept}
    found = overlay_of({**choice, axis: value}, overlay, board, overlay.name)
    wired = axis in SHARED or axis in ("input_masters", "fetch") or "_port" in axis
    return replace(found, masters=found.masters if wired else overlay.masters)


def _masters(choice: Mapping[str, Value], base: Overlay, board: Board) -> tuple[Master, ...]:
    """One master a role (two for input if asked), with the base's pipeline figures."""
    wanted = [(Role.INPUT, "input", "input_port", "read_outstanding")]
    if choice.get("input_masters", len(base.masters_of(Role.INPUT))) == 2:
        wanted.append((Role.INPUT, "input_2", "input_port_2", "read_outstanding"))
    wanted += [(Role.WEIGHT, "weight", "weight_port", "read_outstanding"),
               (Role.OUTPUT, "output", "output_port", "write_outstanding")]
    if choice.get("fetch", base.fetch.value) == Fetch.DRAM.value:
        wanted.append((Role.FETCH, "fetch", "fetch_port", "read_outstanding"))
    masters = []
    for role, name, port_axis, outstanding in wanted:
        known = (base.masters_of(role) or base.masters)[-1 if name == "input_2" else 0]
        port = str(choice.get(port_axis, known.port))
        wanted_bits = int(choice.get(width_axis(role, choice), known.width_bits))
        masters.append(replace(
            known, name=name, role=role, port=port,
            width_bits=board.port(port).nearest_width(wanted_bits),
            outstanding=int(choice.get(outstanding, known.outstanding)),
            max_burst_beats=int(choice.get("max_burst_beats", known.max_burst_beats))))
    return tuple(masters)


def width_axis(role: Role, names: Container[str]) -> str:
    """Of these axes the one that sets the width of a role's masters: its own, else that of all."""
    own = f"{role.value}_width_bits"
    return own if own in names else "port_width_bits"


def starting_choices(space: Space, base: Overlay, board: Board, count: int = 6) -> list[Choice]:
    """Designs to start a search from: the base, the largest arrays that fit the board, and what
    is nearest in the space to the designs that ship, whose makers knew what a network needs.

    Twice `count` arrays: with the base's engines, and with every movable operator on the ARM,
    which leaves DSPs to the array. Each takes the base's other values, packed DSPs, and the largest
    of the base's buffers, halves or quarters that still fits.
    """
    first = choice_of(base, space)
    found = [] if first is None else [first, *_large_arrays(first, space, base, board, count)]
    near = (nearest_choice(item, space) for item in own_designs())
    found += [choice for choice in near if _fits(choice, base, board)]
    return [choice for index, choice in enumerate(found) if choice not in found[:index]]


def _large_arrays(first: Choice, space: Space, base: Overlay, board: Board, count: int
                  ) -> Iterator[Choice]:
    arrays = sorted(((int(tm) * int(tn) * int(columns), tm, tn, columns)
                     for tm in space.axis("tm").values for tn in space.axis("tn").values
                     for columns in space.axis("columns").values), reverse=True)
    on_arm = {name: False for name in first if name.startswith("fabric_")}
    for engines in ({}, on_arm):
        fitting = (_largest_fitting(space, base, board, {
            **first, **engines, "tm": tm, "tn": tn, "columns": columns,
            **{axis.name: max(axis.values) for axis in space.axes if axis.name == CLOCK},
            "dsp_packing": max(space.axis("dsp_packing").values)})
            for _, tm, tn, columns in arrays)
        yield from islice((item for item in fitting if item), count)


def _largest_fitting(space: Space, base: Overlay, board: Board, wanted: Choice) -> Choice | None:
    for divisor in (1, 2, 4):
        moved = {**wanted, **{name: int(wanted[name]) // divisor
                              for name in ("input_words", "weight_words", "output_words")}}
        try:
            choice = space.canonical(moved)
        except UserError:
            continue
        if _fits(choice, base, board):
            return choice
    return None


def _fits(choice: Choice, base: Overlay, board: Board) -> bool:
    try:
        return check(overlay_of(choice, base, board), board) is None
    except (UserError, FieldError):
        return False


def choice_of(overlay: Overlay, space: Space) -> Choice | None:
    """The choice that stands for an overlay, or None when it lies outside the space.

    Used to start a search from designs made by hand.
    """
    try:
        return space.canonical(values_of(overlay, space))
    except UserError:
        return None


def stands_for(choice: Mapping[str, Value], overlay: Overlay) -> bool:
    """Is this the choice of an overlay, on the axes that the choice has? See `choice_of`."""
    own = values_of(overlay)
    return all(name in own and own[name] == value for name, value in choice.items()
               if name != WORKLOAD)


def nearest_choice(overlay: Overlay, space: Space) -> Choice:
    """The design of the space that is nearest to an overlay (see `Space.nearest`)."""
    return space.nearest(values_of(overlay, space))


def values_of(overlay: Overlay, space: Space | None = None) -> Choice:
    """What an overlay has on every axis there can be, legal in the space or not."""
    inputs = overlay.masters_of(Role.INPUT)
    weight, output = overlay.masters_of(Role.WEIGHT)[0], overlay.masters_of(Role.OUTPUT)[0]
    fetch = overlay.masters_of(Role.FETCH)
    choice: Choice = {
        "dsp_packing": overlay.dsp_packing, CLOCK: overlay.clock_hz // MEGAHERTZ,
        "input_masters": len(inputs),
        "input_port": inputs[0].port, "weight_port": weight.port, "output_port": output.port,
        "port_width_bits": min(master.width_bits for master in overlay.masters),
        "read_outstanding": weight.outstanding,
        "write_outstanding": output.outstanding, "fetch": overlay.fetch.value,
        "start": overlay.control.start.value, "layout": overlay.layout.value,
        "wait": overlay.control.wait.value, "clock_gating": overlay.clock_gating,
        "narrow_weights": overlay.narrow_weights, "zero_points": overlay.zero_points,
    }
    choice |= {name: getattr(overlay, name) for name in SIZES}
    choice |= {f"{role.value}_width_bits": overlay.masters_of(role)[0].width_bits
               for role in WIDTH_ROLES}
    choice["max_burst_beats"] = min(master.max_burst_beats for master in overlay.masters)
    choice |= {axis.name: axis.values[0] for axis in (space.axes if space else ())
               if axis.name == WORKLOAD}
    if len(inputs) > 1:
        choice["input_port_2"] = inputs[1].port
    if fetch:
        choice["fetch_port"] = fetch[0].port
    choice |= {f"fuse_{item.value}": item in overlay.fusions for item in Fusion}
    choice |= {f"fabric_{engine.value}": engine in overlay.engines for engine in MOVABLE}
    return choice
