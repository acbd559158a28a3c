"""Writes the report of a result: pictures and one HTML page that shows them with the tables.

It does not compute figures; it draws what an `Evaluation` holds.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from studies.errors import UserError
from studies.evaluation import Evaluation
from studies.files import output_folder, write_text
from studies.report import pictures, tables

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}img{max-width:100%}
pre{font:12px/1.35 ui-monospace,monospace;overflow-x:auto}"""


def write_report(items: Mapping[str, Evaluation], peak_bytes_per_s: float, folder: Path,
                 further: Sequence[tuple[str, Figure]] = ()) -> tuple[Path, ...]:
    """Draw the pictures of the last result and a page that compares all of them.

    `items`: results by name, the one to look into last; it needs layers. `further`: pictures
    with a title to show too. Returns the files written, the page first.
    """
    chosen = list(items.values())[-1]
    if not chosen.layers:
        raise UserError(f"the result of {chosen.overlay!r} holds no layers; write one with "
                        "`cosim simulate --json FILE`.")
    output_folder(folder)
    drawn: list[tuple[str, str, Figure]] = [
        ("roofline.png", "Roofline", pictures.roofline(chosen, peak_bytes_per_s)),
        ("layer_times.png", "Time of each layer", pictures.layer_times(chosen)),
        ("layer_energies.png", "Energy of each layer", pictures.layer_energies(chosen)),
        ("energy.png", "Energy by part", pictures.energy_split(items)),
        *((f"{title.lower().replace(' ', '_')}.png", title, figure)
          for title, figure in further),
    ]
    for name, _, figure in drawn:
        pictures.save_picture(figure, folder / name)
    page = folder / "index.html"
    write_text(page, _page(items, chosen, [(name, title) for name, title, _ in drawn]))
    return (page, *(folder / name for name, _, _ in drawn))


def _page(items: Mapping[str, Evaluation], chosen: Evaluation,
          drawn: Sequence[tuple[str, str]]) -> str:
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>"
             f"{html.escape(chosen.workload)}</title><style>{STYLE}</style>",
             f"<h1>{html.escape(chosen.workload)} on {html.escape(chosen.board)}</h1>",
             f"<p>{html.escape(tables.heading(chosen))}. Every figure on this page is "
             "predicted.</p>",
             _pre(tables.summary(list(items.values()), list(items)))]
    parts += [f"<h2>{html.escape(title)}</h2><img src='{name}' alt='{html.escape(title)}'>"
              for name, title in drawn]
    for table in (tables.energy(chosen), tables.resources(chosen), tables.units(chosen),
                  tables.layers(chosen)):
        parts.append(_pre(table))
    return "\n".join(parts) + "\n"


def _pre(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=150, color_system=None).print(table)
    return f"<pre>{html.escape(text.getvalue())}</pre>"
