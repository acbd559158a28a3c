"""Is the wheel whole, and does the command run from it, far from the checkout?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
ROOMS = ("arch_models", "cosim", "workloads", "hw", "studies")
#: Read in the checkout only.
NOT_SHIPPED = {".md", ".gitignore"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(folder), str(folder / "source")],
        check=True, timeout=PATIENCE_SECONDS)
    shutil.rmtree(folder / "source")
    return next(folder.glob("*.whl"))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *ROOMS, "pyproject.toml", "README.md",
                             "LICENSE"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout: nothing says which files belong to the project")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_every_file_of_the_rooms_is_in_the_wheel(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = [name for name in tracked() if name.partition("/")[0] in ROOMS
               and Path(name).suffix not in NOT_SHIPPED and name not in held]
    assert not missing


def test_the_command_runs_from_the_wheel_elsewhere(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    done = subprocess.run(
        [sys.executable, "-m", "cosim", "simulate", "agc-w16", "-m", "flat", "--frames", "1",
         "--json", "result.json"], cwd=tmp_path, text=True, capture_output=True,
        timeout=PATIENCE_SECONDS, check=False, env={
            **os.environ, "PYTHONPATH": str(place),
            "NUMBA_DISABLE_JIT": "1"})  # nothing is compiled there yet, which would take 40 s
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.json").exists() and "predicted" in done.stdout
