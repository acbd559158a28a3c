"""Can a proof or its certificate lie, however it is spread, ended or changed?"""

from __future__ import annotations

import itertools
import json
import signal

import pytest

from arch_models.fields import FieldError
from studies.certify.bounds import Bounds, Question
from studies.certify.branching.book import Book
from studies.certify.branching.branch import Branch, Settings
from studies.certify.branching.closing import Closer
from studies.certify.certificate import (
    Certificate,
    _sum,
    certificate,
    question_of,
    write_certificate,
)
from studies.certify.parts import Parts
from studies.plain.errors import UserError
from studies.plain.stopping import Stopped
from tests.support.small_proof import (
    BASE,
    BOARD,
    EXACT,
    SLOW,
    SMALL,
    below,
    best,
    claimed,
    figures_of,
    narrow_space,
    optimum,
    proved,
)


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


def test_paces_that_a_common_table_leaves_have_their_own_and_lines_of_a_book(tmp_path):
    space, path = narrow_space(requantize_cycles=(2, 8, 16), layout=("dense",),
                               input_port=("HP0",)), tmp_path / "boxes.jsonl"
    _, state = proved(space=space, book=Book(path, "paces"))
    assert best(state) == below(state) == min(
        point.ms for point in figures_of(SMALL, space, "flat"))
    kept = Book(path, "paces").known
    waiting = [part for _, closed in kept.values() for part in closed.parts]
    assert waiting and not any(asked.program for _, asked in waiting)
    assert {len(dict(asked.sides)["requantize_cycles"]) for _, asked in waiting} == {1}
    assert any(asked in kept for _, asked in waiting)
    assert all(asked in kept or state.front.bar(1.0).cleared(point) for point, asked in waiting)


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
    *((Bounds, "cut", call) for call in (1, 2, 4, 6)),
    *((Parts, "least", call) for call in range(1, 10)),
    (Bounds, "opened", 1), (Bounds, "programs_of", 1),
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
