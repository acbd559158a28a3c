"""Is a compiled function that is kept on disk compiled anew when a file that it calls changes?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPER = """
from cosim.compiled import PLAIN

@PLAIN
def twice(value):
    return %s
"""
CALLER = """
import helper
from cosim.compiled import kept
from helper import twice

@kept(helper)
def four_times(value):
    return twice(twice(value))

print(four_times(3), sum(four_times.stats.cache_hits.values()))
"""


def run(folder: Path) -> str:
    paths = os.pathsep.join((str(folder), str(ROOT)))
    done = subprocess.run([sys.executable, "-c", "import caller"], cwd=folder, check=True,
                          env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_changed_callee_is_noticed_and_an_unchanged_one_kept(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "helper.py").write_text(HELPER % "2 * value")
    assert run(tmp_path) == "12 0"
    assert run(tmp_path) == "12 1"
    (tmp_path / "helper.py").write_text(HELPER % "3 * value")
    assert run(tmp_path) == "27 0"
