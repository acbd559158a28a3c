"""Does `import cosim` offer what the README uses, at once and without the heavy packages?"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cosim

ROOT = Path(__file__).parents[2]
HEAVY = {"numba", "numpy", "optuna", "matplotlib", "torch", "onnx", "onnxruntime", "simpy"}


def loaded_by(code: str) -> set[str]:
    """Top-level packages in `sys.modules` after some code ran in a fresh interpreter."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
         "print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"],
        cwd=ROOT, capture_output=True, text=True, check=True)
    return set(found.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("code", ["import cosim",
                                  "from studies.cli import main; main(['--help'])",
                                  "from studies.cli import main; main(['validate', '--help'])"])
def test_the_face_and_the_help_import_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize("name", cosim.__all__)
def test_every_name_is_there_and_says_what_it_takes(name: str) -> None:
    assert len(inspect.getdoc(getattr(cosim, name)) or "") > (
        60 if inspect.isfunction(getattr(cosim, name)) else 20)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(AttributeError, match="load_network"):
        cosim.load_networks  # noqa: B018


def test_the_readme_needs_nothing_else() -> None:
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        imports = re.findall(r"^(?:from|import) (\S+)", block, re.M)
        assert set(imports) == {"cosim"}


def test_the_readme_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        exec(compile(block.replace("agc-w64", "agc-w16"), "README.md", "exec"), {})
    latency, energy = map(float, capsys.readouterr().out.split())
    assert latency > 0 and energy > 0


@pytest.mark.parametrize("command", [["cosim", "--version"], ["cosim", "boards"]])
def test_python_dash_m_runs_the_command_line(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    assert "cosim " in done.stdout or "pynq-z1" in done.stdout


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    from studies.cli import main

    with pytest.raises(SystemExit):
        main(["simulat"])
    assert "Did you mean 'simulate'?" in capsys.readouterr().err
