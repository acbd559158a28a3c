"""Does the net of tests have holes? Faults are planted one at a time into a copy of the project.

Each must make one of its tests fail. A fault that lives is argued in `planted`, and the argument
is tested: it must live. At least 95 % must be caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.planted import FAULTS, Fault
from tests.support.source import ROOT

COPIED, LINKED = ("arch_models", "cosim", "hw", "studies", "tests"), ("workloads",)
CAUGHT = 0.95
FAILED, PASSED = 1, 0  # exit codes of pytest


def copy_of_the_project(folder: Path) -> Path:
    """The rooms and the tests, without what git does not keep."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, tests: tuple[str, ...], options: tuple[str, ...]) -> int:
    """Pytest's exit code for some tests in a copy. Where nothing need be compiled, nothing is."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    if any("not fast" in item for item in options):
        environment["NUMBA_DISABLE_JIT"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests, *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode in (PASSED, FAILED), done.stdout[-2000:] + done.stderr[-2000:]
    return done.returncode


def test_every_planted_fault_has_its_place_and_few_live() -> None:
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.old) == 1, (fault.file, fault.old)
        assert fault.new != fault.old
    assert sum(not fault.why for fault in FAULTS) >= CAUGHT * len(FAULTS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("planted"))


@pytest.mark.long
def test_the_copy_without_a_fault_passes(project: Path) -> None:
    for options in sorted({fault.options for fault in FAULTS}):
        tests = sorted({test for fault in FAULTS if fault.options == options
                        for test in fault.tests})
        assert run(project, tuple(tests), options) == PASSED


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file} {fault.new[:40]}")
def test_a_planted_fault_is_seen(project: Path, fault: Fault) -> None:
    path = project / fault.file
    text = path.read_text()
    path.write_text(text.replace(fault.old, fault.new))
    try:
        assert run(project, fault.tests, fault.options) == (PASSED if fault.why else FAILED)
    finally:
        path.write_text(text)
