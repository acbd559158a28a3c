"""Where commands print: a terminal that takes every text as it is.

It draws no tables. Names come from files, so `[/x]` in one is no markup; `style=` is for looks.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console


def terminal(**options: Any) -> Console:
    """A console without markup; `options` are those of rich's `Console`."""
    return Console(markup=False, **options)


def printable(text: str) -> str:
    """The text with escapes in place of what could steer a terminal; lines are kept."""
    return "".join(item if item.isprintable() or item == "\n" else ascii(item)[1:-1]
                   for item in text)
