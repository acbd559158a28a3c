"""Writes the report of a result: pictures and one HTML page that shows them with the tables.

It does not compute figures; it draws what an `Evaluation` holds.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.files import output_folder, write_text
from studies.report import pictures, tables

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#222}h1{font-size:1.5rem}h2{font-size:1.05rem;margin-top:2rem}img{max-width:100%}
div{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .6rem;border-bottom:1px solid #ddd;white-space:nowrap}th{font-weight:600}
.left{text-align:left}.right{text-align:right}"""


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
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8>"
             f"<meta name=viewport content='width=device-width'><title>"
             f"{html.escape(chosen.workload)}</title><style>{STYLE}</style>",
             f"<h1>{html.escape(chosen.workload)} on {html.escape(chosen.board)}</h1>",
             f"<p>{html.escape(tables.heading(chosen))}. Every figure on this page is "
             "predicted.</p>",
             *(f"<p>{html.escape(name)}: {html.escape(tables.displaced(item.displaced))}.</p>"
               for name, item in items.items() if item.displaced),
             _table(tables.summary(list(items.values()), list(items)))]
    parts += [f"<h2>{html.escape(title)}</h2><img src='{name}' alt='{html.escape(title)}'>"
              for name, title in drawn]
    parts += [_table(table) for table in (tables.energy(chosen), tables.resources(chosen),
                                          tables.units(chosen), tables.layers(chosen))]
    return "\n".join(parts) + "\n</html>\n"


def _table(table: Table) -> str:
    """A terminal table as HTML; what stands on the left there stands on the left here."""
    sides = ["left" if column.justify == "left" else "right" for column in table.columns]

    def row(tag: str, cells: Sequence[object]) -> str:
        return "<tr>" + "".join(
            f"<{tag} class={side}>{html.escape(str(cell))}</{tag}>"
            for side, cell in zip(sides, cells, strict=True)) + "</tr>"

    rows = zip(*(column.cells for column in table.columns), strict=True)
    return (f"<h2>{html.escape(str(table.title))}</h2><div><table>"
            + row("th", [column.header for column in table.columns])
            + "\n".join(row("td", cells) for cells in rows) + "</table></div>")
