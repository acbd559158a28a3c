"""What a person proves with, checks and looks at: the commands, and the page of a certificate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from arch_models.board import load_board
from arch_models.overlay import DESIGNS, load_overlay
from studies.certify.bounds import Question
from studies.certify.branching.book import Book
from studies.certify.branching.branch import Branch, Settings
from studies.certify.certificate import (
    Certificate,
    write_certificate,
)
from studies.certify.session import Effort, searched
from studies.report.collect import Given, collect
from studies.report.proof import proof_section
from studies.search.exploration import outcome
from studies.search.space_overlays import overlay_of
from tests.support.browser import chromium, opened
from tests.support.command import cosim
from tests.support.small_proof import (
    BASE,
    BOARD,
    SLOW,
    SMALL,
    best,
    claimed,
    narrow_space,
    proof_words,
    proved,
)

PORTS = tuple(port.name for port in BOARD.ports)


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
    monkeypatch.setattr("studies.certify.branching.branch.starting_choices", lambda *_: [])
    branch = Branch(Question(SMALL, BOARD, SLOW, narrow_space()), Settings(seconds=0.0),
                    Book(None, ""))
    slow = branch.run()
    again = Branch(Question(SMALL, BOARD, SLOW, narrow_space()), Settings(seconds=0.0),
                   Book(None, ""))
    state = again.run(start=[start])
    assert best(state) < best(slow)
    assert state.front.members[0].choice == start


def test_a_proof_begins_with_what_a_search_under_its_own_memory_finds_too():
    """Of many ways of ports and limits `flat` knows none, so that its best one may be slow."""
    space = narrow_space(input_port=PORTS[:3], weight_port=PORTS[:3], write_outstanding=(2, 8),
                         input_banks=(1,), tm=(16,), fabric_elementwise=(True,))
    asked, quiet = Question(SMALL, BOARD, BASE, space, memory="ddr3"), Console(quiet=True)
    first = searched(replace(asked, memory="flat"), Effort(), quiet)
    both = searched(asked, Effort(), quiet)
    assert both[:len(first)] == first and len(both) > len(first)
    found = [outcome(SMALL, BOARD, BASE, choice, "ddr3").latency_ms for choice in both]
    assert min(found[len(first):]) < min(found[:len(first)])


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
