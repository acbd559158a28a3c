"""Do the commands of the decoder guide run, in their order, in an empty folder?"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from studies.evaluation.stored import load_evaluation
from tests.docs.test_docs_blocks import ROOT, blocks
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long  # a minute
GUIDE = ROOT / "docs" / "guide-decoder.md"


def run(folder: Path, words: list[str]) -> None:
    ended = subprocess.run(words, cwd=folder, text=True, capture_output=True,
                           timeout=PATIENCE_SECONDS, check=False,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 0, f"{words}: {ended.stderr[-2000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("guide")
    for block in blocks(GUIDE):
        if block.kind == "python":
            run(found, [sys.executable, "-c", block.text])
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "cosim"
            run(found, [sys.executable, "-m", "cosim", *words[1:]])
    return found


def test_every_command_of_the_guide_runs(folder: Path) -> None:
    written = {path.name for path in (folder / "out").iterdir()}
    assert {"clip", "decoder.json", "decoder.html", "two-steps.json", "own.json"} <= written
    assert len(list((folder / "out" / "clip").glob("*.png"))) == 2


def test_the_cached_branch_is_no_part_of_a_frame(folder: Path) -> None:
    """The encoder's two convolutions run once a group; a frame has the flow and the decoder."""
    layers = load_evaluation(folder / "out" / "own.json").layers
    assert {"conv2d_2", "conv2d_3"} <= {layer.name for layer in layers}
    assert not {"conv2d", "conv2d_1", "relu", "relu_1"} & {layer.name for layer in layers}
