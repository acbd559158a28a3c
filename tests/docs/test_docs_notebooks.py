"""Do the notebooks run from their first cell to their last, and hold no outputs in git?"""

from __future__ import annotations

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The project can be imported, and what a notebook writes beside its folder goes with it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more wait for one another on a busy machine
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)
    nbformat.validate(book)
    done = nbclient.NotebookClient(book, timeout=PATIENCE_SECONDS, kernel_name="python3",
                                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in (item for item in done.cells if item.cell_type == "code"):
        assert not any(out.output_type == "error" for out in cell.outputs)
    shown = [out for cell in done.cells if cell.cell_type == "code" for out in cell.outputs]
    assert any(out.output_type == "stream" and out.name == "stdout" for out in shown)
    if path.stem == "decoder":
        assert sum("image/png" in out.get("data", {}) for out in shown) == 2


def test_there_is_a_tour_and_one_for_codec_engineers() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["decoder", "tour"]
