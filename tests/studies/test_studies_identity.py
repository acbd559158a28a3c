"""Does a study's identity hold everything that its outcomes depend on?"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.search.identity import identity
from studies.search.outcomes import Settings
from studies.search.sources import ROOT, data_files, reached
from studies.search.space import default_space
from tests.support.waiting import PATIENCE_SECONDS
from workloads.library import load

GRAPH, BOARD, OVERLAY = load("agc-w16"), load_board("pynq-z1"), default_overlay()
EVALUATE = """
import json, os, sys
root = sys.argv[1]
opened = set()
sys.addaudithook(lambda event, given: event == "open" and isinstance(given[0], str)
                 and opened.add(os.path.abspath(given[0])))
from arch_models.board import load_board
from arch_models.overlay import load_overlay
from studies.search.exploration import outcome
from studies.search.space import default_space
from studies.search.space_overlays import starting_choices
from workloads.library import load
graph, board, base = load("agc-w16"), load_board("pynq-z1"), load_overlay("default")
for choice in (None, *starting_choices(default_space(board), base, board, 1)):
    for memory in ("flat", "ddr3"):
        outcome(graph, board, base, choice, memory)
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
print(json.dumps([[os.path.relpath(path, root) for path in group if path.startswith(root)]
                  for group in (files, opened)]))
"""


def test_every_module_and_table_that_an_evaluation_touches_is_in_the_digest():
    found = subprocess.run([sys.executable, "-c", EVALUATE, str(ROOT)], cwd=ROOT, text=True,
                           capture_output=True, check=True, timeout=PATIENCE_SECONDS)
    modules, opened = json.loads(found.stdout.splitlines()[-1])
    known = {path.as_posix() for path in (*reached(), *data_files())}
    ours = {path for path in modules if path.split("/")[0] in
            ("arch_models", "cosim", "workloads", "hw", "studies")}
    assert len(ours) > 40 and ours <= known
    chosen = ("arch_models/boards/", "arch_models/designs/", "workloads/data/")
    tables = {path for path in opened if Path(path).suffix in (".toml", ".csv", ".json")
              and not path.startswith(chosen) and not path.startswith((".", "build"))}
    assert tables and tables <= known


def of(graph=GRAPH, board=BOARD, base=OVERLAY, **settings):
    return identity([graph], board, base, default_space(board, graph), Settings(**settings))


@pytest.mark.parametrize("other", [
    {"board": replace(BOARD, host=replace(BOARD.host, poll_ns=1.0))},
    {"base": replace(OVERLAY, tm=24)}, {"seed": 1}, {"stretch": 60}, {"rounds": 5},
    {"attempts": 100}])
def test_whatever_changes_an_outcome_changes_the_identity(other):
    assert of(**other) != of()


def test_the_number_of_designs_does_not():
    assert of(designs=5) == of()


def test_the_values_of_weights_do():
    name, array = next((name, array) for name, array in GRAPH.constants.items() if array.size > 9)
    changed = array.copy()
    changed.flat[3] ^= 1
    assert of(graph=replace(GRAPH, constants={**GRAPH.constants, name: changed})) != of()


def test_a_file_of_coefficients_counts_by_what_is_in_it(tmp_path):
    path = tmp_path / "mine.toml"
    base = replace(OVERLAY, backend=str(path))
    text = ('[convolution.fill]\nvalue = {}\nunit = "cycles"\nsource = "a report"\n'
            'status = "measured"\n')
    path.write_text(text.format(10))
    first = of(base=base)
    path.write_text(text.format(2000))
    assert of(base=base) != first
