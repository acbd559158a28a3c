"""Options that several subcommands share, with one help text each.

It holds no behaviour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workload = Annotated[str, typer.Argument(
    help="The network to run, for example agc-w64 (the full AGC decoder) or agc-w16 (narrow).")]
WorkloadOption = Annotated[str, typer.Option(
    "--workload", "-w", help="The network to run, for example agc-w64 or agc-w16.")]
Design = Annotated[str, typer.Option(
    "--design", "-d", help="The accelerator: the name of a shipped design, or a .toml file.")]
BoardName = Annotated[str, typer.Option(
    "--board", "-b", help="The board: a name from `cosim boards`, or a .toml file.")]
MemoryModel = Annotated[str, typer.Option(
    "--memory", "-m", help="Memory model: flat (latency and width only, fast) or ddr3 (bursts, "
    "banks, refresh, arbitration).")]
Json = Annotated[Path | None, typer.Option(
    "--json", help="Also write the figures to this file, as JSON.", show_default=False)]
OutFolder = Annotated[Path, typer.Option(
    "--out", "-o", help="Folder for the files this command writes; made if missing.")]
