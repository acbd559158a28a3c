"""The least energy of many designs, from what all of them must do and how long they take at least.

The law is that of `arch_models.power.energy`, asked with least counts and least sites. It grows
with each of them, which makes it a bound; docs/proof.md has the reasons term by term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.overlay import Overlay, Wait
from arch_models.power.energy import Sites, total_joules
from arch_models.units import NS_PER_S, ROUNDING
from cosim.analysis.hosts import HostStep
from cosim.analysis.least import Least
from cosim.lowering.lower import Lowered
from cosim.program.table import layer_bytes
from studies.certify.boxes import Box
from studies.certify.parts import Parts
from studies.evaluation.activity import count, least_activity
from studies.evaluation.evaluate import pixels
from studies.evaluation.values import MICROJOULES
from studies.search.space import Value
from workloads.graph import Graph


class Span(NamedTuple):
    """Seconds at the least: of a frame, of the processor's work in it, and of the frame without
    that work. Numbers or arrays."""

    whole_s: Any
    host_s: Any
    fabric_s: Any


class Joules:
    """Energies of one network on one board, in uJ a pixel. `memory`: as of an evaluation."""

    def __init__(self, graph: Graph, board: Board, memory: str) -> None:
        self.board, self.pixels = board, pixels(graph)
        # `ddr3` counts the rows that it opens, `flat` takes so many bytes a row.
        self.misses = None if memory == "flat" else 0

    def of_box(self, box: Box, parts: Parts, work: Least, span: Callable[[Any], Span],
               clock_hz: int, array_known: bool = False) -> float:
        """Of every design of a box, none of which has a faster clock; `span`: its times by clock.
        `array_known`: all have the same array and masters' roles.

        A slower clock takes longer, but the clock tree runs fewer cycles beside the processor: the
        least of all rates.
        """
        clocks = np.array([rate for rate in self.board.clocks.rates_hz if rate < clock_hz]
                          + [clock_hz], float)
        overlay = parts.overlay(box.design(self._least_powered(box)))
        return float(np.min(self.least(work, span(clocks), clocks, overlay, parts.sites(box),
                                       array_known)))

    def least(self, work: Least, span: Span, clock_hz: Any, overlay: Overlay, sites: Sites,
              array_known: bool = True) -> Any:
        """Of designs that do at least this work, with at least these sites.

        What the frame takes beyond both spans is the processor's work or not: the energy is
        linear between the two, so the lesser of both ends is a bound.
        """
        rest = np.maximum(0.0, span.whole_s - span.host_s - span.fabric_s)
        ends = []
        for host_s, fabric_s in ((span.host_s + rest, span.fabric_s),
                                 (span.host_s, span.fabric_s + rest)):
            done = replace(work, cycles=(host_s + fabric_s) * clock_hz, host_ns=host_s * NS_PER_S)
            ends.append(total_joules(least_activity(
                done, clock_hz, overlay if array_known else None, self.misses),
                overlay, self.board, sites))
        return np.minimum(*ends) / self.pixels * MICROJOULES * (1 - ROUNDING)

    def of_program(self, lowered: Lowered, cycles: int, overlay: Overlay, sites: Sites) -> float:
        """Of designs with one program and at least these sites that take at least these cycles."""
        counts = count(lowered, layer_bytes(lowered.program), overlay)
        return float(total_joules(counts.activity(cycles, overlay.clock_hz, self.misses), overlay,
                                  self.board, sites)) / self.pixels * MICROJOULES

    def _least_powered(self, box: Box) -> dict[str, Value]:
        """The way to wait that takes the least power, and gates if a design may have them."""
        found: dict[str, Value] = {}
        if box.values("wait"):
            powers = {Wait.SLEEP.value: self.board.power.ps_sleep_w}
            found["wait"] = min(box.values("wait"), key=lambda way: powers.get(
                str(way), self.board.power.ps_poll_w))
        if True in box.values("clock_gating"):
            found["clock_gating"] = True
        return found


def span_of(steps: Iterable[HostStep], fabric_s: Any) -> Span:
    """Times of a frame whose layers in fabric take so long: all steps that nothing runs beside lie
    between them, the others may lie beside them."""
    alone_s, all_s = (sum(step.time_ns * times / NS_PER_S for step, times in pairs) for pairs in (
        [(step, step.alone) for step in steps], [(step, step.times) for step in steps]))
    return Span(alone_s + fabric_s, all_s, np.maximum(0.0, fabric_s - (all_s - alone_s)))
