"""Does an emission remove and replace only what an emission wrote?"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from hw.interface.configuration import EmissionError
from hw.project import folder as folder_module
from hw.project.folder import check_target, write_project


def project(**files: bytes) -> dict[str, bytes]:
    """A project of a few files, `sources__a` for `sources/a`."""
    named = {name.replace("__", "/"): data for name, data in files.items()}
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
              for name, data in named.items()}
    return {**named, "manifest.json": json.dumps({"files": listed}).encode()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


FIRST = project(sources__a=b"1", data__b=b"2", README=b"3")
SECOND = project(sources__a=b"other", README=b"3", new=b"4")


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "out" / "project"
    write_project(FIRST, folder)
    assert files_of(folder) == FIRST
    return folder


def test_a_users_build_bitstream_and_measurement_stay(target):
    mine = {"build/overlay.bit": b"bits", "bitstream.json": b"{}", "measurement.json": b"{}",
            "data/notes.txt": b"dear"}
    for name, data in mine.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(data)
    (target / "build" / "link").symlink_to("/etc")
    write_project(SECOND, target)
    assert files_of(target) == {**SECOND, **mine}
    assert (target / "build" / "link").is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["project"]


def test_what_is_no_longer_needed_goes_with_its_empty_folder(target):
    write_project(SECOND, target)
    assert files_of(target) == SECOND
    assert not (target / "data").exists()


def test_a_file_that_was_changed_is_replaced_only_by_force(target):
    (target / "sources/a").write_bytes(b"mine")
    (target / "data/b").write_bytes(b"mine too")
    before = files_of(target)
    with pytest.raises(EmissionError, match="sources/a was changed since it was written.*--force"):
        write_project(SECOND, target)
    assert files_of(target) == before
    write_project(SECOND, target, force=True)
    # What is not in the way stays even then.
    assert files_of(target) == {**SECOND, "data/b": b"mine too"}


def test_a_file_that_no_emission_wrote_is_replaced_only_by_force(target):
    (target / "new").write_bytes(b"mine")
    with pytest.raises(EmissionError, match="new was not written by an emission"):
        write_project(SECOND, target)
    write_project(SECOND, target, force=True)
    assert files_of(target) == SECOND


def test_a_folder_of_something_else_is_written_into_only_by_force_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_bytes(b"dear")
    (tmp_path / "manifest.json").write_bytes(b'{"files": {"thesis.txt": {"sha256": "0"}}}')
    with pytest.raises(EmissionError, match="manifest.json was|was not written|was changed"):
        write_project({**FIRST, "thesis.txt": b"x"}, tmp_path)
    for text in (b"[]", b"nonsense", b'{"files": {"../other": {"sha256": "0"}}}', b"{}"):
        (tmp_path / "manifest.json").write_bytes(text)
        with pytest.raises(EmissionError, match="something else than an emitted project"):
            write_project(FIRST, tmp_path)
    write_project(FIRST, tmp_path, force=True)
    assert files_of(tmp_path) == {**FIRST, "thesis.txt": b"dear"}


def test_a_manifest_cannot_lead_outside_the_folder(tmp_path):
    """Neither by its paths nor by a folder that is a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"1")
    target = tmp_path / "target"
    target.mkdir()
    digest = hashlib.sha256(b"1").hexdigest()
    manifest = {"files": {"../outside/a": {"sha256": digest}, str(outside / "a"): {
        "sha256": digest}, "sources/a": {"sha256": digest}}}
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EmissionError, match="something else"):
        write_project(SECOND, target)
    manifest["files"] = {"sources/a": {"sha256": digest}}
    (target / "manifest.json").write_text(json.dumps(manifest))
    (target / "sources").symlink_to(outside)
    for force in (False, True):
        with pytest.raises(EmissionError, match="sources must be a folder and no link"):
            write_project(SECOND, target, force)
    assert files_of(outside) == {"a": b"1"}


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo,
                                  Path.mkdir])
def test_what_is_no_plain_file_is_never_replaced(target, make):
    (target / "sources/a").unlink()
    make(target / "sources/a")
    for force in (False, True):
        with pytest.raises(EmissionError, match="no plain file, or a link, and is not replaced"):
            write_project(SECOND, target, force)


def test_a_link_or_a_file_in_the_folders_place_is_refused(tmp_path, target):
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(EmissionError, match="is a link, must be a folder of its own"):
        write_project(SECOND, link)
    assert link.is_symlink() and files_of(target) == FIRST
    with pytest.raises(EmissionError, match="is a file, must be a folder"):
        check_target(target / "README")
    with pytest.raises(EmissionError, match="cannot write"):
        check_target(target / "README" / "below")


def test_modes_are_kept_and_read_only_files_spared(target):
    (target / "sources/a").chmod(0o600)
    write_project(SECOND, target)
    assert stat.S_IMODE((target / "sources/a").stat().st_mode) == 0o600
    (target / "sources/a").chmod(0o400)
    with pytest.raises(EmissionError, match="is read-only"):
        write_project(FIRST, target)
    write_project(FIRST, target, force=True)
    assert stat.S_IMODE((target / "sources/a").stat().st_mode) == 0o400


def test_an_interrupted_emission_can_be_repeated(target, monkeypatch):
    real, done = os.replace, []

    def stops(source, place):
        if done:
            raise KeyboardInterrupt
        done.append(place)
        real(source, place)

    monkeypatch.setattr(folder_module.os, "replace", stops)
    with pytest.raises(KeyboardInterrupt):
        write_project(SECOND, target)
    monkeypatch.undo()
    write_project(SECOND, target)
    assert files_of(target) == SECOND


def test_a_full_disk_changes_nothing(target, monkeypatch):
    def full(self, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    for folder in (target, target.parent / "other"):
        with pytest.raises(EmissionError, match="No space left on device"):
            write_project(SECOND, folder)
    monkeypatch.undo()
    assert files_of(target) == FIRST
    assert [path.name for path in target.parent.iterdir()] == ["project"]


def test_two_writers_of_one_folder_do_not_meet(target):
    handle = os.open(target, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(EmissionError, match="by another process"):
        write_project(SECOND, target)
    os.close(handle)
    write_project(SECOND, target)
