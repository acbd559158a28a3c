"""Does every table fit a terminal of 80 or 120 characters, with each word whole?"""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from studies.plain.terminal import Terminal, grid, terminal
from tests.support.command import cosim
from tests.support.source import MODULES, ROOT

#: Commands that print tables and take seconds; the rest draws with the same `grid`.
COMMANDS = (
    ("simulate", "agc-w16", "-m", "flat", "--frames", "1"),
    ("simulate", "agc-w16", "-m", "flat", "--frames", "1", "--design", "mobile"),
    ("compare", "default", "mobile", "-w", "agc-w16", "-m", "flat"),
    ("explain", "default", "-w", "agc-w16", "-m", "flat"),
    ("what-if", "default", "-w", "agc-w16", "--set", "tm=8,16"),
    ("list",), ("boards",), ("design", "diffusion"),
    ("validate", "energy"),
)
WORDS = st.text("abcxyz.0123456789", min_size=1, max_size=18)
PRINT = Terminal.print
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_word_of_a_command_is_folded(words: tuple[str, ...], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables: list[Table] = []
    monkeypatch.setattr(Terminal, "print", lambda self, *objects, **options: tables.extend(
        item for item in objects if isinstance(item, Table)))
    assert cosim(*words) == 0
    assert tables
    for table in tables:
        for width in (80, 120):
            assert printed(table, width) == words_of(table)


def words_of(table: Table) -> set[str]:
    """Every word of its headers and cells."""
    return {word for column in table.columns for cell in (column.header, *column.cells)
            for word in str(cell).split()}


def printed(table: Table, width: int) -> set[str]:
    """The words that stand there at a width, titles and rules left out; no line is wider."""
    out = io.StringIO()
    table.title = table.caption = None
    PRINT(terminal(file=out, width=width), table)
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    return {word for line in lines for word in line.split() if word.strip("─")}


@given(st.integers(1, 9).flatmap(lambda count: st.tuples(
    st.lists(TEXTS, min_size=count, max_size=count),
    st.lists(st.lists(TEXTS, min_size=count, max_size=count), min_size=1, max_size=4))),
    st.integers(80, 130))
@settings(max_examples=60, deadline=None)
def test_a_table_keeps_every_word_at_every_width(table: tuple[list[str], list[list[str]]],
                                                 width: int) -> None:
    heads, rows = table
    drawn = grid("title", heads, left=heads[1:2])
    for row in rows:
        drawn.add_row(*row)
    assert printed(drawn, width) == words_of(drawn)


def test_rows_that_begin_alike_keep_what_tells_them_apart() -> None:
    drawn = grid("t", ("a", "b", *(f"column{number}" for number in range(12))))
    for own in ("x", "y"):
        drawn.add_row("same", own, *(f"{number}.00000" for number in range(12)))
    out = io.StringIO()
    terminal(file=out, width=80).print(drawn)
    assert out.getvalue().count("same  x") == out.getvalue().count("same  y") == 2


def test_tables_are_drawn_in_one_place() -> None:
    drawers = {item.as_posix() for item in MODULES
               if re.search(r"(?<!\.)\bTable\(\s*title=", (ROOT / item).read_text("utf-8"))}
    assert drawers == {"studies/plain/terminal.py"}
