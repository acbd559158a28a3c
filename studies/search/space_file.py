"""Reads a design space from a TOML file: axes with values, conditions, constraints.

It does not sample or evaluate. Everything is checked at once; nothing in the file is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arch_models.board import Board
from arch_models.fields import FieldError, check_keys, nearest
from arch_models.files import read_toml
from arch_models.overlay import Wait, default_overlay
from studies.plain.errors import UserError
from studies.search.space import (
    CLOCK,
    WIDTH_ROLES,
    WORKLOAD,
    Axis,
    Choice,
    Combine,
    Condition,
    Constraint,
    Space,
    Value,
    default_space,
)
from studies.search.space_overlays import overlay_of, whole_megahertz
from workloads.graph import Graph
from workloads.library import names


@dataclass(frozen=True)
class _Kind:
    """What values an axis may take: these only, or any positive whole number."""

    axis: Axis
    open: bool


def load_space(path: Path, board: Board, graph: Graph | None = None) -> Space:
    """The default space of a board and a network (see `default_space`) changed by a file.

    `[axes]` holds, for each axis it names,

        name = [values]                                     or
        name = { values = [values], when = { other = [values] } }

    and any number of `[[constraints]]`, each `product = [axes]` or `sum = [axes]` with `at_most`,
    `at_least` or both. Axes of whole numbers may take values that the default space lacks. Axes
    that the default space does not have at all (`optional_axes`) may be added; the others that
    the file leaves out keep all their values. Raises `FieldError` that names the file, the field,
    the value and the rule.
    """
    table = read_toml(path)
    check_keys(str(path), table, ["axes", "constraints"])
    if not table.get("axes") and not table.get("constraints"):
        raise FieldError(f"{path}: changes nothing; give [axes], [[constraints]] or both, or leave "
                         "--space out")
    full = default_space(board, graph)
    known = _kinds(board, full)
    wanted = _table(f"{path}: axes", table.get("axes", {}))
    check_keys(f"{path}: axes", wanted, known)
    defaults = {axis.name for axis in full.axes}
    axes = [_axis(f"{path}: axes.{name}", kind, wanted.get(name, list(kind.axis.values)))
            for name, kind in known.items() if name in defaults or name in wanted]
    constraints = _constraints(path, table.get("constraints", []), {
        axis.name: axis for axis in axes})
    try:
        space = Space(tuple(axes), full.couplings, constraints)
    except UserError as error:
        raise FieldError(f"{path}: {error}") from error
    _check_hardware(path, space, wanted, board)
    return space


def check_space(where: str, space: Space, board: Board, graph: Graph | None = None) -> None:
    """Refuse what `load_space` would not have let in: other axes, values that no design has,
    constraints of what is not there. Raises `FieldError`."""
    known = _kinds(board, default_space(board, graph))
    axes = {axis.name: axis for axis in space.axes}
    check_keys(where, axes, known)
    for axis in space.axes:
        for value in axis.values:
            _check_value(f"{where}: {axis.name}", known[axis.name], value)
    for item in space.constraints:
        _check_constrained(f"{where}: constraint", item.axes, axes)
    _check_hardware(where, space, dict.fromkeys(axes), board)


def _kinds(board: Board, full: Space) -> dict[str, _Kind]:
    return {axis.name: _Kind(axis, _whole(axis))
            for axis in (*full.axes, *optional_axes(board, full))}


def optional_axes(board: Board, full: Space) -> tuple[Axis, ...]:
    """Axes that a file may add to the default space, with values it may start from."""
    there = {axis.name for axis in full.axes}
    widths = tuple(sorted({bits for port in board.ports for bits in port.widths_bits}))
    return (
        Axis(WORKLOAD, names()),
        Axis("parameter_entries", (512, 1024, 2048)),
        Axis("vector_entries", (128, 256, 512)),
        Axis("table_bytes", (1024,)),
        Axis("tensor_memory_kib", (0, 16, 32, 64, 128, 256)),
        Axis("max_burst_beats", (4, 8, 16)),
        Axis(CLOCK, whole_megahertz(board)),
        Axis("clock_gating", (False, True)),
        Axis("narrow_weights", (False, True)),
        *(() if "zero_points" in there else (Axis("zero_points", (False, True)),)),
        Axis("wait", tuple(str(item.value) for item in Wait)),
        *(Axis(f"{role.value}_width_bits", widths) for role in WIDTH_ROLES),
        *(axis for axis in default_space(board).axes if axis.name not in there),
    )


def _whole(axis: Axis) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in axis.values)


def _table(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FieldError(f"{where}: {value!r}, must be a table")
    return value


def _axis(where: str, kind: _Kind, given: Any) -> Axis:
    when = kind.axis.when
    if isinstance(given, Mapping):
        check_keys(where, given, ["values", "when"])
        if "when" in given:
            when = _condition(f"{where}.when", given["when"])
        given = given.get("values", list(kind.axis.values))
    values = given if isinstance(given, list) else [given]
    for value in values:
        _check_value(where, kind, value)
    return Axis(kind.axis.name, tuple(values), when)


def _check_value(where: str, kind: _Kind, value: Any) -> None:
    legal = kind.axis.values
    if any(value == item and type(value) is type(item) for item in legal):
        return
    if not kind.open:
        hint = f"; {nearest(value, [str(item) for item in legal])}" if isinstance(value, str) \
            else ""
        raise FieldError(f"{where}: {value!r}, must be one of {list(legal)}{hint}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FieldError(f"{where}: {value!r}, must be a whole number of at least 1, for example "
                         f"one of {list(legal)}")


def _condition(where: str, given: Any) -> Condition:
    if len(_table(where, given)) != 1:
        raise FieldError(f"{where}: {given!r}, must name one axis, as {{ axis = [values] }}")
    [(name, values)] = given.items()
    listed = values if isinstance(values, list) else [values]
    for value in listed:
        if not isinstance(value, bool | int | str):
            raise FieldError(f"{where}: {value!r}, must be whole numbers, names or truth values")
    return Condition(name, tuple(listed))


def _constraints(path: Path, given: Any, axes: Mapping[str, Axis]) -> tuple[Constraint, ...]:
    if not isinstance(given, list):
        raise FieldError(f"{path}: constraints: {given!r}, must be tables: [[constraints]]")
    found = []
    for number, entry in enumerate(given):
        where = f"{path}: constraints[{number}]"
        check_keys(where, _table(where, entry), ["product", "sum", "at_most", "at_least"])
        hows = [how for how in Combine if how.value in entry]
        if len(hows) != 1:
            raise FieldError(f"{where}: must have either product or sum, a list of axes")
        named = entry[hows[0].value]
        if not isinstance(named, list) or not named:
            raise FieldError(f"{where}.{hows[0].value}: {named!r}, must be a list of axes")
        _check_constrained(f"{where}.{hows[0].value}", named, axes)
        bounds = {key: entry[key] for key in ("at_most", "at_least") if key in entry}
        for key, value in bounds.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise FieldError(f"{where}.{key}: {value!r}, must be a whole number")
        if not bounds:
            raise FieldError(f"{where}: has no bound; give at_most, at_least or both")
        found.append(Constraint(hows[0], tuple(named), **bounds))
    return tuple(found)


def _check_constrained(where: str, named: Sequence[Any], axes: Mapping[str, Axis]) -> None:
    for name in named:
        if not isinstance(name, str) or name not in axes:
            raise FieldError(f"{where}: there is no axis {name!r}; "
                             f"{nearest(str(name), list(axes))}")
        if not _whole(axes[name]):
            raise FieldError(f"{where}: axis {name!r} has values {list(axes[name].values)}, must "
                             "be whole numbers")


def _check_hardware(path: Path | str, space: Space, wanted: Mapping[str, Any],
                    board: Board) -> None:
    """Refuse a value that describes no hardware whatever the other axes are."""
    base = default_overlay()
    for axis in space.axes:
        if isinstance(wanted.get(axis.name), Mapping) and axis.when is not None:
            there = space.axis(axis.when.axis).values
            if not set(axis.when.values) & set(there):
                raise FieldError(f"{path}: axes.{axis.name}.when: {list(axis.when.values)}, axis "
                                 f"{axis.when.axis!r} has only {list(there)}")
        if axis.name not in wanted:
            continue
        for value in axis.values:
            alone: dict[str, Value] = {axis.name: value}
            if axis.name == WORKLOAD:
                continue
            try:
                overlay_of(_with_partners(alone, board), base, board)
            except FieldError as error:
                raise FieldError(f"{path}: axes.{axis.name}: {value!r}: {error}") from error


def _with_partners(choice: Choice, board: Board) -> Choice:
    """A descriptor fetch needs a port, which the base may lack."""
    return {"fetch_port": board.ports[0].name, "input_port_2": board.ports[0].name, **choice}
