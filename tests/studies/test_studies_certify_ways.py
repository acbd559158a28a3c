"""Is a program that a bound does not exclude simulated in every way that differs, and is what is
stopped before its end late?"""

from __future__ import annotations

import random
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, Role
from cosim.analysis.alone import Alone
from cosim.analysis.behind import Behind
from cosim.build import Builder
from cosim.executors import fast
from cosim.executors.alike import alike
from cosim.lowering.wiring import units_of
from cosim.memory.bursts import FAR
from studies.certify.bounds import Rule
from studies.certify.boxes import Box
from studies.certify.branch import Settings
from studies.certify.certificate import Certificate, write_certificate
from studies.certify.parts import PORTS as SIDES
from studies.certify.programs import LIMITS, Ways, first_late, private, with_ways
from studies.plain.errors import UserError
from studies.search.space import Space, default_space
from studies.search.space_overlays import overlay_of
from tests.support.small_proof import (
    BASE,
    BOARD,
    SMALL,
    below,
    best,
    claimed,
    figures_of,
    narrow_space,
    proved,
)

PORTS = tuple(port.name for port in BOARD.ports)
#: Few buffers, many ways.
WAYS = {"tm": (16,), "layout": ("dense",), "port_width_bits": (64,), "input_words": (4096,),
        "output_words": (2048,), "fabric_elementwise": (True,),
        "input_port": ("HP0", "HP1", "ACP"), "weight_port": ("HP0", "HP1", "HP2"),
        "output_port": ("HP0", "ACP"), "read_outstanding": (4, 12), "write_outstanding": (2, 8),
        "start": ("frame", "layer")}


def programs(count: int, seed: int):
    """Random designs that can be built, with their programs."""
    space, generator, builder = default_space(BOARD, SMALL), random.Random(seed), Builder(
        SMALL, BOARD)
    found = 0
    while found < count:
        choice = space.sample(generator)
        overlay = overlay_of(choice, BASE, BOARD)
        mapping = builder.mapping(overlay)
        lowered = mapping if isinstance(mapping, Infeasible) else builder.lower(overlay, mapping)
        if not isinstance(lowered, Infeasible):
            found += 1
            yield choice, overlay, mapping, lowered.program


def space_programs(space: Space, start: str) -> list[Box]:
    """Boxes of a space in which only ports and limits are open."""
    boxes = [Box(space).narrowed(start=(start,))]
    for axis in space.axes:
        if axis.name not in (*SIDES, *LIMITS):
            boxes = [part for box in boxes for part in (
                box.parts(axis.name) if axis.name in box.open else [box])]
    return boxes


def behind(overlay, program):
    """What a program's frame takes at least behind each layer."""
    return Behind().cycles(*private(program, memory_for(BOARD, overlay, "flat")),
                           len(overlay.masters_of(Role.INPUT)))


def test_behind_adds_up_the_layers_alone():
    for _, overlay, mapping, program in programs(8, 1):
        alone = Alone(SMALL, overlay, BOARD)
        found = behind(overlay, program)
        for number, item in enumerate(mapping.layers[1:], start=1):
            if item.engine is not None and overlay.control.start.value == "frame" and (
                    mapping.layers[number - 1].engine is not None):
                assert found[number - 1] - found[number] == alone.cycles(mapping.layouts, item)


@pytest.mark.parametrize("share", [0.9, 0.99, 0.999])
def test_late_is_late_and_what_is_not_late_is_whole(share):
    late = 0
    for _, overlay, _, program in programs(25, 2):
        memory = memory_for(BOARD, overlay, "ddr3")
        whole = fast.simulate(program, memory)
        bar = int(whole.total_cycles * share)
        found = fast.simulate_until(program, memory, bar - behind(overlay, program))
        late += found is None
        assert found in (None, whole.total_cycles)
        same = fast.simulate_until(program, memory, whole.total_cycles - behind(overlay, program))
        assert same == whole.total_cycles
    assert late > 15


def test_a_lower_limit_alone_takes_what_its_private_ports_take():
    """With the steps of the processor, and limits that bind: each by itself, whatever was asked."""
    checked = 0
    space = narrow_space(**WAYS | {"read_outstanding": (1, 4, 12), "write_outstanding": (1, 8)})
    for start in ("frame", "layer"):
        ways = Ways(Builder(SMALL, BOARD), BASE, "ddr3")
        for box in space_programs(space, start):
            timed = ways.program(box)
            if timed is None:
                continue
            for limits in reversed(timed.limits()):
                design = with_ways(timed.overlay, dict(limits))
                memory = memory_for(BOARD, design, "flat")
                program = replace(timed.lowered.program, units=units_of(design, BOARD))
                alone = fast.simulate(*private(program, memory)).total_cycles
                assert timed.alone(limits) == alone
                checked += 1
    assert checked > 10


def test_a_run_that_may_take_any_time_is_a_simulation():
    for _, overlay, _, program in programs(5, 3):
        memory = memory_for(BOARD, overlay, "ddr3")
        found = fast.simulate_until(program, memory, np.full(len(program.layers), FAR))
        assert found == fast.simulate(program, memory).total_cycles


def test_ways_that_are_alike_take_equal_time():
    known, equal, generator = {}, 0, random.Random(4)
    for number, (choice, overlay, _, program) in enumerate(programs(12, 4)):
        if len({item.width_bits for item in overlay.masters}) > 1:
            continue  # they can share no port
        there = [port for port in PORTS if overlay.masters[0].width_bits in BOARD.port(
            port).widths_bits]
        for _ in range(40):
            ports = {name: generator.choice(there) for name in choice if name.endswith(
                ("port", "port_2"))}
            limits = {"read_outstanding": generator.choice((4, 7, 12)),
                      "write_outstanding": generator.choice((1, 3, 8))}
            design = with_ways(overlay, ports | limits)
            units, memory = units_of(design, BOARD), memory_for(BOARD, design, "ddr3")
            key = number, alike(units, memory)
            found = fast.simulate(replace(program, units=units), memory)
            equal += key in known
            first = known.setdefault(key, found)
            for item in fields(found):
                assert np.array_equal(getattr(found, item.name), getattr(first, item.name))
    assert equal > 50


@cache
def every_way() -> list[float]:
    """The latency of every design of a space."""
    return [point.ms for point in figures_of(SMALL, narrow_space(**WAYS), "ddr3")]


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_what_is_proved_of_many_ways_is_the_best_of_all(gap, tmp_path):
    space = narrow_space(**WAYS)
    figures = every_way()
    branch, state = proved(Settings(gap), space=space, memory="ddr3")
    assert len(figures) > 200
    assert below(state) <= min(figures) <= best(state)
    if gap == 0:
        assert state.gap == 0
        assert best(state) == min(figures)
    claim = claimed(branch, state)
    write_certificate(tmp_path / "c.json", branch.bounds, claim)
    file = Certificate(tmp_path / "c.json")
    assert Rule.WAYS.value in (tmp_path / "c.json").read_text()
    assert file.check(branch.question).programs > 0
    file.claim = replace(claim, best=tuple(
        replace(item, bound=(item.figures[0] * 1.001,), figures=(item.figures[0] * 1.001,))
        for item in claim.best))
    with pytest.raises(UserError, match="does not hold"):
        file.check(branch.question)


def test_the_first_late_cycle_is_that_of_the_bar():
    generator = random.Random(5)
    for _ in range(200):
        ms, clock = generator.uniform(0.001, 300), generator.choice(BOARD.clocks.rates_hz)
        first = first_late(ms, clock)
        assert first / clock * 1e3 >= ms > (first - 1) / clock * 1e3
