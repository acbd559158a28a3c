"""Does the emitted notebook run from its first cell to its last, and show what it should?

On the C simulation in the board's place; on a board it has not been run.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from arch_models.overlay import Engine
from hw.board.driver import Driver
from hw.board.emitted import DriverError, Project, integers_of
from hw.board.measurement import load_measurement
from hw.board.picture import integers, pixels, png_bytes
from hw.board.seal import seal
from hw.csim.fabric import Fabric
from hw.interface.vectors import host_layers
from hw.project.emit import emit
from hw.rtl_sim.stand_in import CSimRunner, StandIn
from studies.validate.board import validate
from tests.support.small_frames import board, lowered_frame, small_graph, without
from tests.support.waiting import PATIENCE_SECONDS
from workloads.agc.graph import frame_bytes
from workloads.frames import AGC_MEANINGS, Frame

REPOSITORY = Path(__file__).parents[2]
OVERLAY = without(Engine.SOFTMAX, Engine.LOOKUP)
#: Runs before the notebook's own cells: the fabric in C where the board would be.
STAND_IN = """
import hardware
from hw.csim.fabric import Fabric
from hw.rtl_sim.stand_in import CSimRunner, StandIn
from tests.support.small_frames import QUICK, lowered_frame, without
from arch_models.overlay import Engine
overlay = without(Engine.SOFTMAX, Engine.LOOKUP)
fabric = Fabric(lowered_frame(overlay).program, overlay, flags=QUICK)
board = StandIn(CSimRunner(fabric), {ports!r})
hardware.PynqHardware = lambda wait: board
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook") / "project"
    emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), folder,
         Frame(seed=5, meanings=AGC_MEANINGS))
    bitstream = folder / "build" / "overlay.bit"
    bitstream.parent.mkdir()
    bitstream.write_bytes(b"a stand-in for a bitstream")
    seal(str(folder), str(bitstream))
    return folder


@pytest.fixture
def driver(project, tmp_path):
    lowered = lowered_frame(OVERLAY)
    ports = tuple(json.loads((project / "manifest.json").read_text())["memory_ports"])
    table = host_layers(small_graph(), lowered)
    with Fabric(lowered.program, OVERLAY, table, ("-std=c++14", "-O0")) as fabric, \
            Driver(Project(str(project)), StandIn(CSimRunner(fabric), ports), fabric,
                   str(project / "build/overlay.bit"), str(tmp_path / "lock")) as driver:
        driver.put_vectors()
        yield driver


def test_every_cell_runs(project, monkeypatch, tmp_path):
    subprocess.run(["make", "-C", project, "host", "CXXFLAGS=-std=c++14 -O0"], check=True,
                   capture_output=True)
    book = nbformat.read(project / "board" / "overlay.ipynb", 4)
    ports = tuple(json.loads((project / "manifest.json").read_text())["memory_ports"])
    setup = STAND_IN.format(ports=ports)
    book.cells.insert(0, nbformat.v4.new_code_cell(setup))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYNQ_REMOTE_DEVICES", str(tmp_path))  # a lock of this test's own
    client = nbclient.NotebookClient(book, timeout=PATIENCE_SECONDS, kernel_name="python3",
                                     resources={"metadata": {"path": str(project / "board")}})
    client.execute()
    told = "".join(output.get("text", "") for cell in book.cells if cell.cell_type == "code"
                   for output in cell.outputs)
    assert f"{3 * 32 * 64} values compared, 0 differ" in told
    assert "measured (c simulation): " in told and "predicted" in told
    assert "power: no meter" in told
    shown = [output.data["image/png"] for cell in book.cells if cell.cell_type == "code"
             for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(shown) == 1
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0]))))
    expected = np.fromfile(project / "data/output_picture.bin", np.int8).reshape(3, 32, 64)
    assert np.array_equal(found, frame_bytes(expected))
    measurement = load_measurement(str(project / "measurement.json"))
    assert (measurement.repeats, measurement.values_differing) == (10, 0)
    # What the project says it should take is what the study predicts.
    said = json.loads((project / "data/prediction.json").read_text())["steps"]
    rows = validate(measurement, project).steps
    assert [step["seconds"] for step in said] == [row.predicted_s for row in rows]


def test_a_frame_of_the_users_own(driver):
    """Real numbers in, real numbers out; the same frame as by integers."""
    entries = driver.manifest["tensors"]
    rng = np.random.default_rng(1)
    shape = (entries["small"]["rows"], entries["small"]["columns"], 3)
    picture = rng.integers(0, 256, shape, np.uint8)
    points = rng.uniform(-0.3, 0.3, (2, 5, 1))
    found = driver.decode({"small": picture, "keypoints_driving": points})["picture"]
    again = driver.get("picture")
    assert np.array_equal(found, again * np.float32(entries["picture"]["scale"]))
    assert np.array_equal(driver.picture(), frame_bytes(again))
    by_hand = np.clip(np.rint(picture.transpose(2, 0, 1) / 255 * 128), 0, 127)
    driver.put("small", by_hand.astype(np.int8))
    driver.put("keypoints_driving", np.rint(points / entries["keypoints_driving"]["scale"])
               .astype(np.int16))
    driver.run()
    assert np.array_equal(driver.get("picture"), again)


def test_a_frame_that_makes_no_sense_is_refused(driver):
    points = np.zeros((2, 5, 1))
    for values, message in (
            (points, "inputs; give a dict of features, keypoints_driving"),
            ({"picture": points}, "'picture': is no input"),
            ({"keypoints_driving": points + 3}, "values must be from -2 to 1.99994"),
            ({"keypoints_driving": points * np.nan}, "values must be from"),
            ({"keypoints_driving": np.zeros((5, 1, 2), np.uint8)}, "is no picture"),
            ({"keypoints_driving": np.zeros((2, 5, 1), np.int64)}, "its type is int64"),
            ({"small": np.zeros((5, 5, 3), np.uint8)}, "shape")):
        with pytest.raises(DriverError, match=message):
            driver.decode(values)
    with pytest.raises(DriverError, match="1 or 3 channels"):
        driver.manifest["tensors"]["picture"]["channels"] = 2
        driver.manifest["tensors"]["picture"]["places"] = [0, 1]
        driver.picture()


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_a_png_is_read_back_by_a_library(shape):
    picture = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), picture)


def test_pixels_and_integers_are_inverse_but_for_white():
    """At a scale of 1/128 every pixel but the brightest two comes back within one."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stored = integers(ramp, 2.0**-7)
    assert stored.shape == (1, 16, 16) and stored.dtype == np.int8
    assert stored.min() == 0 and stored.max() == 127
    back = pixels(stored, 2.0**-7).astype(int)
    assert np.abs(back - ramp).max() <= 2
    assert list(pixels(np.array([[[-5, 0, 127]]], np.int8), 2.0**-7)[0]) == [0, 0, 253]


def test_real_numbers_round_to_the_nearest_step():
    entry = {"bits": 8, "scale": 0.25, "channels": 1, "rows": 1, "columns": 3}
    values = np.array([[[0.3, -32.0, 31.9]]])
    assert integers_of(values, entry, "a").tolist() == [[[1, -128, 127]]]
    with pytest.raises(DriverError, match="from -32 to 31.75"):
        integers_of(values + 1, entry, "a")
