"""What there is and whether it is sound: `list`, `design`, `lint`, `schema`, `boards`.

It changes nothing and searches nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from json import dumps as dump
from pathlib import Path
from typing import Annotated, TypedDict

import typer
from rich.table import Table

from arch_models.board import Board, board_names, load_board, read_board
from arch_models.boards.rules import problems
from arch_models.overlay import overlay_toml
from studies.commands.options import BoardName, Json, WorkloadOption, reads_onnx
from studies.evaluation import inputs
from studies.evaluation.remedy import held
from studies.plain.errors import UserError
from studies.plain.files import check_writable, check_writables, write_json, write_text
from studies.plain.records import encode
from studies.plain.terminal import grid, say_unchecked, terminal
from studies.report.documents import Search, load_search
from studies.report.sheet import parameters
from studies.schemas import FILES, schema
from studies.why.lint import Findings, lint
from workloads.library import ALIASES, description, names


class BoardRow(TypedDict):
    """A board of `cosim boards --json`. Rates in 10^6 a second; `guesses` among its `numbers`."""

    name: str
    title: str
    dsp: int
    bram36: int
    lut: int
    ff: int
    ports: list[str]
    ddr_bits: int
    ddr_mt_per_s: int
    ddr_peak_mb_per_s: int
    numbers: int
    of_them_guesses: int
    unchecked: list[str]


BoardRows = Sequence[BoardRow]


def _row(board: Board) -> BoardRow:
    part = board.part
    guesses = sum(item.status == "guess" for item in board.coefficients)
    return {"name": board.name, "title": board.title, "dsp": part.dsp, "bram36": part.bram36,
            "lut": part.lut, "ff": part.ff, "ports": [port.name for port in board.ports],
            "ddr_bits": board.ddr.data_bus_bits,
            "ddr_mt_per_s": round(2 * board.ddr.clock_hz / 1e6),
            "ddr_peak_mb_per_s": round(board.ddr.peak_bytes_per_s / 1e6),
            "numbers": len(board.coefficients), "of_them_guesses": guesses,
            "unchecked": list(board.unchecked)}


def boards(json: Json = None) -> None:
    """List the boards that ship: fabric, ports, DRAM peak, and how many numbers are guesses."""
    check_writables(json)
    rows = [_row(load_board(name)) for name in board_names()]
    if json is not None:
        write_json(json, rows)
    table = grid("Boards", ("name", "DSP", "BRAM36", "LUT", "ports", "bits", "MT/s",
                            "MB/s", "guesses", "unchecked"), ("ports", "unchecked"))
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "dsp", "bram36", "lut")),
                      " ".join(row["ports"]),  # type: ignore[arg-type]
                      *(str(row[key]) for key in ("ddr_bits", "ddr_mt_per_s",
                                                  "ddr_peak_mb_per_s")),
                      f"{row['of_them_guesses']} of {row['numbers']}",
                      ", ".join(row["unchecked"]) or "-")  # type: ignore[arg-type]
    terminal().print(table)


def list_all() -> None:
    """List the networks, designs and boards that ship, with what each is.

    A network may also be an .onnx file; designs and boards .toml files of your own.
    """
    console = terminal()
    networks = grid("Networks", ("name", "what it is"), ("what it is",))
    for name in names():
        networks.add_row(name, f"short for {ALIASES[name]}" if name in ALIASES
                         else description(name))
    designs = grid("Designs", ("name", "array", "engines", "masters"), ("engines",))
    for name in inputs.design_names():
        item = inputs.design(name)
        designs.add_row(name, f"{item.tm} x {item.tn} x {item.columns}",
                        ", ".join(sorted(item.engines)), str(len(item.masters)))
    shipped = grid("Boards", ("name", "what it is"), ("what it is",))
    for name in board_names():
        shipped.add_row(name, load_board(name).title)
    for table in (networks, designs, shipped):
        console.print(table)
    console.print("Figures of the boards: cosim boards. A design's parameters: cosim design NAME.")


def show_design(
    design: Annotated[str, typer.Argument(
        help="A design (a shipped name or .toml file); or a search's file, alone for the list of "
        "its front, with #NUMBER or #chosen behind it for one design.")],
    board: Annotated[str | None, typer.Option(
        "--board", "-b", help="For a design of a search: its board, a name or a .toml file.",
        show_default="as the search was asked")] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="Write the design to this file (.toml).", show_default=False)] = None,
) -> None:
    """Show a design's parameters, or list the front of a search; write a member of it as a file.

    Example: cosim design out/explore/agc-w64-pynq-z1/explore.json#chosen --out mine.toml
    """
    if out is not None:
        check_writable(out, ".toml")
    name, mark, member = design.partition("#")
    console = terminal()
    if name.endswith(".json"):
        search = load_search(Path(name))
        if not mark:
            if out is not None:
                raise UserError(f"--out needs one design of {name}, for example {name}#chosen")
            console.print(_front(search))
            say_unchecked(console, inputs.board(board or search.board))
            return
        overlay = search.design(_number(search, name, member),
                                inputs.board(board or search.board))
    elif board is not None:
        raise UserError(f"--board {board}: {design} has its parameters on every board; only a "
                        "design of a search, FILE.json#NUMBER, needs its board.")
    elif mark:
        raise UserError(f"{design!r}: # names a design of a search, a .json file.")
    else:
        overlay = inputs.design(design)
    table = grid(f"Design {overlay.name}", ("field", "value"), ("value",))
    for row in parameters(overlay):
        table.add_row(*row)
    console.print(table)
    if out is not None:
        write_text(out, overlay_toml(overlay))
        console.print(f"wrote {out}", soft_wrap=True)


def _number(search: Search, name: str, member: str) -> int:
    if member == "chosen" and search.chosen_number is not None:
        return search.chosen_number
    if not (member.isascii() and member.isdigit()):
        raise UserError(f"{name}#{member}: must be the number of a design, or chosen; "
                        f"`cosim design {name}` lists them.")
    return int(member[:12])


def _front(search: Search) -> Table:
    """The front, fastest first, by the search's own memory model."""
    found = [search.designs[number] for number in search.front]
    kinds = ("DSP", "BRAM36", "LUT", "FF")
    sites = [name for name in kinds if found and name in found[0].resources]
    table = grid(f"Front of the search for {search.workload} on {search.board} (predicted, "
                 "flat)", ("design", "ms", "uJ/pixel", *sites, ""))
    for item in sorted(found, key=lambda item: item.latency_ms or 0.0):
        table.add_row(f"#{item.number}", f"{item.latency_ms:.2f}",
                      f"{item.energy_uj_per_pixel:.2f}",
                      *(f"{item.resources[name]:g}" for name in sites),
                      "chosen" if item.number == search.chosen_number else "")
    table.caption = "chosen: the smallest latency times energy with ddr3"
    return table


