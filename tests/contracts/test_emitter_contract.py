"""What every emitter must hold: same bytes again, equal to the reference, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from arch_models.memory import memory_for
from arch_models.overlay import default_overlay
from hw.board.emitted import Project
from hw.board.hardware import HostLibrary
from hw.interface.configuration import configure
from hw.interface.descriptors import unpack
from hw.interface.plan import in_order_of_start
from hw.project.emit import EmissionError, emit, project_files
from tests.support.small_frames import board, lowered_frame, small_graph
from workloads.frames import Frame

OVERLAY = default_overlay()
FRAME = Frame(seed=2)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emit") / "project"
    manifest = emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), folder, FRAME)
    return folder, manifest


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_repeated_emission_is_byte_identical(emitted, tmp_path):
    folder, manifest = emitted
    again = tmp_path / "again"
    assert emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), again, FRAME) == manifest
    assert files_of(again) == files_of(folder)
    before = files_of(again)
    emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), again, FRAME)
    assert files_of(again) == before
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_the_manifest_lists_every_file_with_its_hash(emitted):
    folder, manifest = emitted
    found = files_of(folder)
    assert set(found) == {*manifest.files, "manifest.json"}
    for name, entry in manifest.files.items():
        assert entry.bytes == len(found[name])
        assert entry.sha256 == hashlib.sha256(found[name]).hexdigest()


def test_its_program_is_the_simulated_program_in_order_of_start(emitted):
    folder, manifest = emitted
    program = unpack((folder / "data/descriptors.bin").read_bytes(),
                     (folder / "data/program.json").read_text())
    simulated = lowered_frame(OVERLAY).program
    assert program.content_hash() == in_order_of_start(
        simulated, configure(simulated, OVERLAY), memory_for(board(), OVERLAY)).content_hash()
    assert manifest.program_sha256 == program.content_hash()
    assert json.loads((folder / "manifest.json").read_text())["late_commands"] == 0


def test_its_own_simulation_equals_the_reference(emitted, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(emitted[0], folder)
    done = subprocess.run(["make", "csim", "host"], cwd=folder, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert f"values_compared {3 * 32 * 64}\nvalues_differing 0\n" in done.stdout
    other = subprocess.run(["build/testbench", "data", "99"], cwd=folder, capture_output=True,
                           text=True, check=False)
    assert "values_differing 0\n" in other.stdout
    _host_layer_runs(folder)
    _differences_and_truncation_are_told(folder)


def _host_layer_runs(folder: Path) -> None:
    project = Project(str(folder))
    host = HostLibrary(str(folder / "build/libhost.so"), project.data("data/host.bin"))
    memory = np.zeros(project.manifest["memory_bytes"], np.uint8)
    layer = next(step["layer"] for step in project.manifest["steps"] if step["kind"] == "host")
    host.run_host(layer, memory)


def _differences_and_truncation_are_told(folder: Path) -> None:
    for name, change, code, message in (
            ("output_picture.bin", lambda data: bytes([data[0] ^ 1]) + data[1:], 1, "1 of"),
            ("weights.bin", lambda data: data[:-64], 2, "weights.bin is truncated"),
            ("descriptors.bin", lambda data: data[:-64], 2, "descriptors.bin is truncated"),
            ("host.bin", lambda data: b"x" + data[1:], 2, "no table of host layers")):
        path = folder / "data" / name
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        done = subprocess.run(["build/testbench", "data"], cwd=folder, capture_output=True,
                              text=True, check=False)
        path.write_bytes(whole)
        assert done.returncode == code
        assert message in done.stdout + done.stderr


def test_nothing_in_it_depends_on_the_place(emitted):
    folder, _ = emitted
    needles = [str(folder).encode(), str(Path(__file__).parent.parent.parent).encode()]
    for name, data in files_of(folder).items():
        assert not any(needle in data for needle in needles), name


def test_what_is_unchecked_is_listed(emitted):
    folder, _ = emitted
    unchecked = json.loads((folder / "manifest.json").read_text())["unchecked"]
    text = (folder / "README.md").read_text()
    assert unchecked and all(f"- {item}" in text for item in unchecked)


@pytest.mark.parametrize("extension", [".tcl"])
def test_scripts_close_their_braces(emitted, extension):
    for name, data in files_of(emitted[0]).items():
        if name.endswith(extension):
            text = data.decode()
            for opening, closing in ("{}", "[]"):
                assert text.count(opening) == text.count(closing), name


def test_every_master_reaches_its_port(emitted):
    text = (emitted[0] / "vivado/design.tcl").read_text()
    for master in OVERLAY.masters:
        assert re.search(rf"\n    {master.port} hp {{[a-z ]*\b{master.name}\b", text)
    for name in ("descriptors", "memory_input", "memory_weight", "memory_output"):
        assert f"COSIM_REGISTER({name})" in (emitted[0] / "sources/overlay.cpp").read_text()


@pytest.mark.parametrize(("field", "value", "message"), [
    ("data_bits", 16, "data_bits is 16, must be 8"),
    ("weight_bits", 16, "weight_bits is 16, must be 8"),
])
def test_an_overlay_that_cannot_be_emitted_leaves_nothing(tmp_path, field, value, message):
    overlay = dataclasses.replace(OVERLAY, **{field: value})
    with pytest.raises(EmissionError, match=message):
        emit(lowered_frame(OVERLAY), small_graph(), overlay, board(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_constant_that_does_not_fit_is_refused(tmp_path):
    graph = small_graph()
    constants = {**{name: graph.constants[name] for name in graph.constants},
                 "final.multiplier": np.full(3, 40000, np.int32)}
    with pytest.raises(EmissionError, match="multiplier is 40000, must fit signed 16 bits"):
        emit(lowered_frame(OVERLAY), dataclasses.replace(graph, constants=constants), OVERLAY,
             board(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(EmissionError, match="holds something else than an emitted project"):
        emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), tmp_path)
    assert files_of(tmp_path) == {"thesis.txt": b"dear"}
    with pytest.raises(EmissionError, match="is a file, must be a folder"):
        emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), tmp_path / "thesis.txt")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EmissionError, match="cannot write"):
        emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), blocked / "below")

    def fails(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(EmissionError, match="No space left on device"):
        emit(lowered_frame(OVERLAY), small_graph(), OVERLAY, board(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_given_inputs_are_the_vectors():
    graph = small_graph()
    picture = np.full(graph.tensors["small"].shape, 7, np.int8)
    files = project_files(lowered_frame(OVERLAY), graph, OVERLAY, board(),
                          Frame({"small": picture}))
    assert files["data/input_small.bin"] == picture.tobytes()
