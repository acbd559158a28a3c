"""Turns the names and files a user gives into a graph, an overlay and a board.

It does not evaluate. Whatever is unknown is refused with the nearest name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arch_models.board import Board, load_board
from arch_models.files import parse_toml
from arch_models.overlay import DESIGNS, Origin, Overlay, load_overlay, overlay_of_table
from studies.evaluation.stored import load_evaluation
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError, unknown
from workloads.graph import Graph
from workloads.library import asked_steps, imported, load, names

MEMORY_MODELS = ("flat", "ddr3")


@dataclass(frozen=True)
class Reading:
    """How an .onnx file is read.

    `calibration`: an .npz file with inputs by name, samples along the first axis; without it
    random inputs are used. `symmetric`: widen ranges with a zero point to symmetric ones.
    `shapes`: NAME=1,3,160,160 for inputs whose sizes the file leaves open. `cached`: inputs that
    stay for a group of pictures. `fixed`: NAME=16000 for inputs that never change.
    """

    calibration: Path | None = None
    symmetric: bool = False
    shapes: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The shapes by input; `UserError` for text that is none."""
        found = {}
        for text in self.shapes:
            name, _, numbers = text.rpartition("=")
            sizes = numbers.split(",")
            if not name or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
                raise UserError(f"--shape {text!r} must be INPUT=1,3,160,160: the input's name and "
                                "a size above 0 for each axis.")
            found[name] = tuple(int(size) for size in sizes)
        return found

    def values(self) -> dict[str, tuple[float, ...]]:
        """The numbers of inputs that never change; `UserError` for text that is none."""
        found: dict[str, tuple[float, ...]] = {}
        for text in self.fixed:
            name, _, numbers = text.rpartition("=")
            try:
                found[name] = tuple(float(number) for number in numbers.split(","))
            except ValueError:
                name = ""
            if not name or not np.isfinite(found[name]).all():
                raise UserError(f"--value {text!r} must be INPUT=16000 or INPUT=1,2,3: the "
                                "input's name and its numbers.")
        return found

    def words(self) -> tuple[str, ...]:
        """The options of a command line that ask for it."""
        return (*(("--calibration", str(self.calibration)) if self.calibration else ()),
                *(("--symmetric",) if self.symmetric else ()),
                *(word for text in self.shapes for word in ("--shape", text)),
                *(word for text in self.cached for word in ("--cached", text)),
                *(word for text in self.fixed for word in ("--value", text)))


PLAIN = Reading()


@dataclass(frozen=True)
class Subject:
    """What a study looks into: a design with the network, the board and the memory model.

    `network`: as it was asked for. `stored`: the result it was read from, None for a design.
    """

    name: str
    graph: Graph
    overlay: Overlay
    board: Board
    memory: str
    network: str = ""
    stored: Evaluation | None = None


DEFAULT_WORKLOAD, DEFAULT_BOARD, DEFAULT_MEMORY = "agc-w64", "pynq-z1", "ddr3"


def subject(text: str, workload_name: str | None = None, board_name: str | None = None,
            memory: str | None = None, reading: Reading = PLAIN) -> Subject:
    """A design (shipped name or .toml file), or a result that `cosim simulate --json` wrote.

    A result brings its own network, board and memory model; the arguments replace them, and
    stand beside a design (agc-w64, pynq-z1 and ddr3 where they are None).
    """
    stored = None
    if text.endswith(".json"):
        stored = load_evaluation(Path(text))
        overlay = design_of(stored)
        workload_name = workload_name or network_of(stored)
        board_name, memory = board_name or stored.board, memory or stored.memory_model
    else:
        overlay = design(text)
    asked = workload_name or DEFAULT_WORKLOAD
    return Subject(text, workload(asked, reading), overlay, board(board_name or DEFAULT_BOARD),
                   memory_model(memory or DEFAULT_MEMORY), asked, stored)


