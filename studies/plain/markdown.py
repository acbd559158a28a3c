"""Tables as pages have them.

It computes no figures; commands print theirs by `terminal.grid`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]],
                   right: Collection[int] = ()) -> str:
    """A Markdown table; `right`: numbers of the columns that stand to the right."""
    rules = ["---:" if index in right else "---" for index in range(len(head))]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in (head, rules, *rows))
