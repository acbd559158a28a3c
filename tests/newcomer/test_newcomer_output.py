"""Is what a command computed written before it is shown, and shown as it is named?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay, overlay_toml
from studies.evaluation.evaluate import evaluate, feasible
from studies.evaluation.values import Evaluation
from studies.plain.records import save
from studies.plain.terminal import printable, terminal
from studies.report import pictures, tables
from studies.report.page import Content, page_html
from studies.report.sheet import sheet
from tests.support.command import cosim
from tests.support.waiting import PATIENCE_SECONDS
from workloads.library import load

ROOT = Path(__file__).parents[2]
#: Markup of the terminal, a formula that is none, HTML.
HOSTILE = ("[/x]", "[bold]a", "$\\frac$", "$a_{$", "<script>", "$x$ [/]")


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return feasible(evaluate(load("agc-w16"), default_overlay(), load_board("pynq-z1"), "flat",
                             detail=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_in_tables_pictures_and_the_page(
        tmp_path: Path, capsys: pytest.CaptureFixture, result: Evaluation, name: str) -> None:
    layers = tuple(replace(layer, name=f"{name}{index}", bound=name)
                   for index, layer in enumerate(result.layers))
    item = replace(result, workload=name, overlay=name, board=name, layers=layers)
    console = terminal(width=300)
    for table in (tables.summary([item]), tables.resources(item), tables.layers(item)):
        console.print(table)
    console.print(f"names: {name}", highlight=False)
    shown = capsys.readouterr().out
    assert f"names: {name}" in shown and f"{name}{len(layers) - 1}" in shown
    shown = page_html(Content(name, name, name, sheets={name: sheet(item, load_board("pynq-z1"))}))
    page, _, data = shown.partition('id="data">')
    assert "<" not in name or name not in page
    kept = json.loads(data.partition("</script>")[0])
    assert kept["title"] == name and kept["sheets"][name]["layers"][1]["name"] == f"{name}1"
    pictures.save_picture(pictures.pareto(
        __import__("numpy").array([[1.0, 2.0, 0.5]]), [0], {name: (1.0, 2.0)}, name),
        tmp_path / "front.png")


def test_logarithmic_axes_keep_their_powers(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.loglog([1e-3, 1e3], [1, 2])
    pictures.save_picture(figure, tmp_path / "a.png")
    assert all(text.get_parse_math() for text in axes.xaxis.get_ticklabels())
    assert not axes.title.get_parse_math()


def test_what_steers_a_terminal_is_printed_as_an_escape() -> None:
    assert printable("a\x1b[2J\nb\r\x07é") == "a\\x1b[2J\nb\\r\\x07é"


def breaks(*_: object, **__: object) -> None:
    raise RuntimeError("drawing fails")


@pytest.mark.parametrize("words", (
    ("simulate", "agc-w16", "-m", "flat"), ("compare", "default", "default", "-w", "agc-w16"),
    ("what-if", "default", "-w", "agc-w16", "--set", "tm=8,16"), ("boards",),
    ("what-if", "default", "-w", "agc-w16", "--set", "tm=8"),
    ("explore", "agc-w16", "--designs", "3", "--workers", "1"),
), ids=lambda words: " ".join(words[:2]))
def test_what_was_computed_is_there_when_showing_it_fails(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rich.table.Table.add_column", breaks)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", breaks)
    with pytest.raises(RuntimeError, match="drawing fails"):
        cosim(*words, "--json", tmp_path / "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text())


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "studies.cli", *words], text=True, check=False,
                          stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)  # type: ignore[call-overload]


def test_an_output_that_takes_nothing_ends_with_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = run("boards", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: No space left on device"]


SMALL_DISK = """import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from studies.cli import main
from studies.commands import (
    catalogue, calibrate, compare, explain, explore, report, simulate, what_if)
import plotly.offline
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", (
    ("boards", "--json", "a.json"), ("simulate", "agc-w16", "-m", "flat", "--json", "a.json"),
    ("compare", "default", "default", "-w", "agc-w16", "-m", "flat", "--json", "a.json"),
    ("what-if", "default", "-w", "agc-w16", "--set", "tm=8", "--out", "out"),
    ("report", "result.json", "--out", "page.html"), ("emit", "agc-w16", "--out", "out"),
    ("explore", "agc-w16", "--designs", "2", "--workers", "1", "--out", "out"),
), ids=lambda words: words[0])
def test_a_full_disk_ends_every_command_with_one_line(tmp_path: Path, result: Evaluation,
                                                      words: tuple[str, ...]) -> None:
    save(tmp_path / "result.json", "evaluation", result)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, *words], cwd=tmp_path, text=True, check=False,
        capture_output=True, timeout=PATIENCE_SECONDS, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode in (1, 2), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "File too large" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path not in before] == []


def test_a_design_named_as_markup_is_refused_in_one_line(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "[bold].toml"
    path.write_text(overlay_toml(default_overlay()).replace('"default"', '"[/x]"'))
    assert cosim("simulate", "agc-w16", "--design", path) == 2
    said = capsys.readouterr().err
    assert "[bold].toml" in said and "'[/x]'" in said


@pytest.mark.parametrize(("error", "said"), [
    ("FileNotFoundError('no weight file x in data')", "no weight file x in data"),
    ("OSError(28, 'No space left on device', 'out.json')", "No space left on device: out.json"),
    ("OSError()", "OSError")])
def test_what_the_system_or_a_reader_refuses_is_one_line(error: str, said: str) -> None:
    code = f"from studies.cli import guarded\ndef work(): raise {error}\nguarded(work)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"error: {said}\n"
