"""A small AGC frame, lowered: the whole network at 32 x 64 and width 8."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from arch_models.board import Board, load_board
from arch_models.overlay import Engine, Overlay, default_overlay
from cosim.build import build
from cosim.lowering.lower import Lowered
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import NARROW, Graph, Operator

#: A small frame compiles longer than it runs.
QUICK = ("-std=c++14", "-O0")
SMALL = AgcConfig(width=8, rows=32, cols=64, motion_width=8, motion_blocks=2, blocks=2,
                  keypoints=5)


@cache
def board() -> Board:
    return load_board("pynq-z1")


@cache
def small_graph() -> Graph:
    return agc_graph(SMALL, seed=3)


def lowered_frame(overlay: Overlay, frames: int = 1, graph: Graph | None = None) -> Lowered:
    found = build(graph or small_graph(), overlay, board(), frames)
    assert isinstance(found, Lowered)
    return found


def without(*engines: Engine) -> Overlay:
    """The default overlay with some engines left to the host."""
    base = default_overlay()
    return dataclasses.replace(base, engines=base.engines - set(engines))


@cache
def mixed_graph() -> Graph:
    """The small frame with weights of 4 bits in two convolutions of three."""
    graph, draw = small_graph(), np.random.default_rng(0)
    found = [layer for layer in graph.layers if layer.operator is Operator.CONVOLUTION]
    return dataclasses.replace(graph, constants=dict(graph.constants) | {
        layer.constants["weights"]: draw.integers(
            *NARROW, graph.constant(layer, "weights").shape, np.int8, endpoint=True)
        for index, layer in enumerate(found) if index % 3 < 2})
