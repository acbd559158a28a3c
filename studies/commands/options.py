"""Options that several subcommands share, with one help text each.

It evaluates nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, get_type_hints

import typer
from rich.console import Console

from studies.evaluation.inputs import Reading, Subject
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from workloads.library import MOST_STEPS

Workload = Annotated[str, typer.Argument(
    help="The network to run, for example agc-w64 (the full AGC decoder) or agc-w16 (narrow), or "
    "an .onnx file.")]
Steps = Annotated[int | None, typer.Option(
    min=1, max=MOST_STEPS, help="Sampler steps of a decoder that has a sampler; as does unicorn@4 "
    "for a name. Time and energy follow; the pictures are those of its own number.",
    show_default="its own")]
Calibration = Annotated[Path | None, typer.Option(
    "--calibration", help="For a float .onnx file: an .npz file with inputs by name, any number "
    "of them along the first axis. Without it random inputs are used.", show_default=False)]
Symmetric = Annotated[bool, typer.Option(
    "--symmetric", help="For an .onnx file with zero points: widen its ranges to symmetric ones "
    "where they are refused or ask for a design with zero_points, and at inputs and outputs.")]
Cached = Annotated[list[str] | None, typer.Option(
    "--cached", metavar="INPUT", help="For an .onnx file: this input stays for a group of pictures "
    "(a source picture); what follows from such inputs alone is no part of a frame. May be "
    "repeated.", show_default=False)]
Shape = Annotated[list[str] | None, typer.Option(
    "--shape", metavar="INPUT=1,3,160,160", help="For an .onnx file with open axes: the shape of "
    "an input; may be repeated. Else the sizes of --calibration are taken.", show_default=False)]
Fixed = Annotated[list[str] | None, typer.Option(
    "--value", metavar="INPUT=16000", help="For an .onnx file: this input never changes (a rate, a "
    "length) and becomes a constant; may be repeated.", show_default=False)]
WorkloadOption = Annotated[str, typer.Option(
    "--workload", "-w", help="The network to run, for example agc-w64 or agc-w16.")]
MaybeWorkload = Annotated[str | None, typer.Option(
    "--workload", "-w", help="The network to run.", show_default="the result's, or agc-w64")]
MaybeBoard = Annotated[str | None, typer.Option(
    "--board", "-b", help="The board: a name from `cosim boards`, or a .toml file.",
    show_default="the result's, or pynq-z1")]
MaybeMemory = Annotated[str | None, typer.Option(
    "--memory", "-m", help="Memory model: flat or ddr3.", show_default="the result's, or ddr3")]
Design = Annotated[str, typer.Option(
    "--design", "-d", help="The accelerator: the name of a shipped design, or a .toml file.")]
BoardName = Annotated[str, typer.Option(
    "--board", "-b", help="The board: a name from `cosim boards`, or a .toml file.")]
MemoryModel = Annotated[str, typer.Option(
    "--memory", "-m", help="Memory model: flat (latency and width only, fast) or ddr3 (bursts, "
    "banks, refresh, arbitration).")]
Json = Annotated[Path | None, typer.Option(
    "--json", help="Also write the figures to this file, as JSON.", show_default=False)]
Scheduler = Annotated[str | None, typer.Option(
    help="Evaluate on the workers of this Dask scheduler, for example tcp://HOST:8786, "
    "in place of --workers.", show_default=False)]
Storage = Annotated[str | None, typer.Option(
    help="Keep every outcome here, and go on from what is here: a file, sqlite:///FILE, "
    "postgresql://... or grpc://HOST:PORT. Several terminals may share it. With --prove: a file.",
    show_default=False)]
SpaceFile = Annotated[Path | None, typer.Option(
    help="A .toml file that changes the design space; see docs/space.md.", show_default=False)]
Start = Annotated[list[Path] | None, typer.Option(
    help="Also start from the front of an earlier search (its explore.json, of any network or "
    "board) or from a design (.toml); may be repeated.", show_default=False)]
Study = Annotated[str | None, typer.Option(
    help="Name of the study in --storage; the workload's name if left out.",
    show_default=False)]
Objectives = Annotated[str, typer.Option(
    "--objectives", "--objective",
    help="What to make small, separated by commas: latency, energy, resources, period, quality. "
    "With --prove: latency, energy, resources, or product (latency times energy); several give a "
    "front.", show_default="latency,energy,resources; with --prove latency")]
Prove = Annotated[bool, typer.Option(
    "--prove", help="Find the best design there is (the fastest, if --objectives names none) and "
    "write a certificate, in place of a search; see docs/proof.md.")]
Proving = Annotated[str, typer.Option(
    "--memory", "-m", help="With --prove: the memory model, flat or ddr3.")]
Gap = Annotated[float, typer.Option(
    min=0, max=0.5, help="With --prove: by which part of its figures a design that is found may be "
    "worse than the best there is.")]
Minutes = Annotated[float, typer.Option(
    min=0, help="With --prove: end after so long and state the gap; 0 has no limit.")]
OutFolder = Annotated[Path, typer.Option(
    "--out", "-o", help="Folder for the files this command writes; made if missing.")]


def reads_onnx(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of .onnx files in place of its argument `reading`."""
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command)
    kept = [item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for item in own.parameters.values() if item.name != "reading"]
    options = {"calibration": (Calibration, None), "symmetric": (Symmetric, False),
               "shape": (Shape, None), "cached": (Cached, None), "fixed": (Fixed, None)}
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default,
                               annotation=kind) for name, (kind, default) in options.items()]

    @functools.wraps(command)
    def wrapped(*, calibration: Path | None = None, symmetric: bool = False,
                shape: list[str] | None = None, cached: list[str] | None = None,
                fixed: list[str] | None = None, **others: object) -> None:
        reading = Reading(calibration, symmetric, tuple(shape or ()), tuple(cached or ()),
                          tuple(fixed or ()))
        command(reading=reading, **others)

    wrapped.__annotations__ = {item.name: item.annotation for item in (*kept, *added)}
    wrapped.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return wrapped


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that were given and would say nothing; `why` follows the option's name."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise UserError(f"--{name} {why}.")


def stored_note(console: Console, subject: Subject, now: Evaluation) -> None:
    """Say so if a result file holds another latency than this program predicts now."""
    stored = subject.stored
    if stored is not None and (stored.latency_cycles, stored.clock_hz) != (
            now.latency_cycles, now.clock_hz):
        console.print(f"{subject.name} holds {stored.latency_ms:.3f} ms; this program predicts "
                      f"{now.latency_ms:.3f} ms for its design with these settings. What follows "
                      "explains the latter.", soft_wrap=True)
