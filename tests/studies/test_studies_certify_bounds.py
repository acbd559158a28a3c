"""Is a bound ever above a simulation?

Asked on random designs of whole default spaces and on spaces that are enumerated.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from arch_models.clock import rate_hz, rows_of
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Infeasible, Overlay
from arch_models.resources import check, needed, part_sites
from cosim.analysis.least import Least
from cosim.build import Builder
from studies.certify.bounds import FETCHED, LAST, Bounds, Question
from studies.certify.boxes import PACE, Box
from studies.certify.branching.branch import Settings
from studies.certify.certificate import (
    certificate,
)
from studies.certify.goals import Aim, Bar, Point, point_of
from studies.certify.joules import Span
from studies.certify.parts import BY_COUNT, ENGINES, FED_AXES
from studies.certify.sizes import BANKS, WORDS, Sizes
from studies.evaluation.evaluate import evaluate
from studies.search.space import Axis, default_space, designs
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.small_proof import (
    BASE,
    BOARD,
    SMALL,
    below,
    best,
    claimed,
    clipped,
    enumerated,
    figures_of,
    grouped,
    narrow_space,
    optimum,
    proved,
    stepped,
    weighty,
)
from workloads.graph import Operator
from workloads.library import load
from workloads.quantization.narrow import narrowed

#: Figures that every bound is asked for at once.
ALL = (Aim.LATENCY, Aim.ENERGY, Aim.RESOURCES)
OPEN = Bar(ALL)


def path_to(bounds: Bounds, design) -> list[Box]:
    """The boxes that hold a design, from the whole space on."""
    found = [Box(bounds.question.space)]
    while parts := bounds.cut(found[-1]):
        found.append(next(part for part in parts if all(
            name not in design or design[name] in part.values(name)
            for name in (axis.name for axis in part.root.axes))))
    if PACE in found[-1].open:
        found.append(found[-1].narrowed(**{PACE: (design[PACE],)}))
    return found


def check_designs(graph, count: int, seed: int, memories=("flat",), more=None, aims=ALL) -> int:
    """Every box that holds a random design near the base, against the design's simulation.

    `more`: an axis that the default space does not have. Of latency alone a table has more bounds
    (`aims`).
    """
    space, generator = default_space(BOARD, graph), random.Random(seed)
    if more:
        space = replace(space, axes=(*space.axes, more))
    asked = [Bounds(Question(graph, BOARD, BASE, space, aims, memory)) for memory in memories]
    bounds, seen = asked[0], 0
    start = choice_of(BASE, space)
    for _ in range(count):
        last = {axis.name: axis.values[-1] for axis in space.axes}
        changed = {name: generator.choice(space.axis(name).values)
                   for name in generator.sample(sorted(start), generator.randint(1, 14))}
        design = space.canonical({**last, **start, **changed})
        try:
            overlay = overlay_of(design, BASE, BOARD)
        except FieldError:
            continue
        path = path_to(bounds, design)
        path.append(path[-1].narrowed(**{name: (design[name],) for name in FETCHED
                                         if name in design}))
        least = bounds.parts.least(path[-1])
        for kind in ("dsp", "bram36", "lut", "ff"):
            assert getattr(least, kind) <= getattr(needed(overlay), kind), (kind, design)
        for box in path:
            assert bounds.parts.ceiling_hz(box, bounds.parts.least(box)) >= overlay.clock_hz
        if check(overlay, BOARD) is None:
            seen += all([held(item, path, design, overlay) for item in asked])
    return seen


def above(bound: Point, found: Point) -> bool:
    """Is a bound above what was simulated, in some figure?"""
    return any(low > figure * (1 + 1e-9) for low, figure in zip(bound, found, strict=True))


def held(bounds: Bounds, path: list[Box], design, overlay: Overlay) -> int:
    """Bounds of a design that the board holds."""
    graph = bounds.question.graph
    found = evaluate(graph, overlay, BOARD, bounds.question.memory, 1)
    if isinstance(found, Infeasible):
        return 0
    point = point_of(found)
    for box in path:
        assert not above(bounds.bound(box, OPEN).point, point), (dict(box.sides), design)
    # A table of some sizes; of all of them it takes seconds.
    names = [name for name in (*WORDS, *BANKS) if len(path[-1].values(name)) > 1]
    whole = path[-1].narrowed(**{name: tuple(
        value for value in path[-1].values(name)
        if value in (design[name], path[-1].values(name)[0])) for name in names})
    if bounds.joules is None:
        own = path[-1].narrowed(**{name: (design[name],) for name in names})
        paces = own.root.axis(PACE).values
        for box in (whole, own, own.narrowed(**{PACE: paces})):
            ceiling = bounds.parts.ceiling_hz(box, bounds.parts.least(box))
            for ms in (bounds.rough.ms(box, bounds.built(box)),
                       bounds.rough.ms_up_to(box, ceiling)):
                assert ms <= point.ms * (1 + 1e-9), design
        for box in path:  # its sizes alone, ports and masters open
            if not any(name in box.open for name in bounds.order if name not in LAST):
                ms = bounds.rough.ms_up_to(box.narrowed(**{
                    name: (design[name],) for name in names}), overlay.clock_hz)
                assert ms <= point.ms * (1 + 1e-9), design
    table = bounds.tables.tables([whole], OPEN)[0]
    assert rate_hz(overlay, BOARD) == overlay.clock_hz
    sizes = Sizes.of(whole, BASE)
    place = (sizes.banks.index(tuple(design[name] for name in (
        "input_banks", "weight_banks", "output_banks"))),
        *(values.index(design[name]) for name, values in zip(
            ("input_words", "weight_words", "output_words", "accumulator_words"), sizes.words,
            strict=True)))
    assert table.built.rates_hz[place] == overlay.clock_hz
    assert table.cycles[place] <= found.latency_cycles, design
    assert not above(Point(*(values[place] for values in table.points)), point), design
    if bounds.joules is None:  # one table of all paces
        paced = whole.narrowed(**{PACE: whole.root.axis(PACE).values})
        parts = bounds.built(paced)
        for part, one in zip(parts, bounds.tables.tables(
                parts, OPEN, bounds.rough.cycles, paced), strict=True):
            assert part.values(PACE) != (design[PACE],) or (
                one.cycles[place] <= found.latency_cycles), design
    sides = {name: (design[name],) for name in sizes.fields(place)}
    opened = bounds.opened(path[-1].narrowed(**sides), OPEN)
    assert len(opened) == 1
    assert not above(opened[0].point, point)
    for item in bounds.programs_of(opened[0]):
        if item.choice["layout"] == design["layout"] and (
                bounds.joules is None or item.choice["start"] == design["start"]):
            assert table.cycles[place] <= item.cycles <= found.latency_cycles
            assert not above(item.point, point), design
            return 1
    raise AssertionError(design)


def test_which_engines_there_are_is_nothing_to_parts_that_count_them():
    space, generator, seen = default_space(BOARD, load("unicorn-n256")), random.Random(3), 0
    for _ in range(300):
        one = space.sample(generator)
        gone, new = generator.choice(ENGINES), generator.choice(ENGINES)
        if not one.get(gone) or one.get(new, True) or (gone in FED_AXES) != (new in FED_AXES):
            continue
        other = space.canonical({**{axis.name: axis.values[0] for axis in space.axes}, **one,
                                 gone: False, new: True})
        try:
            pair = [overlay_of(choice, BASE, BOARD) for choice in (one, other)]
        except FieldError:
            continue
        seen += 1
        for part in BY_COUNT:
            if not part.endswith("row"):
                assert part_sites(pair[0], part) == part_sites(pair[1], part), (part, one)
        mine, theirs = map(rows_of, pair)
        assert (mine.control, mine.places) == (theirs.control, theirs.places), one
        for row in zip(*([row for row in rows.units if row.part.endswith("master")]
                         for rows in (mine, theirs)), strict=True):
            assert row[0] is row[1], one
    assert seen > 10


def test_no_bound_is_above_a_simulation():
    assert check_designs(SMALL, 50, 1, ("flat", "ddr3")) > 5


@pytest.mark.parametrize(("graph", "count"), [
    (SMALL, 25), (weighty(), 25), (grouped(), 25), (clipped(), 25), (stepped(), 15)],
    ids=["small", "weighty", "grouped", "clipped", "stepped"])
def test_no_bound_of_latency_alone_is_above_a_simulation(graph, count):
    assert check_designs(graph, count, 8, ("flat", "ddr3"), aims=(Aim.LATENCY,)) > 3


def test_no_bound_is_above_a_simulation_with_a_tensor_memory():
    axis = Axis("tensor_memory_kib", (0, 16, 64))
    assert check_designs(SMALL, 60, 5, ("flat", "ddr3"), axis) > 5


def test_no_bound_is_above_a_simulation_where_weights_may_lie_two_a_byte():
    names = [layer.name for layer in SMALL.layers if layer.operator is Operator.CONVOLUTION]
    graph, axis = narrowed(SMALL, names[::2]), Axis("narrow_weights", (False, True))
    assert graph.narrow_layers == set(names[::2])
    assert check_designs(graph, 30, 5, ("flat", "ddr3"), axis) > 2


@pytest.mark.parametrize("aim", [Aim.LATENCY, Aim.ENERGY])
def test_what_is_proved_is_the_best_where_weights_may_lie_two_a_byte(aim):
    names = [layer.name for layer in SMALL.layers if layer.operator is Operator.CONVOLUTION]
    graph, space = narrowed(SMALL, names), narrow_space(
        input_words=(1024,), input_banks=(2,), input_port=("HP0",), port_width_bits=(32,),
        weight_words=(16, 128), fabric_elementwise=(True,))
    space = replace(space, axes=(*space.axes, Axis("narrow_weights", (False, True))))
    found = best(proved(space=space, aims=(aim,), graph=graph)[1])
    assert found == min(aim.of(point) for point in figures_of(graph, space, "flat"))


def test_no_bound_is_above_a_simulation_of_layers_that_run_at_once():
    """A design of a shipped network with pairs of layers, in every box that holds it."""
    graph = load("agc-w16")
    space = default_space(BOARD, graph)
    space = replace(space, axes=(*space.axes, Axis("tensor_memory_kib", (0, 64))))
    design = space.canonical({
        **{axis.name: axis.values[-1] for axis in space.axes}, **choice_of(BASE, space),
        "output_words": 1024, "accumulator_words": 1024, "tensor_memory_kib": 64})
    overlay = overlay_of(design, BASE, BOARD)
    mapping = Builder(graph, BOARD).mapping(overlay)
    assert not isinstance(mapping, Infeasible) and len(mapping.bands) > 5
    bounds = Bounds(Question(graph, BOARD, BASE, space, ALL, "flat"))
    assert held(bounds, path_to(bounds, design), design, overlay)


def test_no_bound_is_above_a_simulation_where_weights_are_what_takes_long():
    graph = weighty()
    bounds = Bounds(Question(graph, BOARD, BASE, default_space(BOARD, graph)))
    floor = bounds.floors.floor(Box(bounds.question.space))
    assert floor.turns.least(2e8) > 2 * floor.cycles
    assert check_designs(graph, 40, 5, ("flat", "ddr3")) > 5


def test_no_bound_is_above_a_simulation_of_a_shipped_network():
    assert check_designs(load("agc-w16"), 8, 2) > 1


def test_no_bound_is_above_a_simulation_with_sampler_steps():
    assert check_designs(stepped(), 10, 5, ("flat", "ddr3")) > 1
    assert check_designs(load("unicorn-n256"), 4, 3) > 0


def test_no_bound_is_above_a_simulation_where_two_engines_can_run_a_layer():
    assert check_designs(grouped(), 30, 5, ("flat", "ddr3")) > 3


@pytest.mark.parametrize("aims", [(Aim.LATENCY,), (Aim.ENERGY,), (Aim.LATENCY, Aim.ENERGY)])
def test_what_is_proved_is_the_best_where_two_engines_can_run_a_layer(aims):
    graph = grouped()
    space = narrow_space(graph, input_port=("HP0",), port_width_bits=(64,), layout=("dense",),
                         read_outstanding=(12,), fabric_depthwise=(False, True),
                         input_words=(256, 1024), output_words=(128, 512),
                         depthwise_taps=(1, 3), fuse_add=(False, True))
    found = [overlay_of(design, BASE, BOARD) for design in designs(space)]
    engines = {(overlay, item.engine) for overlay in found
               for mapping in [Builder(graph, BOARD).mapping(overlay)]
               if not isinstance(mapping, Infeasible)
               for item in mapping.layers if item.name in ("three", "five", "half")
               if Engine.DEPTHWISE in overlay.engines}
    assert {engine for _, engine in engines} == {Engine.CONVOLUTION, Engine.DEPTHWISE}
    _, state = proved(space=space, graph=graph, aims=aims)
    assert state.gap == 0
    bar = state.front.bar(1)
    assert all(bar.cleared(point) for point in figures_of(graph, space, "flat"))
    for item in state.front.members:
        assert item.figures in [tuple(aim.of(point) for aim in aims)
                                for point in figures_of(graph, space, "flat")]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_no_bound_is_above_a_simulation_of_many(seed):
    assert check_designs(SMALL, 5000, 100 + seed, ("flat", "ddr3")) > 500


@pytest.mark.parametrize("aim", list(Aim))
@pytest.mark.parametrize("memory", ["flat", "ddr3"])
def test_what_is_proved_is_the_best_of_an_enumerated_space(memory, aim):
    _, state = proved(Settings(0.0 if memory == "flat" else 0.02), aims=(aim,), memory=memory)
    figures = [aim.of(point) for point in enumerated(memory)]
    assert len(figures) > 100
    assert below(state) <= min(figures) <= best(state)
    if memory == "flat":
        assert state.gap == 0
        assert best(state) == min(figures)


def test_energy_is_bounded_at_every_clock_that_a_box_may_have():
    """While the processor works for long, a slow clock takes less: its tree runs fewer cycles."""
    bounds = Bounds(Question(SMALL, BOARD, BASE, narrow_space(), ALL))
    joules, box, work = bounds.joules, Box(narrow_space()), Least(trips=10**6)

    def span(clock):
        return Span(100 + 1e6 / clock, 100.0, 1e6 / clock)

    rates = BOARD.clocks.rates_hz
    found = joules.of_box(box, bounds.parts, work, span, max(rates))
    each = [joules.least(work, span(rate), rate, BASE, bounds.parts.sites(box), False)
            for rate in rates]
    assert found == pytest.approx(min(each))
    assert found < joules.least(work, span(max(rates)), max(rates), BASE,
                                bounds.parts.sites(box), False)


def test_the_order_of_values_in_a_space_file_does_not_matter():
    space = narrow_space()
    turned = replace(space, axes=tuple(
        replace(axis, values=axis.values[::-1]) for axis in space.axes))
    both = replace(space, axes=tuple(replace(
        axis, values={"start": ("layer", "frame"), "input_masters": (2, 1)}.get(
            axis.name, axis.values)) for axis in turned.axes))
    assert best(proved(space=turned)[1]) == optimum()
    for aim in (Aim.LATENCY, Aim.ENERGY):
        branch, state = proved(space=both, aims=(aim,))
        assert state.factor == 1
        for name, value in (("start", "frame"), ("input_masters", 1)):
            part = proved(space=Box(both).narrowed(**{name: (value,)}).space, aims=(aim,))[1]
            assert best(state) <= best(part)
        least = branch.bounds.parts.least(Box(both))
        assert least.lut <= branch.bounds.parts.least(Box(both).narrowed(input_masters=(1,))).lut


@pytest.mark.parametrize("gap", [0.0, 0.03])
@pytest.mark.parametrize("aims", [(Aim.LATENCY, Aim.ENERGY), ALL])
@pytest.mark.parametrize("memory", ["flat", "ddr3"])
def test_no_design_of_an_enumerated_space_exceeds_a_front(memory, aims, gap):
    branch, state = proved(Settings(gap), aims=aims, memory=memory)
    bar = state.front.bar(state.factor)
    every = [Bar(aims, (item.figures,)) for item in state.front.members]
    for point in enumerated(memory):
        assert bar.cleared(point)
    for member, mine in zip(state.front.members, every, strict=True):
        others = [item for item in state.front.members if item is not member]
        assert not any(mine.cleared(Point(**dict(zip(
            ("ms", "uj", "share"), (*item.figures, 0.0), strict=False)))) and item != member
            for item in others)
        assert any(member.figures == tuple(aim.of(point) for aim in aims)
                   for point in enumerated(memory))
    if memory == "flat" and gap == 0:
        assert state.gap == 0
    again, spread = proved(Settings(gap), 2, aims=aims, memory=memory)
    assert certificate(again.bounds, claimed(again, spread)) == certificate(
        branch.bounds, claimed(branch, state))