def pair(a: str, b: str, workload_name: str | None = None, board_name: str | None = None,
         memory: str | None = None, reading: Reading = PLAIN) -> tuple[Subject, Subject]:
    """Two subjects; a design beside a result takes the result's network, board and memory."""
    first, second = (subject(text, workload_name, board_name, memory, reading)
                     for text in (a, b))
    known = first if first.stored else second
    if known.stored is None:
        return first, second
    shared = (workload_name or network_of(known.stored), board_name or known.stored.board,
              known.memory, reading)
    return (first if first.stored else subject(a, *shared),
            second if second.stored else subject(b, *shared))


def workload(name: str, reading: Reading = PLAIN) -> Graph:
    """A network of the library by name, or an .onnx file, as an int8 graph.

    `reading` is for .onnx files. Raises `UserError` with the nearest name for an unknown network,
    `GraphError` with the reason for a file that cannot be imported.
    """
    return network(name, reading)[0]


def network(name: str, reading: Reading = PLAIN) -> tuple[Graph, str]:
    """A workload, and how an .onnx file's numbers came about ("" for a network of the library).

    A `reading` other than the plain one is for .onnx files only; `UserError` otherwise.
    """
    if name.endswith(".onnx"):
        graph, note = imported(name, reading.calibration, reading.symmetric, reading.sizes(),
                               reading.cached, reading.values())
        return graph, f"{Path(name).name}: {note}"
    if reading != PLAIN:
        raise UserError(f"--calibration, --symmetric, --shape, --cached and --value are for .onnx "
                        f"files; {name!r} is a network of the library, quantized already.")
    if asked_steps(name)[0] not in names():
        raise unknown("workload", name, (*names(), "an .onnx file"))
    return load(name), ""


def with_steps(name: str, steps: int | None) -> str:
    """The name of a workload with so many sampler steps; its own number if None."""
    if steps is not None and name.endswith(".onnx"):
        raise UserError("--steps is for decoders with a sampler; an .onnx file has none.")
    return name if steps is None else f"{asked_steps(name)[0]}@{steps}"


def first_input(name: str, graph: Graph, reading: Reading) -> dict[str, np.ndarray] | None:
    """The first calibration input of an .onnx file as integers of its graph, None without one."""
    if reading.calibration is None:
        return None
    from workloads.onnx import importer

    return importer.first_input(Path(name), graph, reading.calibration, reading.sizes(),
                                reading.values())


def board(name: str) -> Board:
    """A shipped board by name, or one from a .toml file; `FieldError` names what is wrong."""
    return load_board(name)


def design_names() -> tuple[str, ...]:
    """The designs that ship."""
    return tuple(sorted(path.stem.replace("_", "-") for path in DESIGNS.glob("*.toml")))


def own_designs() -> list[Overlay]:
    """The designs that ship, but for those of the literature, which are no hardware of ours."""
    shipped = map(design, design_names())
    return [item for item in shipped if item.origin is Origin.OWN]


def design(name: str) -> Overlay:
    """A shipped design by name, or one from a .toml file; the errors name the wrong field."""
    if name.endswith(".toml"):
        if not Path(name).exists():
            raise UserError(f"there is no design file {name!r}. Shipped designs: "
                            f"{', '.join(design_names())}; `cosim explore` writes new ones.")
    elif name not in design_names():
        raise unknown("design", name, (*design_names(), "a .toml file"))
    return load_overlay(name)


def memory_model(name: str) -> str:
    """The name of a memory model, checked."""
    if name not in MEMORY_MODELS:
        raise unknown("memory model", name, MEMORY_MODELS)
    return name


def design_of(result: Evaluation) -> Overlay:
    """The design a stored result was made with; `UserError` when the result does not hold it."""
    if not result.design_file:
        raise UserError("the result holds no design file; `cosim simulate --json FILE` writes one "
                        "that does.")
    return overlay_of_table(parse_toml(result.design_file, "design_file"), "design_file")


def network_of(result: Evaluation) -> str:
    """The network of a stored result, as it was asked for; `UserError` if it does not say."""
    if not result.network:
        raise UserError(f"the result does not say how its network {result.workload!r} was asked "
                        "for; give it: --workload NAME or FILE.onnx")
    return result.network
