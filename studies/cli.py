"""The `cosim` command: finds a subcommand, runs it, turns a user's error into one message.

It does not compute anything; each subcommand is a thin wrapper over a study, and its module is
imported only when it runs: `cosim --help` reads the first lines of their docstrings as text.
"""

from __future__ import annotations

import ast
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from studies.plain.made_by import DISTRIBUTION, running
from studies.plain.stopping import Stopped, Stopping, exit_code

EXIT_USER_ERROR = 2
EXIT_SYSTEM_ERROR = 1

#: Name of a subcommand: module of `studies.commands` and function there; a group has a table.
COMMANDS: dict[str, str] = {
    "simulate": "simulate.simulate",
    "explore": "explore.explore",
    "check": "explain.check_certificate",
    "emit": "emit.emit_design",
    "decode": "report.decode",
    "what-if": "what_if.what_if_command",
    "compare": "compare.compare_designs",
    "explain": "explain.explain_design",
    "report": "report.report",
    "list": "catalogue.list_all",
    "design": "catalogue.show_design",
    "lint": "catalogue.lint_design",
    "schema": "catalogue.print_schema",
    "boards": "catalogue.boards",
    "measure": "emit.measure",
    "calibrate": "calibrate.calibrate",
    "serve": "explore.serve_studies",
    "benchmark": "study.benchmark",
}
GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "board": ("Look after board files of your own; stand in a board's place.", {
        "check": "catalogue.check_board", "serve": "emit.serve_board"}),
    "validate": ("Check the models against figures that others measured.", {
        "memory": "validate.memory",
        "vta-pynq": "validate.vta_pynq",
        "fpga2015": "validate.fpga2015",
        "pipecnn": "validate.pipecnn",
        "nvdla": "validate.nvdla",
        "nvdla-small": "validate.nvdla_small",
        "streams": "validate.streams",
        "overlap": "validate.overlap",
        "board": "validate.board",
        "energy": "validate.energy",
        "clock": "validate.clock",
        "rtl": "validate.rtl",
        "onnx": "validate.onnx",
        "page": "validate.page",
    }),
    "study": ("Make pages of results and models' tables anew; some take minutes to hours.", {
        "demo": "study.demo",
        "headline": "study.headline",
        "proof": "study.proof",
        "enumerate": "study.enumerate_wide",
        "regret": "study.regret",
        "efficiency": "study.efficiency",
        "quality": "study.quality",
        "decoders": "study.decoders",
        "on-chip": "study.on_chip",
        "precision": "study.precision",
        "resources": "fits.resources",
        "timing": "fits.timing",
        "fit-energy": "fits.fit_energy",
        "fit-vta": "fits.fit_vta",
        "toggles": "fits.toggles",
        "paths": "fits.paths",
    }),
    "train": ("Train, quantize and measure the two decoders; the extra torch, best on a GPU.", {
        "agc": "train.agc",
        "autoencoder": "train.autoencoder",
        "unicorn": "train.unicorn",
        "fine-tune": "train.fine_tune",
        "fine-tune-agc": "train.fine_tune_agc",
        "quantize-agc": "train.quantize_agc",
        "quantize-unicorn": "train.quantize_unicorn",
        "measure-agc": "train.measure_agc",
        "measure-unicorn": "train.measure_unicorn",
        "frame": "train.frame",
    }),
}
HELP = """Predict how fast and how hungry an FPGA accelerator for a neural codec decoder will be, \
before it exists; search for a better one; and write it as HLS C++.

Start with:  cosim simulate agc-w64"""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they run; help needs their docstrings only."""

    lazy: Mapping[str, str] = MappingProxyType({})
    groups: Mapping[str, tuple[str, dict[str, str]]] = MappingProxyType({})

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the tables."""
        return [*self.lazy, *self.groups]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A group; or a command that only knows its help."""
        if cmd_name in self.groups:
            text, commands = self.groups[cmd_name]
            return _group(cmd_name, text, commands)
        if cmd_name in self.lazy:
            return TyperCommand(cmd_name, help=_first_sentence(self.lazy[cmd_name]))
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, imported."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = get_close_matches(name, self.list_commands(ctx), 1)
            ctx.fail(f"there is no command {name!r}." + "".join(
                f" Did you mean {item!r}?" for item in near))
        _, command, rest = super().resolve_command(ctx, args)
        if name in self.lazy:
            command = _load(name, self.lazy[name])
        return name, command, rest


class RootGroup(LazyGroup):
    """All of `cosim`."""

    lazy = COMMANDS
    groups = GROUPS


def _group(name: str, text: str, commands: dict[str, str]) -> LazyGroup:
    found = LazyGroup(name=name, help=text, no_args_is_help=True, rich_markup_mode="rich")
    found.lazy = commands
    return found


def _load(name: str, place: str) -> Any:
    module, function = place.split(".")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False,
                      rich_markup_mode="rich")
    app.command(name)(getattr(importlib.import_module(f"studies.commands.{module}"), function))
    command: Any = typer.main.get_command(app)
    for item in (command, *command.params):
        # Help is plain text: '[page]' is the name of an extra and not a style.
        item.help = escape(item.help or "")
    return command


def _first_sentence(place: str) -> str:
    """The first paragraph of a command's docstring, read without importing its module."""
    module, function = place.split(".")
    tree = ast.parse((Path(__file__).parent / "commands" / f"{module}.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n\n")[0]
    raise LookupError(f"studies.commands.{place} is not there")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cosim {version(DISTRIBUTION)}")
        raise typer.Exit


app = typer.Typer(cls=RootGroup, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False,
                  add_completion=True, rich_markup_mode="rich")


@app.callback()
def _root(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True,
        help="Print the version and exit.")] = False) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user error prints one message and ends with exit code 2."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    with running(shlex.join(["cosim", *words])):
        guarded(lambda: app(args=words, prog_name="cosim"))


