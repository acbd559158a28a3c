"""Does what runs on the board need no more than the board has: Python 3.8, numpy and pynq?"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hw.board.measurement import load_measurement
from tests.support import tiny_project

FILES = sorted(path for path in tiny_project.BOARD.glob("*.py") if path.name != "__init__.py")
BUILD = Path(__file__).parents[2] / "build"
ALLOWED = {"__future__", "argparse", "asyncio", "atexit", "ctypes", "dataclasses", "fcntl",
           "hashlib", "hw", "json", "math", "numpy", "os", "pynq", "signal", "stat", "struct",
           "sys", "tempfile", "threading", "time", "typing", "zlib"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_syntax_and_imports(path):
    text = path.read_text()
    ast.parse(text, feature_version=(3, 8))
    imports = {part.split(".")[0] for node in ast.walk(ast.parse(text))
               for part in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                            else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
    assert imports <= ALLOWED | {path.stem for path in FILES}


def test_nothing_of_the_standard_library_is_newer():
    """vermin knows since when each function, argument and syntax is there."""
    command = [Path(sys.executable).parent / "vermin", "-t=3.8-", "--violations", "--no-tips"]
    done = subprocess.run([*command, *FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_notebook_has_the_same_syntax():
    """Its imports are the files beside it, and IPython, which runs it."""
    book = json.loads((tiny_project.BOARD / "overlay.ipynb").read_text())
    code = "\n".join("".join(cell["source"]) for cell in book["cells"]
                     if cell["cell_type"] == "code")
    names = {node.module for node in ast.walk(ast.parse(code, feature_version=(3, 8)))
             if isinstance(node, ast.ImportFrom)}
    assert names <= {"IPython.display", *(path.stem for path in FILES)}
    assert not any(cell.get("outputs") for cell in book["cells"])


def python_of(version: str) -> Path | None:
    """An interpreter of that version, if this machine has one."""
    found = [shutil.which(f"python{version}"),
             *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for path in found:
        # A shim may be there without its interpreter.
        if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode:
            return Path(path)
    return None


def with_numpy(version: str) -> Path:
    """An environment of that Python with numpy and nothing else, made once; or a skip."""
    base, venv = python_of(version), BUILD / f"board-python-{version}"
    if base is None:
        pytest.skip(f"this machine has no Python {version}")
    python = venv / "bin" / "python"
    if python.exists() and not subprocess.run([python, "-c", "import numpy"]).returncode:
        return python
    subprocess.run([base, "-m", "venv", "--clear", venv], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", "--retries", "1", "numpy"],
                          capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"numpy for Python {version} cannot be fetched: {done.stderr[-200:]}")
    return python


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10"])
def test_a_measurement_by_an_older_python(tmp_path, version):
    """The emitted files alone, from a folder of their own, in that Python."""
    python, folder = with_numpy(version), tmp_path / "project"
    folder.mkdir()
    tiny_project.write_project(folder)
    output = tmp_path / "measurement.json"
    done = subprocess.run([python, tiny_project.__file__, str(folder), str(output)],
                          capture_output=True, text=True, check=False, cwd=tmp_path,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tiny_project.BOARD)})
    assert done.returncode == 0, done.stderr
    assert load_measurement(str(output)).repeats == 2
    assert (folder / "log").read_text().split() == ["download", "stop"]
    done = subprocess.run([python, tiny_project.BOARD / "run.py", "--help"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and "--bitstream" in done.stdout, done.stderr
