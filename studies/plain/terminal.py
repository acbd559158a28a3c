"""Where commands print: texts as they are, and tables that fit without a folded word.

It computes no figures. Names come from files, so `[/x]` in one is no markup; `style=` is for looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from arch_models.board import Board

T = TypeVar("T")
#: Between two lines that say how far something is.
SAY_SECONDS = 10.0
#: A cell of at most so many characters stays on one line, for example `13.1 to 14.2`.
WHOLE = 20
#: Wider than any terminal: what a table takes where nothing is wrapped.
UNBOUNDED = 100_000


class Terminal(Console):
    """A console whose tables are parted by columns where the terminal is narrow."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; a table comes as one or more that are no wider than the terminal."""
        super().print(*(part for item in objects
                        for part in (_fitted(self, item) if isinstance(item, Table) else [item])),
                      **options)


def terminal(**options: Any) -> Console:
    """A console without markup; `options` are those of rich's `Console`."""
    return Terminal(markup=False, **options)


def say_unchecked(console: Console, board: Board) -> None:
    """A line on what of the board was held against no measurement; none where all was."""
    if board.unchecked:
        console.print(f"unchecked on {board.name}: {', '.join(board.unchecked)}", soft_wrap=True)


def grid(title: str, columns: Sequence[str], left: Sequence[str] = ()) -> Table:
    """An empty narrow table; numbers to the right, the first column and `left` to the left."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
                  padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold",  # a figure is folded, never cut
                         justify="left" if index == 0 or column in left else "right")
    return table


def printable(text: str) -> str:
    """The text with escapes in place of what could steer a terminal; lines are kept."""
    return "".join(item if item.isprintable() or item == "\n" else ascii(item)[1:-1]
                   for item in text)


def _fitted(console: Console, table: Table) -> Iterator[Table]:
    """The table, or its columns in several that fit, those that tell rows apart in each of them."""
    columns = [(column, *_widths(console, column)) for column in table.columns]
    whole = console.measure(table, options=console.options.update_width(UNBOUNDED)).maximum
    # What stands around cells, for each column: padding and lines.
    around = -(-(whole - sum(natural for _, _, natural in columns)) // len(columns))
    keys = _keys(table)
    first, rest, begin = columns[:keys], columns[keys:], 0
    while begin == 0 or begin < len(rest):
        end = begin
        taken = sum(least + around for _, least, _ in first)
        while end < len(rest) and (end == begin or taken + rest[end][1] + around <= console.width):
            taken += rest[end][1] + around
            end += 1
        yield _part(table, [*first, *rest[begin:end]], console.width, around,
                    is_first=begin == 0, is_last=end >= len(rest))
        begin = max(end, 1)


def _keys(table: Table) -> int:
    """How many of the first columns, at most three, tell the rows apart; 1 if those do not."""
    cells = [list(column.cells) for column in table.columns]
    return next((count for count in range(1, min(4, len(cells)))
                 if len(set(zip(*cells[:count], strict=True))) == len(table.rows)), 1)


def _widths(console: Console, column: Column) -> tuple[int, int]:
    """The fewest cells that fold no word of a column, and what it takes with nothing wrapped."""
    least, natural = 1, 1
    for index, cell in enumerate((column.header, *column.cells)):
        size = Measurement.get(console, console.options.update_width(UNBOUNDED), cell)
        kept = size.maximum if index > 0 and size.maximum <= WHOLE else size.minimum
        least, natural = max(least, kept), max(natural, size.maximum)
    return least, natural


def _part(table: Table, columns: Sequence[tuple[Column, int, int]], room: int, around: int, *,
          is_first: bool, is_last: bool) -> Table:
    """Some columns as a table of their own, the widest ones narrowed until all fit."""
    widths = [natural for _, _, natural in columns]
    while sum(widths) + around * len(widths) > room:
        wide = [(width, index) for index, width in enumerate(widths) if width > columns[index][1]]
        if not wide:
            break
        widths[max(wide)[1]] -= 1
    part = Table(*(replace(column, _cells=[], width=width) for (column, _, _), width in
                   zip(columns, widths, strict=True)),
                 title=table.title if is_first or not table.title else f"{table.title}, continued",
                 caption=table.caption if is_last else None,
                 title_justify=table.title_justify, box=table.box, pad_edge=table.pad_edge,
                 padding=table.padding)
    cells = zip(*(column.cells for column, _, _ in columns), strict=True)
    for row, own in zip(table.rows, cells, strict=True):
        part.add_row(*own, style=row.style, end_section=row.end_section)
    return part


def each_seconds(console: Console, line: Callable[[T], str]) -> Callable[[T], None]:
    """Prints a line every `SAY_SECONDS` at most; only then is the line worked out."""
    last = time.monotonic()

    def say(given: T) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_SECONDS:
            console.print(line(given), soft_wrap=True)
            last = time.monotonic()

    return say
