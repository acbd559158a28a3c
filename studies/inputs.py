"""Turns the names and files a user gives into a graph, an overlay and a board.

It does not evaluate. Whatever is unknown is refused with the nearest name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from arch_models.board import Board, load_board
from arch_models.fields import build
from arch_models.overlay import DESIGNS, Overlay, load_overlay
from studies.errors import UserError, unknown
from studies.evaluation import Evaluation
from workloads.graph import Graph
from workloads.library import load, names

MEMORY_MODELS = ("flat", "ddr3")


def workload(name: str) -> Graph:
    """A network of the library by name; `UserError` with the nearest name."""
    if name not in names():
        raise unknown("workload", name, names())
    return load(name)


def board(name: str) -> Board:
    """A shipped board by name, or one from a .toml file; `FieldError` names what is wrong."""
    return load_board(name)


def design_names() -> tuple[str, ...]:
    """The designs that ship."""
    return tuple(sorted(path.stem.replace("_", "-") for path in DESIGNS.glob("*.toml")))


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
    return build(Overlay, tomllib.loads(result.design_file), "design_file")


def library_name(result: Evaluation) -> str:
    """The library's name of the network in a stored result; `UserError` if it has none."""
    known = [name for name in names() if result.workload.startswith(name)]
    if not known:
        raise unknown("workload", result.workload, names())
    return max(known, key=len)
