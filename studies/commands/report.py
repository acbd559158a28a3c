"""`cosim report` and `cosim decode`: a page of results, a video of decoded frames.

They draw; what `report` simulates again are designs that a file names and does not hold whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.commands.options import Json, reads_onnx, refuse_given
from studies.evaluation.inputs import PLAIN, Reading
from studies.plain.files import check_writable, check_writables, write_json
from studies.plain.made_by import invocation, program
from studies.plain.terminal import terminal
from studies.report.collect import SHEETS, Given, collect
from studies.report.page import require_library, write_page


@reads_onnx
def report(
    files: Annotated[list[Path], typer.Argument(
        help="Files of results, any number: of simulate, compare or what-if (--json), the "
        "explore.json of a search, or the certificate.json of a proof.")],
    out: Annotated[Path, typer.Option(
        "--out", "-o", help="The page to write.")] = Path("out/report.html"),
    workload: Annotated[str | None, typer.Option(
        "--workload", "-w", help="The network of the results: a shipped one, or an .onnx file.",
        show_default="as the file says it was asked for")] = None,
    board: Annotated[str | None, typer.Option(
        "--board", "-b", help="The board of the results, where it is none that ships: a .toml "
        "file.", show_default="the file's")] = None,
    sheets: Annotated[int, typer.Option(
        min=0, max=200, help="Designs of a search's front to simulate for their sheets.")] = SHEETS,
    reading: Reading = PLAIN,
) -> None:
    """Write a page to look at: front, roofline, timeline, energy, network, accelerator.

    One file, which needs no network; open it in a browser. Needs the extra page:
    .venv/bin/python -m pip install -e '.[page]' in the project's folder.

    Example: cosim report out/explore/agc-w64-pynq-z1/explore.json
    """
    require_library()
    check_writable(out, ".html")
    content = collect(files, Given(workload, board, reading), invocation(), program(),
                      most_sheets=sheets)
    write_page(content, out)
    console = terminal()
    for note in content.notes:
        console.print(note, soft_wrap=True)
    console.print(f"wrote {out}; open it in a browser", soft_wrap=True)


def decode(
    context: typer.Context,
    network: Annotated[str, typer.Argument(
        help="A shipped trained network, for example agc-w16 or unicorn.")],
    out: Annotated[Path, typer.Option(
        "--out", "-o", help="A video to write (.mp4, .mkv), or a folder for PNG files.")],
    frames: Annotated[int, typer.Option(
        help="Frames at 25 a second, or pictures of Unicorn's set; each takes seconds.")] = 50,
    clip: Annotated[str, typer.Option(
        help="head (rendered, held out), hopper (a real face never trained on) or astronaut (a "
             "real face that was).")] = "head",
    seed: Annotated[int, typer.Option(
        min=0, max=9999, help="Of the head and its motion.")] = 0,
    json: Json = None,
) -> None:
    """Decode a clip to a video or pictures: wanted, float, int8 and their difference, side by side.

    The int8 frames are those of the integer reference, to the bit what the hardware makes. PSNR of
    every frame is measured before the video is coded.

    Example: cosim decode agc-w16 --out clip.mp4
    """
    from studies.headline import decode as study
    from studies.headline.document import Frames
    from studies.report import video

    check_writables(json)
    request = study.Request(network, frames, clip, seed)
    pictures = study.check(request) in study.UNICORN_NAMES
    if pictures:
        refuse_given(context, ("clip", "seed"), "is for AGC's clips; pictures of Unicorn's set are "
                     "numbered from 0, see --frames")
    video.check_target(out, frames)
    panels, rows = [], []
    for found in study.run(request):
        panels.append(found.panel())
        rows.append(found.row())
    video.write(out, panels, study.RATE)
    if json is not None:
        kept: Frames = {"network": network, "frames": rows}
        if not pictures:
            kept["clip"], kept["seed"] = clip, seed
        write_json(json, kept)
    console = terminal()
    study.show(console, rows)
    console.print(f"from left to right: {', '.join(study.COLUMNS)}")
    console.print(f"wrote {out}")
