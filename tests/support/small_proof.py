"""A small network and a sub-space of its designs that tests can enumerate, and proofs of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from arch_models.board import BOARDS, load_board
from arch_models.overlay import Engine, Infeasible, load_overlay
from studies.certify.bounds import Question
from studies.certify.branching.book import Book
from studies.certify.branching.branch import Branch, Settings
from studies.certify.certificate import claim_of
from studies.certify.goals import Aim, Point, point_of
from studies.evaluation.evaluate import evaluate
from studies.search.space import Axis, Space, default_space, designs
from studies.search.space_overlays import overlay_of
from tests.support.tiny_graphs import TinyGraph
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Graph
from workloads.library import load
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import unicorn_graph

BOARD, BASE = load_board("pynq-z1"), load_overlay("default")
SMALL = agc_graph(AgcConfig(width=8, blocks=1, motion_width=8, motion_max=32, motion_blocks=2,
                            rows=32, cols=32, keypoints=3))
#: A sub-space that is enumerated: arrays, engines, buffers, masters, limits and layouts.
NARROW = {"tm": (8, 16), "tn": (8,), "columns": (2,), "dsp_packing": (True,),
          "requantize_cycles": (8,), "input_words": (1024, 4096), "weight_words": (128,),
          "output_words": (512, 2048), "accumulator_words": (1024,), "input_banks": (1, 2),
          "weight_banks": (2,), "output_banks": (2,), "input_masters": (1,),
          "input_port": ("HP0", "ACP"), "weight_port": ("HP1",), "output_port": ("HP0",),
          "port_width_bits": (32, 64), "read_outstanding": (2, 12), "write_outstanding": (8,),
          "fetch": ("on_chip",), "start": ("frame",), "layout": ("dense", "row_aligned"),
          "fuse_pool": (True,), "fuse_upsample": (True,), "fuse_add": (True,),
          "fabric_elementwise": (False, True), "fabric_lookup": (True,),
          "fabric_softmax": (True,), "fabric_grid_sample": (True,)}
#: A design from which the best one of the space is not found at once.
SLOW = replace(BASE, tm=8, input_words=1024, output_words=512, engines=frozenset(
    {Engine.CONVOLUTION}))
EXACT = Settings()


def narrow_space(graph: Graph = SMALL, **changes: tuple) -> Space:
    """The sub-space of a network; an axis that is not named has its first value."""
    values = {**NARROW, **changes}
    return Space(tuple(Axis(axis.name, values.get(axis.name, axis.values[:1]), axis.when)
                       for axis in default_space(BOARD, graph).axes))


def stepped() -> Graph:
    """Sampler steps, which end on the processor, with products of a vector that wait for weights,
    and a picture behind them."""
    return unicorn_graph(UnicornConfig(
        images=16, width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8,
        groups=4, embedding=128, latent_rows=8, latent_cols=8, decoder_widths=(16, 8), steps=3))


def grouped() -> Graph:
    """Depthwise convolutions, which two engines can run; one may absorb the sum behind it."""
    tiny = TinyGraph(0, 8, 15, 17)
    value = tiny.convolution("wide", "in", 48, 1)
    three = tiny.convolution("three", value, 48, 3, 1, 1, relu=True, groups=48)
    five = tiny.convolution("five", three, 48, 5, 1, 2, groups=48)
    value = tiny.convolution("half", tiny.sum("sum", five, three), 48, 3, 2, 0, groups=48)
    return tiny.graph(tiny.convolution("after", value, 9, 1))


def weighty() -> Graph:
    """Convolutions of few pixels and many channels, behind some of many pixels."""
    tiny = TinyGraph(0, 8, 24, 24)
    value = tiny.convolution("first", "in", 16, 3, 1, 1)
    value = tiny.convolution("less", value, 64, 5, 5, 0)
    for number in range(4):
        value = tiny.convolution(f"wide{number}", value, 128, 3, 1, 1)
    return tiny.graph(tiny.convolution("last", value, 256, 4))


def clipped() -> Graph:
    """Weights of many channels with tables, planes and the processor's steps between them."""
    tiny = TinyGraph(0, 8, 12, 12)
    value, count = tiny.convolution("first", "in", 64, 3, 2, 1), 64
    for number in range(3):
        value = tiny.lookup(f"clip{number}", value)
        value = tiny.convolution(f"deep{number}", value, count, 3, 1, 1, groups=count)
        value = tiny.affine(f"scale{number}", value)
        count = 64 << number
        value = tiny.convolution(f"wide{number}", value, count, 1)
    return tiny.graph(tiny.convolution("last", tiny.pool("pool", value), 256, 3))


def proved(settings=EXACT, workers=1, book=None, space=None, base=BASE, aims=(Aim.LATENCY,),
           memory="flat", graph=SMALL, scheduler=None):
    """A proof that has ended, and its last state."""
    question = Question(graph, BOARD, base, space or narrow_space(graph), aims, memory)
    branch = Branch(question, settings, book or Book(None, "", aims))
    return branch, branch.run(workers, scheduler)


def best(state) -> float:
    """The figure of the only design in front."""
    return state.front.members[0].figures[0]


def below(state) -> float:
    """What no design is below."""
    return best(state) * state.factor


def claimed(branch: Branch, state):
    """What its certificate claims."""
    return claim_of(branch.question, state.front, state.factor)


@cache
def optimum() -> float:
    """The least latency of the space; a test compares it with that of every design."""
    return best(proved()[1])


@cache
def enumerated(memory: str) -> tuple[Point, ...]:
    """The figures of every design of the sub-space."""
    return figures_of(SMALL, narrow_space(), memory)


def figures_of(graph: Graph, space: Space, memory: str) -> tuple[Point, ...]:
    """The figures of every design of a space that can be built."""
    found = (evaluate(graph, overlay_of(design, BASE, BOARD), BOARD, memory, 1)
             for design in designs(space))
    return tuple(point_of(item) for item in found if not isinstance(item, Infeasible))


def proof_words(tmp_path) -> list[object]:
    """A proof of few designs of a shipped network on a board file of one's own."""
    board, space = tmp_path / "mine.toml", tmp_path / "space.toml"
    board.write_text((BOARDS / "pynq_z1.toml").read_text().replace('"pynq-z1"', '"mine"'))
    space.write_text("[axes]\n" + "".join(
        f"{axis.name} = {json.dumps(list(NARROW.get(axis.name, axis.values[:1])))}\n"
        for axis in default_space(BOARD, load("agc-w16")).axes))
    return ["explore", "agc-w16", "--prove", "--board", board, "--space", space, "--workers", 1]
