"""Is a compiled function that is kept on disk compiled anew when what it comes from changes?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
#: What the kept function uses of another file.
HELPER = """
from enum import IntEnum
from typing import NamedTuple
import numpy as np
from cosim.compiled import PLAIN
from deeper import once

LIMIT = %(limit)s
ROW = np.dtype([(name, np.int64) for name in %(columns)r])

class Kind(IntEnum):
    ODD = %(odd)s

class %(record)s(NamedTuple):
    %(first)s: int
    %(second)s: int

TAKEN = %(record)s(%(first)s=3, %(second)s=4)

@PLAIN
def twice(value):
    return min(%(factor)s * once(value), LIMIT)
"""
DEEPER = """
from cosim.compiled import PLAIN

@PLAIN
def once(value):
    return %s
"""
CALLER = """
import helper
from cosim.compiled import CACHED
from helper import Kind, TAKEN, twice

@CACHED
def reckon(taken):
    return later(twice(taken.start)) + Kind.ODD + helper.LIMIT - taken.end

@CACHED
def later(value):
    return helper.twice(value)

print(reckon(TAKEN), sum(reckon.stats.cache_hits.values()))
"""
BASE = {"limit": 100, "columns": "ab", "odd": 1, "record": "Span", "first": "start",
        "second": "end", "factor": 2}


def run(folder: Path, once: str = "value", **changed: object) -> tuple[int, int]:
    """(what the kept function returns, how many of its compilations came from the disk)"""
    (folder / "helper.py").write_text(HELPER % {**BASE, **changed})
    (folder / "deeper.py").write_text(DEEPER % once)
    (folder / "caller.py").write_text(CALLER)
    os.utime(folder / "caller.py", (1, 1))  # its own file never changes
    paths = os.pathsep.join((str(folder), str(ROOT)))
    done = subprocess.run([sys.executable, "-c", "import caller"], cwd=folder, text=True,
                          env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return int(value), int(hits)


# Of a record that is gone numba would raise, before it asks whether what is kept is stale.
@pytest.mark.parametrize("changed, value", [
    ({"factor": 3}, 27 + 1 + 100 - 4),
    ({"limit": 10}, 10 + 1 + 10 - 4),
    ({"odd": 7}, 12 + 7 + 100 - 4),
    ({"once": "value + 1"}, 18 + 1 + 100 - 4),
    ({"first": "end", "second": "start"}, 16 + 1 + 100 - 3),
    ({"record": "Other"}, 12 + 1 + 100 - 4),
], ids=["a callee", "a constant", "an enum", "a callee's callee", "fields in another order",
        "a record of another name"])
def test_a_change_is_noticed_and_what_did_not_change_is_kept(
        tmp_path: Path, changed: dict[str, object], value: int) -> None:
    assert run(tmp_path) == (109, 0)
    assert run(tmp_path) == (109, 1)
    assert run(tmp_path, **changed) == (value, 0)  # type: ignore[arg-type]
    assert run(tmp_path, **changed) == (value, 1)  # type: ignore[arg-type]


def test_what_nothing_of_a_kept_function_reads_does_not_count(tmp_path: Path) -> None:
    assert run(tmp_path) == (109, 0)
    assert run(tmp_path, columns="abc") == (109, 1)


def test_values_that_cannot_be_told_apart_are_refused() -> None:
    from cosim.compiled import _said

    assert _said(np.int64(3), []) != _said(np.int64(4), [])
    assert _said(np.zeros(2), []) != _said(np.ones(2), [])
    long = np.arange(2000)
    assert _said((long,), []) != _said((np.where(long == 1000, 0, long),), [])
    with pytest.raises(TypeError, match="may not read"):
        _said(object(), [])
