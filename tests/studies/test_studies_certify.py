"""Is a bound ever above a simulation, and can a certificate lie?

Bounds are asked on random designs of whole default spaces and on a space that is enumerated.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from arch_models.board import BOARDS, load_board
from arch_models.clock import rate_hz
from arch_models.fields import FieldError
from arch_models.overlay import DESIGNS, Engine, Infeasible, Overlay, load_overlay
from arch_models.resources import check, needed
from cosim.analysis.least import Least
from cosim.build import Builder
from cosim.engines.convolution_search import ConvolutionShape, Rooms, search, search_rooms
from cosim.mapping.tile_search import Budget
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import Box
from studies.certify.branch import Book, Branch, Closer, Settings
from studies.certify.certificate import (
    Certificate,
    _sum,
    certificate,
    question_of,
    write_certificate,
)
from studies.certify.goals import Aim, Bar, Point, point_of
from studies.certify.joules import Span
from studies.certify.parts import Parts
from studies.certify.sizes import BANKS, WORDS, Sizes
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from studies.plain.stopping import Stopped
from studies.report.collect import Given, collect
from studies.report.proof import proof_section
from studies.search.space import Space, default_space, designs
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.browser import chromium, opened
from tests.support.command import cosim
from tests.support.small_proof import (
    BASE,
    BOARD,
    EXACT,
    NARROW,
    SLOW,
    SMALL,
    below,
    best,
    claimed,
    grouped,
    narrow_space,
    proved,
)
from workloads.graph import Graph
from workloads.library import load

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
    return found


def check_designs(graph, count: int, seed: int, memories=("flat",)) -> int:
    """Every box that holds a random design near the base, against the design's simulation."""
    space, generator = default_space(BOARD, graph), random.Random(seed)
    asked = [Bounds(Question(graph, BOARD, BASE, space, ALL, memory)) for memory in memories]
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
    table = bounds.tables.table(whole, OPEN)
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
    sides = {name: (design[name],) for name in sizes.fields(place)}
    opened = bounds.opened(path[-1].narrowed(**sides), OPEN)
    assert len(opened) == 1
    assert not above(opened[0].point, point)
    for item in bounds.programs_of(opened[0]):
        if item.choice["layout"] == design["layout"] and item.choice["start"] == design["start"]:
            assert table.cycles[place] <= item.cycles <= found.latency_cycles
            assert not above(item.point, point), design
            return 1
    raise AssertionError(design)


def test_no_bound_is_above_a_simulation():
    assert check_designs(SMALL, 50, 1, ("flat", "ddr3")) > 5


def test_no_bound_is_above_a_simulation_of_a_shipped_network():
    assert check_designs(load("agc-w16"), 8, 2) > 1


def test_no_bound_is_above_a_simulation_with_sampler_steps():
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


