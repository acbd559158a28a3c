"""What a tensor memory is worth: traffic, latency and energy of both decoders with and without.

Everything is predicted. It searches nothing: one design a network, whose OUTPUT and accumulators
are small enough that block RAM is left, with every size of the memory that a board still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from arch_models.overlay import TENSOR_MEMORIES_KIB, Infeasible, Overlay
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate
from studies.evaluation.values import MICROJOULES, Evaluation
from studies.plain.markdown import markdown_table
from studies.plain.terminal import grid

#: Networks and the shipped designs that they run on.
DESIGNS = {"agc-w16": "default", "agc-w32": "default", "agc-w64": "default",
           "unicorn-n256": "diffusion"}
BOARDS = ("pynq-z1", "zc702", "zedboard", "ultra96", "kria-kv260", "zcu104")
MEMORIES = ("flat", "ddr3")
#: Words of OUTPUT and of the accumulators, half of the shipped ones.
ROOM = 1024


@dataclass(frozen=True)
class Request:
    """Networks, boards and memory models."""

    networks: Sequence[str] = tuple(DESIGNS)
    boards: Sequence[str] = BOARDS
    memories: Sequence[str] = MEMORIES


@dataclass(frozen=True)
class Row:
    """One design on one board; `kib` 0 is the one without, the first of its kind."""

    network: str
    board: str
    memory: str
    kib: int
    traffic_bytes: int
    latency_ms: float
    energy_uj: float


Rows = Sequence[Row]


def with_room(design: Overlay) -> Overlay:
    """A design with ROOM words of OUTPUT and accumulators."""
    return replace(design, output_words=ROOM, accumulator_words=ROOM)


def run(request: Request = Request()) -> list[Row]:
    """Every network on every board, with each size that fits; those that nothing fits are left
    out."""
    return [row for name in request.networks for board in request.boards
            for memory in request.memories for row in _sizes(name, board, memory)]


def _sizes(name: str, board_name: str, memory: str) -> Iterator[Row]:
    graph, board = inputs.workload(name), inputs.board(board_name)
    base = with_room(inputs.design(DESIGNS[name]))
    for kib in TENSOR_MEMORIES_KIB:
        found = evaluate(graph, replace(base, tensor_memory_kib=kib), board, memory, 1)
        if isinstance(found, Infeasible):
            return
        if kib == 0 or kib >= 16:
            yield _row(name, board.label, memory, kib, found)


def _row(name: str, board: str, memory: str, kib: int, found: Evaluation) -> Row:
    return Row(name, board, memory, kib, found.bytes_read + found.bytes_written,
               found.latency_ms, found.energy.total_j * MICROJOULES)


def pairs(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Of each network, board and memory model the design without, and the one of the least
    energy among those with a tensor memory."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.network, row.board, row.memory), []).append(row)
    return [(found[0], min(found[1:], key=lambda row: row.energy_uj))
            for found in groups.values() if len(found) > 1]


COLUMNS = ("network", "board", "memory", "KiB", "DRAM, MB", "", "latency, ms", "", "energy, mJ", "")


def lines(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """Cells of a table: without -> with, and the change."""
    def change(before: float, after: float) -> str:
        return f"{100 * (after / before - 1):+.2f} %"

    return [(one.network, one.board, one.memory, str(other.kib),
             f"{one.traffic_bytes / 1e6:.2f} -> {other.traffic_bytes / 1e6:.2f}",
             change(one.traffic_bytes, other.traffic_bytes),
             f"{one.latency_ms:.2f} -> {other.latency_ms:.2f}",
             change(one.latency_ms, other.latency_ms),
             f"{one.energy_uj / 1e3:.1f} -> {other.energy_uj / 1e3:.1f}",
             change(one.energy_uj, other.energy_uj)) for one, other in pairs(rows)]


def page(rows: Iterable[Row]) -> str:
    """The table as Markdown."""
    return markdown_table(COLUMNS, lines(rows), right=range(3, len(COLUMNS)))


def show(console: Console, rows: Iterable[Row]) -> None:
    """The table on a terminal."""
    table = grid("With and without a tensor memory (predicted)", COLUMNS, left=COLUMNS[:3])
    for line in lines(rows):
        table.add_row(*line)
    console.print(table)
