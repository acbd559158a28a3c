"""The `cosim` command: wires the subcommands together and turns user errors into one message.

It does not compute anything; each subcommand is a thin wrapper over a study.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer
from rich.console import Console

from arch_models.fields import FieldError
from arch_models.memory import MemoryParameterError
from cosim.program.table import ProgramError
from studies.commands import (
    benchmark,
    boards,
    calibrate,
    compare,
    emit,
    explain,
    explore,
    measure,
    report,
    serve,
    simulate,
    validate,
    what_if,
)
from studies.plain.errors import UserError
from workloads.graph import GraphError

USER_ERRORS = (UserError, FieldError, GraphError, ProgramError, MemoryParameterError)
EXIT_USER_ERROR = 2

app = typer.Typer(
    help="Predict how fast and how hungry an FPGA accelerator for a neural codec decoder will "
         "be, before it exists; search for a better one; and write it as HLS C++.\n\n"
         "Start with:  cosim simulate agc-w64",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    rich_markup_mode="rich",
)
board_app = typer.Typer(help="Look after board files of your own.", no_args_is_help=True)
validate_app = typer.Typer(help="Check the models against figures that others measured.",
                           no_args_is_help=True)

app.command("simulate")(simulate.simulate)
app.command("explore")(explore.explore)
app.command("emit")(emit.emit_design)
app.command("serve")(serve.serve_studies)
app.command("report")(report.report)
app.command("boards")(boards.boards)
app.command("what-if")(what_if.what_if_command)
app.command("compare")(compare.compare_designs)
app.command("explain")(explain.explain_design)
app.command("measure")(measure.measure)
app.command("calibrate")(calibrate.calibrate)
app.command("benchmark")(benchmark.benchmark_command)
board_app.command("check")(boards.check_board)
validate_app.command("memory")(validate.memory)
validate_app.command("vta-pynq")(validate.vta_pynq)
validate_app.command("fpga2015")(validate.fpga2015)
validate_app.command("overlap")(validate.overlap)
validate_app.command("board")(validate.board)
validate_app.command("rtl")(validate.rtl)
validate_app.command("onnx")(validate.onnx)
validate_app.command("page")(validate.page)
app.add_typer(board_app, name="board")
app.add_typer(validate_app, name="validate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user error prints one message and ends with exit code 2."""
    guarded(lambda: app(args=list(arguments) if arguments is not None else None,
                        prog_name="cosim"))


def guarded(work: Callable[[], object]) -> None:
    """Do some work; a user error becomes one message on stderr and exit code 2."""
    try:
        work()
    except USER_ERRORS as error:
        Console(stderr=True).print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False,
                                   soft_wrap=True)
        sys.exit(EXIT_USER_ERROR)


def _plain(text: str) -> str:
    """Square brackets of a message are text, not rich markup."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
