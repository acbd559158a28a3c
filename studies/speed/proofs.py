"""Measures how fast spaces are proved on this machine, and how long a certificate takes to check.

It claims nothing about designs; `cosim explore --prove` does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from studies.certify.bounds import Question
from studies.certify.branching.book import Book
from studies.certify.branching.branch import Branch, Settings, State
from studies.certify.certificate import Certificate, claim_of, question_of, write_certificate
from studies.plain.machine import default_workers
from studies.search.space import Space, default_space
from studies.search.space_overlays import choice_of
from workloads.library import load

#: What the short proof leaves open besides buffers, ports, limits and layouts.
FIXED = ("tm", "tn", "columns", "dsp_packing", "requantize_cycles")
SHORT, LONG = "agc-w16", "agc-w64"
SHORT_SECONDS, LONG_SECONDS = 30.0, 1800.0


class Figure(NamedTuple):
    """A figure that was measured once."""

    name: str
    value: float
    unit: str


def short_figures() -> Iterator[Figure]:
    """Boxes a second on one core, and the check of the certificate, on the array of the default
    design. The proof ends after half a minute, whatever its gap."""
    branch, state = _proved(SHORT, "flat", SHORT_SECONDS, narrow=True, workers=1)
    yield Figure("boxes_per_s", state.boxes / state.seconds, "1/s")
    with tempfile.TemporaryDirectory() as folder:
        path, question = Path(folder) / "certificate.json", branch.question
        write_certificate(path, branch.bounds, claim_of(question, state.front, state.factor))
        began = time.perf_counter()
        found = Certificate(path)
        found.check(question_of(found, question.graph, question.board))
        yield Figure("check_certificate_s", time.perf_counter() - began, "s")


def long_figures() -> Iterator[Figure]:
    """The whole default space of agc-w64 on all cores, at most half an hour for each memory.

    `prove_agc_w64_flat_s` is left out if there is a gap by then; the gap is given in its place.
    """
    for memory in ("flat", "ddr3"):
        _, state = _proved(LONG, memory, LONG_SECONDS, narrow=False, workers=default_workers())
        name = f"prove_agc_w64_{memory}"
        if memory == "flat" and state.gap == 0:
            yield Figure(f"{name}_s", state.seconds, "s")
        else:
            yield Figure(f"{name}_gap", state.gap, "")


def _proved(workload: str, memory: str, seconds: float, narrow: bool, workers: int
            ) -> tuple[Branch, State]:
    graph, board, base = load(workload), load_board("pynq-z1"), load_overlay("default")
    space = default_space(board, graph)
    if narrow:
        space = _narrowed(space, choice_of(base, space) or {})
    branch = Branch(Question(graph, board, base, space, memory=memory),
                    Settings(seconds=seconds), Book(None, ""))
    return branch, branch.run(workers)


def _narrowed(space: Space, choice: dict) -> Space:
    return replace(space, axes=tuple(
        replace(axis, values=(choice[axis.name],)) if axis.name in FIXED else axis
        for axis in space.axes))
