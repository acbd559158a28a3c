"""Writes an emitted project into a folder and touches nothing else that lies there.

It knows of a project only that `manifest.json` lists its files with sizes and SHA-256. A user's
build, bitstream and measurements lie in the same folder and stay.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hw.interface.configuration import EmissionError

MANIFEST = "manifest.json"
_STAGING = ".emit-"


def check_target(target: Path) -> None:
    """Refuse what could never be written into: a link, a file, a place without permission."""
    if target.is_symlink():
        raise EmissionError(f"folder: {target} is a link, must be a folder of its own; name the "
                            "folder it leads to")
    if target.exists() and not target.is_dir():
        raise EmissionError(f"folder: {target} is a file, must be a folder")
    place = target
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise EmissionError(f"folder: cannot write {target} (into {place}); name a folder that "
                            "can be written")


def write_project(contents: Mapping[str, bytes], target: Path, force: bool = False) -> None:
    """Write the files of a project, `manifest.json` among them, into `target`.

    A new folder appears whole or not at all. In an earlier project's folder, its files are
    replaced and those that are no longer needed removed, if they are still as they were written;
    the manifest comes last, so that an interrupted run can be repeated. Every other file stays.
    Files of other content where one is to be written are refused, unless `force`; links and what
    is no plain file always. Raises `EmissionError`.
    """
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            with _alone(target):
                _update(contents, target, force)
        else:
            with _staged(contents, target.parent) as staged:
                staged.chmod(0o755)
                os.rename(staged, target)
    except OSError as error:
        raise EmissionError(f"folder: cannot write {target} ({error.strerror}); name a folder "
                            "that can be written") from None


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One writer a folder at a time."""
    handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EmissionError(f"folder: {target} is being written by another process") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _staged(contents: Mapping[str, bytes], parent: Path) -> Iterator[Path]:
    """All files in a folder beside their place: a full disk is found here, before any change."""
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=parent))
    try:
        for name, data in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _update(contents: Mapping[str, bytes], target: Path, force: bool) -> None:
    written = _written(target)
    if not force and written is None and any(target.iterdir()):
        raise EmissionError(f"folder: {target} holds something else than an emitted project; name "
                            "an empty or a new folder, or --force to write beside what is there")
    written = written or {}
    ours = {name for name in {*written, *contents}
            if _is_ours(target, name, written.get(name), contents.get(name), force)}
    with _staged(contents, target) as staged:
        for name in sorted({*written, *contents} - {MANIFEST}):
            if name not in contents:
                if name in ours:
                    (target / name).unlink(missing_ok=True)
                    _remove_empty(target, name)
                continue
            _replace(staged, target, name)
        _replace(staged, target, MANIFEST)


def _replace(staged: Path, target: Path, name: str) -> None:
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        (staged / name).chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(staged / name, path)


def _remove_empty(target: Path, name: str) -> None:
    for folder in list(Path(name).parents)[:-1]:
        try:
            (target / folder).rmdir()
        except OSError:  # something of the user's lies there
            return


def _written(target: Path) -> dict[str, str] | None:
    """Path to SHA-256 of what an earlier emission wrote; None if none did."""
    path = target / MANIFEST
    if not path.is_file() or path.is_symlink():
        return None
    try:
        files = json.loads(path.read_bytes())["files"]
        found = {str(name): str(entry["sha256"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # A path that leads elsewhere was not written by us, whatever the manifest says.
    if any(Path(name).is_absolute() or ".." in Path(name).parts or not name for name in found):
        return None
    return {**found, MANIFEST: hashlib.sha256(path.read_bytes()).hexdigest()}


def _is_ours(target: Path, name: str, sha256: str | None, content: bytes | None,
             force: bool) -> bool:
    """May a file be replaced or removed? False for one to leave alone; refuses what it must not.

    One that is no longer needed and was changed stays: it is the user's now.
    """
    place = target
    for part in Path(name).parts[:-1]:
        place = place / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise EmissionError(f"folder: {place} must be a folder and no link; move it away")
    path = target / name
    if not os.path.lexists(path):
        return True
    if not stat.S_ISREG(path.lstat().st_mode):
        if content is None:
            return False
        raise EmissionError(f"folder: {path} is no plain file, or a link, and is not replaced; "
                            "move it away")
    found = path.read_bytes()
    if not force and content not in (None, found) and not path.stat().st_mode & 0o222:
        raise EmissionError(f"folder: {path} is read-only; move it away, or --force to replace it")
    if hashlib.sha256(found).hexdigest() == sha256 or found == content:
        return True
    if content is None:
        return False
    if not force:
        what = "was changed since it was written" if sha256 else "was not written by an emission"
        raise EmissionError(f"folder: {path} {what}; move it away, or --force to overwrite it")
    return True