def guarded(work: Callable[[], object]) -> None:
    """Do some work; a user error becomes one message on stderr and exit code 2.

    Ctrl-C becomes one word and exit code 130, `kill` the same and 143. What the system refuses, a
    full disk say, is one message and exit code 1.
    """
    try:
        with Stopping():
            try:
                work()
            finally:
                sys.stdout.flush()
    except Stopped as stopped:
        print("stopped.", file=sys.stderr)
        sys.exit(exit_code(stopped.signal))
    except Exception as error:
        if isinstance(error, user_errors()):
            _say(str(error))
            sys.exit(EXIT_USER_ERROR)
        if isinstance(error, ModuleNotFoundError):
            _say_missing(error)
        if not isinstance(error, OSError):
            raise
        _say(f"{error.strerror or str(error) or type(error).__name__}"
             + (f": {error.filename}" if error.filename else ""))
        # What could not be printed must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_SYSTEM_ERROR)


def _say_missing(error: ModuleNotFoundError) -> None:
    """End with one line if a module of an extra is missing; any other module is a fault."""
    from studies.plain.errors import missing_extra

    missing = missing_extra("this command", error.name or "")
    if missing is not None:
        _say(str(missing))
        sys.exit(EXIT_USER_ERROR)


def _say(text: str) -> None:
    from studies.plain.terminal import printable, terminal

    console = terminal(stderr=True)
    console.print("error: ", style="bold red", end="")
    console.print(printable(text), highlight=False, soft_wrap=True)


def user_errors() -> tuple[type[Exception], ...]:
    """What a wrong argument or file raises; imported when one has been raised, not before."""
    from arch_models.fields import FieldError
    from arch_models.memory import MemoryParameterError
    from cosim.program.table import ProgramError
    from studies.plain.errors import UserError
    from workloads.graph import GraphError

    return UserError, FieldError, GraphError, ProgramError, MemoryParameterError


if __name__ == "__main__":
    main()
