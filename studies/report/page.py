"""Writes the page: one HTML file with data, drawing code and plotting library, no network needed.

It computes no figures: `collect` puts together what a page shows, the code in `assets` draws it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.plain.files import write_text
from studies.plain.records import encode
from studies.report.pictures import COLOURS, PARTS

ASSETS = Path(__file__).parent / "assets"
STYLE = "page.css"
#: In the order in which they are read.
SCRIPTS = ("draw.js", "front.js", "sheet.js", "timeline.js", "network.js", "diagram.js",
           "sides.js", "proof.js", "page.js")


@dataclass(frozen=True)
class Source:
    """A file that a page was made from: its name, what it holds, the command that made it."""

    name: str
    kind: str
    command: str = ""


@dataclass(frozen=True)
class Content:
    """What a page shows; parts that are empty are not drawn.

    `sheets`: designs by name, see `sheet`. `search`, `comparison`, `what_if`, `proof`: plain JSON
    values (`collect`). `notes`: what a reader must know, one sentence each. `live`: ask the
    server that the page came from for newer data.
    """

    title: str
    command: str
    program: str
    sources: tuple[Source, ...] = ()
    sheets: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None
    comparison: Mapping[str, Any] | None = None
    what_if: Mapping[str, Any] | None = None
    proof: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    live: bool = False


def page_html(content: Content) -> str:
    """The whole page as text, about 5 MB, most of it the plotting library.

    Raises ModuleNotFoundError where the extra `page` is not installed.
    """
    from plotly.offline import get_plotlyjs

    data = {**encode(content), "colours": COLOURS, "parts": PARTS}
    scripts = [get_plotlyjs(), *((ASSETS / name).read_text("utf-8") for name in SCRIPTS)]
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(content.title)}</title>",
        f"<style>{(ASSETS / STYLE).read_text('utf-8')}</style></head>",
        '<body><main id="page"></main>',
        f'<script type="application/json" id="data">{in_script(data)}</script>',
        *(f"<script>{text}</script>" for text in scripts), "</body></html>", ""])


def require_library() -> None:
    """ModuleNotFoundError now, and not at the end, where the extra `page` is not installed."""
    import plotly  # noqa: F401


def in_script(data: object) -> str:
    """JSON that no text inside it can end early, whatever names it holds."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_page(content: Content, path: Path) -> Path:
    """Write the page, whole or not at all; returns the path."""
    write_text(path, page_html(content))
    return path