def test_many_sizes_at_once_have_the_tiles_of_each():
    generator = random.Random(4)
    rooms = Rooms(*(np.array(sizes) for sizes in (
        (256, 1024, 4096), (32, 128, 512), (128, 512, 2048), (64, 1024))),
        np.array([[1, 2, 2], [2, 1, 1]]))
    for _ in range(40):
        rows, planes = generator.choice((4, 7, 16)), generator.randint(1, 9)
        kernel, pool = generator.choice((1, 3)), generator.random() < 0.3
        rows += rows % 2 if pool else 0
        shape = ConvolutionShape(
            rows, rows, planes, rows, rows, planes, -(-planes // 2), generator.randint(1, 4),
            kernel, kernel, 1, kernel // 2, 0, int(pool), int(not pool), generator.randint(1, 4),
            8, 128, 20, 1, planes, 4, 0, 0, 0)
        budget = Budget(0, 0, 0, 0, 0, 0, 0, 2, 1, 8, 8.0, 8.0, 8.0, 21.0)
        best = search_rooms(shape, budget, rooms)
        for place in np.ndindex(best.cost.shape):
            words = [int(rooms[axis][index]) for axis, index in enumerate(place[1:])]
            one = search(shape, budget._replace(**dict(zip(
                ("input_words", "weight_words", "output_words", "accumulator_words"), words,
                strict=True)), **dict(zip(("input_banks", "weight_banks", "output_banks"),
                                          map(int, rooms.banks[place[0]]), strict=True))))
            assert one[0] == best.cost[place]
            assert one[0] < 0 or one[1:] == tuple(best.tile[place].tolist())


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


def test_a_proof_is_the_same_however_it_is_spread_or_cut_short(tmp_path):
    branch, state = proved()
    wanted = certificate(branch.bounds, claimed(branch, state))
    spread, two = proved(workers=2)
    assert certificate(spread.bounds, claimed(spread, two)) == wanted
    path = tmp_path / "boxes"
    proved(book=Book(path, "same"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[: len(lines) // 2 + 1], lines[-1][:9]]))
    again, three = proved(book=Book(path, "same"))
    assert certificate(again.bounds, claimed(again, three)) == wanted
    with pytest.raises(UserError, match="another"):
        Book(path, "other")


def test_a_line_cut_short_is_cut_off_and_one_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "boxes"
    proved(book=Book(path, "same"))
    whole = path.read_text()
    first = len(whole.splitlines()[0]) + 1
    path.write_text(whole[:first + 40])
    proved(book=Book(path, "same"))
    assert path.read_text() == whole
    path.write_text(whole.replace('"boxes": ', '"boxes": "', 1))
    with pytest.raises(UserError, match="line 2 is damaged"):
        Book(path, "same")
    for other in (b"\x89PNG\r\n\xff", b"my notes"):
        path.write_bytes(other)
        with pytest.raises((UserError, FieldError), match=r"not UTF-8|no whole line"):
            Book(path, "same")
        assert path.read_bytes() == other


def test_a_proof_that_must_end_early_says_how_far_it_is():
    branch, state = proved(Settings(seconds=0.0))
    assert 0 < below(state) < best(state)
    found = certificate(branch.bounds, claimed(branch, state))
    assert found["claim"]["best"][0]["bound"] == [below(state)]


@pytest.mark.parametrize(("kind", "name", "call"), [
    *((Bounds, "bound", call) for call in range(1, 10)),
    *((Bounds, "cut", call) for call in (1, 2, 5, 9)),
    *((Parts, "least", call) for call in range(1, 10)),
    *((Bounds, "opened", call) for call in (1, 2)), (Bounds, "programs_of", 1),
    *((Closer, "value", call) for call in (1, 2))])
def test_a_signal_anywhere_leaves_a_claim_that_holds(kind, name, call, monkeypatch, tmp_path):
    """Whatever is being worked out when it comes is still open."""
    asked, calls = getattr(kind, name), []

    def stopped(*given):
        calls.append(name)
        if len(calls) == call:
            raise Stopped(signal.SIGINT)
        return asked(*given)

    with monkeypatch.context() as patched:
        patched.setattr(kind, name, stopped)
        branch, state = proved(base=SLOW)
    assert len(calls) == call
    assert branch.signal == signal.SIGINT
    if state.front.members:
        assert below(state) <= optimum()
        path = tmp_path / "certificate.json"
        write_certificate(path, branch.bounds, claimed(branch, state))
        found = Certificate(path)
        found.check(question_of(found, SMALL, BOARD))


def test_boxes_are_counted_once_however_many_work():
    assert proved(workers=1)[1].boxes == proved(workers=2)[1].boxes


def test_what_is_told_is_the_state_between_the_root_and_the_end():
    told = []
    branch = Branch(Question(SMALL, BOARD, BASE, narrow_space()), EXACT, Book(None, ""),
                    lambda state: told.append(state()))
    last = branch.run()
    every = narrow_space().size()
    assert len(told) > 3
    assert all(below(first) <= below(then) for first, then in itertools.pairwise(told))
    assert 10**told[0].excluded < every / 2
    assert 10**last.excluded == pytest.approx(every)
    assert not branch.heap


def test_a_certificate_holds_and_no_change_does(tmp_path):
    branch, state = proved()
    path = tmp_path / "certificate.json"
    write_certificate(path, branch.bounds, claimed(branch, state))

    def checked():
        found = Certificate(path)
        return found.check(question_of(found, SMALL, BOARD))

    assert checked().boxes > 3
    good = path.read_text()
    changed = bytearray(good.encode())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(UserError):
        checked()
    lies = {
        "bound": lambda found: first(found).update(bound=[first(found)["figures"][0] * 1.001]),
        "best": lambda found: first(found).update(figures=[first(found)["figures"][0] * 1.01]),
        "order": lambda found: first(found).update(bound=[-1.0]),
        "none": lambda found: found["claim"].update(best=[]),
        "two figures": lambda found: first(found).update(bound=[1.0, 1.0]),
        "objective": lambda found: found["claim"].update(objectives=["energy"]),
        "count": lambda found: found["claim"].update(designs=found["claim"]["designs"] + 1),
        "choice": lambda found: first(found)["choice"].update(tm=8),
        "no parts": lambda found: found["boxes"].update(parts=[]),
        "no axis": lambda found: found.update(boxes={"axis": "nothing", "parts": []}),
        "nothing": lambda found: found.update(boxes={}),
        "part": lambda found: found["boxes"]["parts"].pop(),
        "empty part": lambda found: found["boxes"]["parts"].append(
            {"values": [], "rule": "table"}),
        "overlap": lambda found: found["boxes"]["parts"].append(found["boxes"]["parts"][0]),
        "other value": lambda found: found["boxes"]["parts"][0].update(values=[24]),
        "whole": lambda found: found.update(boxes={"axis": "tm", "parts": [
            {"values": [8, 16], "rule": "table"}]}),
        "rule": lambda found: found.update(boxes={"rule": "layers"}),
        "table": lambda found: found.update(boxes={"rule": "table"}),
        "board": lambda found: found.update({"board_file": "0"}),
        "layers": lambda found: found.update({"layers": "0"}),
    }
    for name, lie in lies.items():
        with pytest.raises(UserError, match="does not hold"):
            checked_as(path, good, lie)
            pytest.fail(f"the lie about {name} was believed")


def first(found: dict) -> dict:
    """The first design that a certificate names."""
    return found["claim"]["best"][0]


def checked_as(path, good: str, lie):
    """Check a certificate after a change that its checksum agrees with."""
    found = json.loads(good)
    lie(found)
    found["sha256"] = _sum(found)
    path.write_text(json.dumps(found))
    read = Certificate(path)
    return read.check(question_of(read, SMALL, BOARD))


@pytest.mark.parametrize(("change", "said"), [
    (lambda found: found.pop("boxes"), "'boxes' is missing"),
    (lambda found: found["claim"].pop("memory"), "'memory' is missing"),
    (lambda found: found["claim"].update(more=1), "unknown field 'more'"),
    (lambda found: found["claim"].update(memory="sram"), "no memory model 'sram'"),
    (lambda found: first(found).update(bound=["low"]), "must be a number"),
    (lambda found: found["claim"].update(objectives=[]), "no objective of a proof ''"),
    (lambda found: found["claim"].update(objectives=["latency", "latency"]), "name each once"),
    (lambda found: found["claim"].update(objectives=["luck"]), "luck"),
    (lambda found: found["boxes"].update(rule="luck"), "rule: luck|rule: 'luck'"),
    (lambda found: found["boxes"].update(parts=7), "must be a list"),
    (lambda found: found["space"]["axes"].append(found["space"]["axes"][0]), "there twice"),
    (lambda found: found["space"]["axes"].append({"name": "luck", "values": [1, 2]}),
     "unknown field 'luck'"),
    (lambda found: found["space"]["axes"][0].update(values=[7]), "axes.tm: 7"),
    (lambda found: found["space"]["axes"][0].update(values=["8"]), "must be a whole number"),
    (lambda found: found["space"].update(constraints=[
        {"how": "sum", "axes": ["start"], "at_most": 1}]), "must be whole numbers"),
    (lambda found: found.update(kind="search"), "kind is 'search'"),
    (lambda found: found.update(boxes=deep(300)), "nested too deeply"),
])
def test_a_certificate_that_is_none_is_refused(change, said, tmp_path):
    branch, state = proved()
    path = tmp_path / "certificate.json"
    write_certificate(path, branch.bounds, claimed(branch, state))
    with pytest.raises((UserError, FieldError), match=said):
        checked_as(path, path.read_text(), change)


def deep(levels: int) -> dict:
    found: dict = {"rule": "table"}
    for _ in range(levels):
        found = {"axis": "tm", "parts": [found]}
    return found


def test_a_certificate_of_another_version_says_so_where_it_does_not_hold(tmp_path):
    branch, state = proved()
    path = tmp_path / "certificate.json"
    write_certificate(path, branch.bounds, claimed(branch, state))
    good = path.read_text()
    checked_as(path, good, lambda found: found.update(program="older"))
    with pytest.raises(UserError, match="another version of this program wrote it"):
        checked_as(path, good, lambda found: found.update(program="older", boxes={}))


def proof_words(tmp_path) -> list[object]:
    """A proof of few designs of a shipped network on a board file of one's own."""
    board, space = tmp_path / "mine.toml", tmp_path / "space.toml"
    board.write_text((BOARDS / "pynq_z1.toml").read_text().replace('"pynq-z1"', '"mine"'))
    space.write_text("[axes]\n" + "".join(
        f"{axis.name} = {json.dumps(list(NARROW.get(axis.name, axis.values[:1])))}\n"
        for axis in default_space(BOARD, load("agc-w16")).axes))
    return ["explore", "agc-w16", "--prove", "--board", board, "--space", space, "--workers", 1]


def test_the_command_proves_and_checks_on_a_board_file(tmp_path, capsys):
    out, said = tmp_path / "proof", tmp_path / "claim.json"
    words = [*proof_words(tmp_path), "--start", DESIGNS / "default.toml", "--out", out]
    assert cosim(*words, "--json", said) == 0
    shown = flat(capsys.readouterr().out)
    assert "1 designs of" in shown and "replaces" not in shown
    claim = json.loads(said.read_text())
    document = json.loads((out / "certificate.json").read_text())
    assert (claim["kind"], document["kind"]) == ("claim", "certificate")
    assert claim["command"] == document["command"]
    assert claim["command"].startswith("cosim explore agc-w16 --prove")
    assert {name: claim[name] for name in document["claim"]} == document["claim"]
    assert document["claim"]["board"] == str(words[4])
    assert cosim("check", out / "certificate.json") == 0
    shown = flat(capsys.readouterr().out)
    assert "holds: the best design found has" in shown
    assert "The space is one of its own, around the design default." in shown
    assert cosim(*words) == 0
    assert "holds certificate.json and best.toml, which this proof replaces" in flat(
        capsys.readouterr().out)


def test_a_page_shows_a_certificate_with_its_best_design(tmp_path, capsys):
    out = tmp_path / "proof"
    words = proof_words(tmp_path)
    assert cosim(*words, "--out", out) == 0
    path = out / "certificate.json"
    content = collect([path], Given(), "cosim report", "program")
    claim = Certificate(path).claim
    assert content.notes == [] and list(content.sheets) == ["proved"]
    assert content.sheets["proved"]["latency_ms"] == pytest.approx(
        claim.best[0].figures[0], rel=1e-12)
    assert load_overlay(out / "best.toml") == replace(overlay_of(
        claim.best[0].choice, load_overlay("default"), load_board(words[4])), name="proved")
    # With another network it says so.
    said = collect([path], Given(network="agc-w24"), "", "").notes
    assert any("the network here differs from the one that was proved" in note for note in said)
    capsys.readouterr()


def test_what_excludes_designs_on_a_page_sums_to_the_space(tmp_path):
    branch, state = proved()
    path = tmp_path / "certificate.json"
    write_certificate(path, branch.bounds, claimed(branch, state))
    shown = proof_section(Certificate(path).document)
    assert sum(rule["designs"] for rule in shown["rules"]) == branch.question.space.size()
    whole, *parts = shown["cuts"]
    assert whole["parent"] == -1 and whole["designs"] == branch.question.space.size()
    for place, item in enumerate(shown["cuts"]):
        below = [part["designs"] for part in parts if part["parent"] == place]
        assert not below or sum(below) == item["designs"]
        assert sum(item["rules"].values()) == item["designs"]
    best = {axis["name"]: axis["best"] for axis in shown["axes"]}
    assert {name: value for name, value in best.items() if value is not None} == (
        state.front.members[0].choice)


@pytest.mark.parametrize("width", (1280, 400))
def test_a_certificate_is_drawn(tmp_path, capsys, width):
    branch, state = proved()
    write_certificate(tmp_path / "certificate.json", branch.bounds, claimed(branch, state))
    assert cosim("report", tmp_path / "certificate.json", "--out", tmp_path / "page.html") == 0
    assert "no sheet: there is no workload" in flat(capsys.readouterr().out)
    with chromium() as browser, opened(browser, (tmp_path / "page.html").as_uri(), width) as page:
        page.wait_for_selector("#proof .main-svg")
        text = page.inner_text("#proof")
        assert "The best design found has" in text
        assert "gap 0.00%." in text and "certificate.json" in page.inner_text("#proof code")
        slices = page.locator("#proof .slice")
        before = slices.count()
        slices.nth(1).click()
        page.wait_for_function(
            f"document.querySelectorAll('#proof .slice').length !== {before}")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_command_proves_a_front_and_checks_it(tmp_path, capsys):
    out = tmp_path / "proof"
    words = [*proof_words(tmp_path), "--out", out]
    assert cosim(*words, "--objective", "energy") == 0
    assert "in energy (uJ/pixel)" in flat(capsys.readouterr().out)
    assert (out / "best.toml").exists()
    book = ("--storage", tmp_path / "boxes")
    assert cosim(*words, "--objectives", "latency,energy", "--gap", 0.05, *book) == 0
    shown = flat(capsys.readouterr().out)
    assert "best-1.toml: latency (ms)" in shown
    assert (out / "best-1.toml").exists()
    assert not (out / "best.toml").exists()
    claim = json.loads((out / "certificate.json").read_text())["claim"]
    assert claim["objectives"] == ["latency", "energy"]
    assert cosim("check", out / "certificate.json") == 0
    assert "in latency and energy; gap" in flat(capsys.readouterr().out)
    assert cosim(*words, "--objectives", "energy,latency", "--gap", 0.05, *book) == 2
    assert "holds another proof" in flat(capsys.readouterr().err)
    assert cosim(*words, "--objectives", "latency,product") == 2
    assert "the product alone" in flat(capsys.readouterr().err)
    assert cosim(*words, "--objectives", "period") == 2
    assert "no objective of a proof 'period'" in flat(capsys.readouterr().err)


def flat(text: str) -> str:
    """Without the ends of lines."""
    return " ".join(text.split())


def test_designs_to_start_from_are_simulated_first(monkeypatch):
    start = dict(proved()[1].front.members[0].choice)
    # Of this small space the proof's own ones hold the best already.
    monkeypatch.setattr("studies.certify.branch.starting_choices", lambda *_: [])
    branch = Branch(Question(SMALL, BOARD, SLOW, narrow_space()), Settings(seconds=0.0),
                    Book(None, ""))
    slow = branch.run()
    again = Branch(Question(SMALL, BOARD, SLOW, narrow_space()), Settings(seconds=0.0),
                   Book(None, ""))
    state = again.run(start=[start])
    assert best(state) < best(slow)
    assert state.front.members[0].choice == start


@pytest.mark.parametrize("words", [
    ("--prove", "--designs", 600), ("--prove", "--seed", 0), ("--prove", "--sampler", "tpe"),
    ("--prove", "--study", "mine"), ("--prove", "--live"),
    ("--prove", "--no-prune"), ("--memory", "flat"), ("--gap", 0.1), ("--minutes", 1)])
def test_an_option_that_would_say_nothing_is_refused_by_name(words, tmp_path, capsys):
    assert cosim("explore", "agc-w16", *words, "--out", tmp_path / "out") == 2
    name = words[1] if words[0] == "--prove" else words[0]
    said = "is for a search" if words[0] == "--prove" else "is for a proof"
    assert f"{name.replace('no-', '')} {said}" in flat(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
