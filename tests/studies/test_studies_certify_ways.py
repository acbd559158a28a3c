"""Is a program that a bound does not exclude simulated in every way that differs, and is what is
stopped before its end late?"""

from __future__ import annotations

import random
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from arch_models.memory import Memory, memory_for
from arch_models.overlay import Infeasible
from cosim.analysis.behind import Chains
from cosim.build import Builder, build
from cosim.executors import fast
from cosim.executors.alike import alike
from cosim.executors.fast import unit_table
from cosim.lowering.wiring import units_of
from cosim.memory.bursts import FAR
from cosim.program.random import Sizes, random_memory, random_program
from cosim.program.result import SimResult
from cosim.program.table import (
    ARGUMENT_COUNT,
    Channel,
    Column,
    Program,
    Segment,
    Unit,
    UnitKind,
)
from cosim.recurrence.cpu import Timer
from studies.certify.bounds import Rule
from studies.certify.boxes import Box
from studies.certify.branching.branch import Settings
from studies.certify.certificate import Certificate, write_certificate
from studies.certify.parts import PORTS as SIDES
from studies.certify.runs.programs import LIMITS, private
from studies.certify.runs.ways import Ways, WaysOf, first_late, with_ways
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
from workloads.graph import Graph
from workloads.library import load

PORTS = tuple(port.name for port in BOARD.ports)
#: Few buffers, many ways.
WAYS = {"tm": (16,), "layout": ("dense",), "port_width_bits": (64,), "input_words": (4096,),
        "output_words": (2048,), "fabric_elementwise": (True,),
        "input_port": ("HP0", "HP1", "ACP"), "weight_port": ("HP0", "HP1", "HP2"),
        "output_port": ("HP0", "ACP"), "read_outstanding": (4, 12), "write_outstanding": (2, 8),
        "start": ("frame", "layer")}


def programs(count: int, seed: int, graph: Graph = SMALL):
    """Random designs that can be built, with their programs."""
    space, generator, builder = default_space(BOARD, graph), random.Random(seed), Builder(
        graph, BOARD)
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
    """What a program's frame takes at least, and behind each operation."""
    program, memory = private(program, memory_for(BOARD, overlay, "flat"))
    chains = Chains.of(program)
    assert chains is not None
    return chains.behind(unit_table(program.units, memory)[0], Timer())


def written() -> Program:
    """Two units that hand tokens to and fro, before them a step that runs once."""
    there, back = 1, 2
    rows = np.zeros((3, len(Column)), np.int64)
    rows[:, Column.UNIT], rows[:, Column.DRAIN] = (0, 0, 1), (7, 10, 4)
    rows[:, Column.WAIT], rows[:, Column.SIGNAL] = (0, back, there), (0, there, back)
    channels = (Channel("there", 0, 1), Channel("back", 1, 0, 2))
    units = tuple(Unit(name, UnitKind.COMPUTE) for name in ("one", "two"))
    return Program("written", units, channels, ("layer",), rows,
                   np.zeros((3, ARGUMENT_COUNT), np.int32), (Segment(0, 1), Segment(1, 3, 3)))


def test_the_longest_chain_behind_an_operation():
    """Worked out by hand."""
    chains = Chains.of(written())
    assert chains is not None
    total, found = chains.behind(unit_table(written().units, random_memory(0))[0], Timer())
    assert total == 7 + 10 + 10 + 10 + 4
    assert found.tolist() == [34, 24, 10 + 4, 14, 4, 4, 0]


def test_no_chains_where_a_token_never_comes():
    program = written()
    rows = program.operations.copy()
    rows[2, Column.SIGNAL] = 0
    assert Chains.of(replace(program, operations=rows)) is None


@pytest.mark.parametrize("seed", range(40))
def test_the_longest_chains_of_random_programs_are_what_private_ports_take(seed):
    """Segments repeat, addresses advance with them, data pass through memories on chip."""
    drawn = random_program(seed, 3, Sizes(on_chip=0.2))
    one = random_memory(seed)
    program, memory = private(drawn, replace(one, ports=one.ports[:1] * 3))
    chains = Chains.of(program)
    assert chains is not None
    total, found = chains.behind(unit_table(program.units, memory)[0], Timer())
    result = fast.simulate(program, memory, trace=True)
    assert (result.trace.end + found).max(initial=0) == result.total_cycles == total
    shared = fast.simulate(replace(drawn, units=tuple(
        replace(unit, port=0) for unit in drawn.units)), memory, trace=True)
    assert (shared.trace.end + found <= shared.total_cycles).all()


@pytest.mark.parametrize(("graph", "count"), [(SMALL, 15), (load("unicorn-n256"), 3)],
                         ids=["once", "repeated"])
def test_no_operation_ends_later_than_what_is_behind_it_allows(graph, count):
    for _, overlay, _, program in programs(count, 6, graph):
        _, found = behind(overlay, program)
        result = fast.simulate(program, memory_for(BOARD, overlay, "ddr3"), trace=True)
        assert (result.trace.end + found <= result.total_cycles).all()


def until(program: Program, memory: Memory, latest: np.ndarray) -> fast.Ended:
    return fast.simulate_until(fast.load(program), fast.wire(program.units, memory), latest)