@reads_onnx
def lint_design(
    design: Annotated[str, typer.Argument(help="A shipped design, or a .toml file.")],
    workload: WorkloadOption = "agc-w64",
    board: BoardName = "pynq-z1",
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Find what is legal in a design but surely not meant: idle engines, buffers too large.

    Also shared ports beside free ones, fusions that no layer takes, layers pushed to the host, and
    clocks that the board or the fabric does not reach. Example: cosim lint default
    """
    check_writables(json)
    on = inputs.board(board)
    graph, overlay = inputs.workload(workload, reading), inputs.design(design)
    found = held(lint(graph, overlay, on), graph, overlay, on)
    if json is not None:
        write_json(json, encode(Findings(workload, design, on.name, on.unchecked, found)))
    console = terminal()
    for item in found:
        console.print(f"{item.field}: {item.said}" + (f". Change: {item.change}"
                                                      if item.change else ""),
                      soft_wrap=True, highlight=False)
    console.print(f"{len(found)} finding{'s' * (len(found) != 1)}: {design} for {workload} on "
                  f"{board}", soft_wrap=True, highlight=False)
    say_unchecked(console, on)
    changes = [item.change for item in found if item.change]
    if changes:
        console.print("What a change brings: " + shlex.join(
            ["cosim", "what-if", design, "-w", workload, "-b", board, *reading.words(),
             "--set", changes[0]]), soft_wrap=True,
            highlight=False)


def print_schema(
    kind: Annotated[str, typer.Argument(
        help=f"{', '.join(FILES)}.")],
) -> None:
    """Print the JSON Schema of a kind of file, for editors and other programs.

    Example: cosim schema design
    """
    typer.echo(dump(schema(kind), indent=2))


def check_board(
    file: Annotated[Path, typer.Argument(help="A board file, .toml; see the shipped ones.")],
) -> None:
    """Read a board file of your own and list all that is wrong with it, or say that it is fine.

    Example: cosim board check my-board.toml
    """
    if file.suffix != ".toml":
        raise UserError(f"{str(file)!r}: a board file ends in .toml.")
    board = read_board(file)
    wrong = problems(board)
    if wrong:
        lines = "\n".join(f"  {item}" for item in wrong)
        raise UserError(f"{file}: {len(wrong)} problem{'s' * (len(wrong) > 1)}\n{lines}")
    ddr = board.ddr
    guesses = sum(item.status == "guess" for item in board.coefficients)
    terminal().print(
        f"{file}: fine. {board.title}: {board.part.dsp} DSP, {board.part.bram36} BRAM36; ports "
        f"{', '.join(port.name for port in board.ports)}; DRAM {ddr.data_bus_bits} bits at "
        f"{2 * ddr.clock_hz / 1e6:.0f} MT/s, {ddr.size_bytes >> 20} MiB; "
        f"{len(board.coefficients)} numbers with source and status, {guesses} of them guesses"
        + (f"; unchecked: {', '.join(board.unchecked)}" if board.unchecked else ""),
        soft_wrap=True, highlight=False)
