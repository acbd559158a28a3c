"""Can the shipped networks be simulated where neither torch nor onnx is installed?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxruntime"):
            raise ModuleNotFoundError(name + " is absent", name=name)

sys.meta_path.insert(0, Absent())
from workloads.library import load, names
from studies.cli import main

for name in names():
    assert load(name).layers
try:
    main(["simulate", "agc-w16", "--memory", "flat", "--frames", "1"])
except SystemExit as end:
    assert not end.code, end.code
try:
    main(["simulate", "some.onnx"])
except SystemExit as end:
    assert end.code == 2, end.code
"""


def test_shipped_networks_need_neither_torch_nor_onnx() -> None:
    """And an .onnx file is then refused with the extra's name."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install -e '.[onnx]'" in " ".join(done.stderr.split())
