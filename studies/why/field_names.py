"""Turns the dotted name a person writes into the field of a design or a board that it means.

It changes no value; see `what_if`. A name that means nothing is refused with the nearest one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from arch_models.board import Board
from arch_models.fields import FieldError
from arch_models.overlay import Overlay
from studies.search.space import default_space

BOARD_PREFIX = "board."
DESIGN_PREFIX = "design."
#: Evidence for a board's numbers, names of things, what changes no figure: no parameters.
NOT_PARAMETERS = frozenset({"coefficients", "name", "title", "crystal_hz"})
#: Other ways to say a field of the design or the board, without the longer forms made below.
SHORT = {
    "clock": "clock_hz", "engine.conv.packing": "dsp_packing",
    "board.ddr.bits": "board.ddr.data_bus_bits", "board.ddr.clock": "board.ddr.clock_hz",
    "control.registers": "control.register_writes",
}
CONVOLUTION = ("tm", "tn", "columns", "dsp_packing", "requantize_cycles", "weight_bits",
               "narrow_weights", "zero_points", "data_bits", "most_in_words",
               "most_out_words", "tile_rows", "tile_columns")
BUFFERS = ("input_words", "input_banks", "weight_words", "weight_banks", "output_words",
           "output_banks", "accumulator_words")
MEGAHERTZ = 1e6


@dataclass(frozen=True, slots=True)
class Field:
    """Where a name leads: a dotted path (`board.` in front for the board's) and a factor that
    turns the value as written into the field's unit (1e6 for MHz).

    `axis`: of the design space, which the name means in place of a field; it may set several.
    """

    path: str
    factor: float = 1.0
    axis: str = ""


def names(overlay: Overlay, board: Board) -> dict[str, Field]:
    """Every name that means a field: the fields' own names, the short ones, and MHz for Hz.

    And those of the axes of the design space, so that whatever a search or `cosim explain` names
    can be asked for; `engine.softmax` and `fusion.pool` say the same as `fabric_softmax` and
    `fuse_pool`.
    """
    real = [*_leaves(overlay, ""), *_leaves(board, BOARD_PREFIX)]
    found = {path: Field(path) for path in real}
    known = {short: Field(path) for short, path in SHORT.items()}
    for prefix in ("engine.conv.", "engine.convolution."):
        known |= {prefix + name: Field(name) for name in CONVOLUTION}
    for name in BUFFERS:
        which, _, what = name.partition("_")
        known[f"buffer.{which}.{what}"] = Field(name)
    known |= {f"{DESIGN_PREFIX}{path}": Field(path) for path in real
              if not path.startswith(BOARD_PREFIX)}
    known |= {path.replace("masters.", "master."): Field(path) for path in real
              if path.startswith("masters.")}
    found |= {name: item for name, item in known.items() if item.path in found}
    found |= {name.removesuffix("_hz") + "_mhz": Field(item.path, MEGAHERTZ)
              for name, item in found.items() if name.endswith("_hz")}
    # To fetch descriptors from DRAM takes a master, too.
    axes = {axis.name for axis in default_space(board).axes} - (set(found) - {"fetch"})
    spelled = {name: name for name in axes}
    for axis in axes:
        kind, _, member = axis.partition("_")
        if kind in ("fabric", "fuse"):
            spelled[("engine." if kind == "fabric" else "fusion.") + member] = axis
    return found | {name: Field(axis, axis=axis) for name, axis in spelled.items()}


def resolve(name: str, overlay: Overlay, board: Board) -> Field:
    """The field that a name means; `FieldError` with the nearest names if there is none.

    Parts of lists may be given by index (`masters.0.outstanding`), as in `fields.with_value`.
    """
    known = names(overlay, board)
    if name in known:
        return known[name]
    head, _, rest = name.partition(".")
    if head in ("masters", "master") and rest[:1].isdigit():
        return Field(f"masters.{rest}")
    raise FieldError(f"{name}: unknown field; {_nearest(name, known)}")


def _nearest(name: str, known: dict[str, Field]) -> str:
    """The closest names: by the whole name first, then by its last part alone."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not close:
        last = name.rpartition(".")[2]
        ends = {path.rpartition(".")[2]: path for path in sorted(known, key=len, reverse=True)}
        close = [ends[end] for end in difflib.get_close_matches(last, ends, n=3, cutoff=0.5)]
    if close:
        shown = [repr(item) if known[item].path == item
                 else f"{item!r} (the field {known[item].path!r})" for item in close]
        return "did you mean " + " or ".join(shown) + "?"
    tables = sorted({path.partition(".")[0] for path in known})
    return f"names begin with {', '.join(tables)}"


def _leaves(thing: object, prefix: str) -> Iterator[str]:
    if is_dataclass(thing):
        for item in fields(thing):
            if item.name not in NOT_PARAMETERS:
                yield from _leaves(getattr(thing, item.name), f"{prefix}{item.name}.")
    elif isinstance(thing, tuple) and thing and is_dataclass(thing[0]):
        for part in thing:
            yield from _leaves(part, f"{prefix}{getattr(part, 'name', '')}.")
    else:
        yield prefix.removesuffix(".")
