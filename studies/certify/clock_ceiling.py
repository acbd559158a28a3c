"""The fastest clock that any of many overlays is predicted to have, from the rows of their parts.

It predicts no overlay's clock; `clock` does. A search over sets of designs asks it.

Of each part a set of rows is known that holds the row of every overlay. The period is the longest
of several paths, so each path gives a bound. A path inside a part takes no less than in its fastest
row. A path over several parts is gone, in each kind of part, through the one that is slowest in an
empty fabric: so through one that is no faster there than the fastest rows of all; of such rows the
bound takes the one that is fastest at the share of the fabric that is used. A larger share makes
no path shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from arch_models.board import Board
from arch_models.clock import LEAST_SPEED, LEGS
from arch_models.nets import NetModel, Row, Way, read_clock_data, read_grid
from arch_models.power.fabric import speed_ratio
from arch_models.units import ROUNDING

Options = Sequence[Row | None]


class RowSets(NamedTuple):
    """Of each part the rows that it may have, None if it may not be there; fields as in
    `clock.Rows`."""

    units: tuple[Options, ...]
    memories: tuple[Options, ...]
    control: tuple[Options, ...]
    places: tuple[Options, ...]


def every_row(part: str) -> Options:
    """All rows of a part: what it has in any overlay is one of them."""
    return [row for row in read_grid() if row.part == part]


def ceiling_mhz(rows: RowSets, share: float, board: Board) -> float:
    """No overlay whose rows are among these, and which uses at least this share of the board's
    LUTs, is predicted to be faster."""
    model = read_clock_data().net
    longest = 0.0
    for kind in rows:
        for options in kind:
            inside = [row.path(Way.INSIDE) if row else None for row in options]
            if all(inside):
                longest = max(longest, min(item.ns(model, share) for item in inside if item))
    for leg in LEGS:
        pieces = [_fastest(getattr(rows, kind), way, share, model) for kind, way in leg]
        if all(piece is not None for piece in pieces):
            longest = max(longest, sum(piece for piece in pieces if piece is not None))
    period = (longest + model.uncertainty_ns) * board.part.fabric_delay
    ratio = max(speed_ratio(board.power.vccint_ratio), LEAST_SPEED)
    return 1000 / period * ratio * (1 + ROUNDING)


def _fastest(kind: tuple[Options, ...], way: Way, share: float,
             model: NetModel) -> float | None:
    """The least that the way through a kind of parts takes; None where it may not exist."""
    least, pieces = -1.0, []
    for options in kind:
        found = [row.path(way) if row else None for row in options]
        pieces += [item for item in found if item]
        if options and all(found):
            least = max(least, min(item.ns(model, 0.0) for item in found if item))
    if least < 0:
        return None
    return min(item.ns(model, share) for item in pieces if item.ns(model, 0.0) >= least)