@pytest.mark.parametrize("share", [0.9, 0.99, 0.999])
def test_late_is_late_and_what_is_not_late_is_whole(share):
    late = 0
    for _, overlay, _, program in programs(25, 2):
        memory = memory_for(BOARD, overlay, "ddr3")
        whole = fast.simulate(program, memory)
        bar = int(whole.total_cycles * share)
        found = until(program, memory, bar - behind(overlay, program)[1]).cycles
        late += found is None
        assert found in (None, whole.total_cycles)
        same = whole.total_cycles - behind(overlay, program)[1]
        assert until(program, memory, same).cycles == whole.total_cycles
    assert late > 15


def test_a_lower_limit_alone_takes_what_its_private_ports_take():
    """With the steps of the processor, and limits that bind: each by itself, whatever was asked."""
    checked = 0
    space = narrow_space(**WAYS | {"read_outstanding": (1, 4, 12), "write_outstanding": (1, 8)})
    for start in ("frame", "layer"):
        ways = Ways(Builder(SMALL, BOARD), BASE, "ddr3")
        for box in space_programs(space, start):
            timed = next(ways.programs(box), None)
            if timed is None:
                continue
            for limits in reversed(timed.limits()):
                design = with_ways(timed.overlay, dict(limits))
                memory = memory_for(BOARD, design, "flat")
                program = replace(timed.lowered.program, units=units_of(design, BOARD))
                alone = fast.simulate(*private(program, memory)).total_cycles
                assert timed.alone(limits)[0] == alone
                checked += 1
    assert checked > 10


def test_a_run_that_may_take_any_time_is_a_simulation():
    for _, overlay, _, program in programs(5, 3):
        memory = memory_for(BOARD, overlay, "ddr3")
        found = until(program, memory, np.full(program.operation_count, FAR))
        assert found.cycles == fast.simulate(program, memory).total_cycles


def equal(one: SimResult, other: SimResult) -> bool:
    """In every field."""
    return all(np.array_equal(getattr(one, item.name), getattr(other, item.name))
               for item in fields(one))


def limited(program: Program, most: int) -> Program:
    """The program with so many bursts of a writer in flight at the most."""
    return replace(program, units=tuple(
        replace(unit, outstanding=min(unit.outstanding, most)) if unit.kind is UnitKind.WRITE
        else unit for unit in program.units))


def test_a_limit_of_writes_that_is_not_needed_changes_nothing():
    lower = other = 0
    for seed in range(150):
        memory = random_memory(seed, "ddr3")
        program = random_program(seed, len(memory.ports))
        free = np.full(program.operation_count, FAR)
        whole, needed = fast.simulate(program, memory), until(program, memory, free).needed
        most = max((unit.outstanding for unit in program.units
                    if unit.kind is UnitKind.WRITE), default=1)
        assert 1 <= needed <= most
        lower += needed < most
        for limit in range(needed, most):
            assert equal(fast.simulate(limited(program, limit), memory), whole)
        if needed > 1:
            other += not equal(fast.simulate(limited(program, needed - 1), memory), whole)
    assert lower > 30 and other > 20


def test_ways_that_are_alike_take_equal_time():
    known, same, generator = {}, 0, random.Random(4)
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
            same += key in known
            assert equal(known.setdefault(key, found), found)
    assert same > 50


def test_controller_ports_that_read_as_fast_as_the_dram_count_for_nobody():
    """Random programs and memories, in which other ports of the controller serve the same ports."""
    same, other = 0, 0
    for seed in range(60):
        memory, draw = random_memory(seed, "ddr3"), random.Random(seed)
        program = random_program(seed, len(memory.ports))
        moved = replace(memory, ports=tuple(
            replace(port, controller_port=draw.randrange(4)) for port in memory.ports))
        if alike(program.units, memory) != alike(program.units, moved):
            other += 1
            continue
        first, second = (fast.simulate(program, item) for item in (memory, moved))
        assert equal(first, second)
        same += memory.ports != moved.ports
    assert same > 10
    assert other > 5


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


def test_programs_of_each_layout_and_start_are_run_once(monkeypatch):
    """One that is left out would be excluded by another's times, which are no bound on it."""
    space = narrow_space(**{**WAYS, "layout": ("dense", "row_aligned", "bank_spread")})
    ways, runs, run = Ways(Builder(SMALL, BOARD), BASE, "ddr3"), list[str](), WaysOf.run
    monkeypatch.setattr(WaysOf, "run", lambda self, *asked: (
        runs.append(str(self.box.sides)), run(self, *asked))[1])
    boxes = [Box(space)]
    for axis in space.axes:
        if axis.name not in (*SIDES, *LIMITS, "layout", "start"):
            boxes = [part for box in boxes for part in (
                box.parts(axis.name) if axis.name in box.open else [box])]
    box = boxes[0]
    programs = list(ways.programs(box))
    assert len(programs) == 6 and sum(item.box.designs for item in programs) == box.designs
    for item in programs:
        built = build(SMALL, item.overlay, BOARD)
        assert np.array_equal(built.program.operations, item.lowered.program.operations)
    least = min(item.ms for item in ways.early(box, lambda: 1e9, lambda: 1e9))
    assert len(set(runs)) == 6
    runs.clear()
    assert not list(ways.early(box, lambda: least, lambda: least))
    known = len(runs)
    assert 0 < len(set(runs)) <= len({item.alike for item in programs}) < 6
    assert not list(ways.early(box, lambda: least * 0.99, lambda: least))
    assert len(runs) == known


def test_the_first_late_cycle_is_that_of_the_bar():
    generator = random.Random(5)
    for _ in range(200):
        ms, clock = generator.uniform(0.001, 300), generator.choice(BOARD.clocks.rates_hz)
        first = first_late(ms, clock)
        assert first / clock * 1e3 >= ms > (first - 1) / clock * 1e3
