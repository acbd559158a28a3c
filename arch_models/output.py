"""Writes files whole or not at all, where a plain file may stand.

It does not know what the files mean; `files` reads. Every failure is one `FieldError` line.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from arch_models.fields import FieldError


def writable_folder(path: Path) -> Path:
    """Make the folder if it is missing; `FieldError` if that or writing into it cannot work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise FieldError(f"cannot write into the folder {str(path)!r}: {_reason(error)}. Choose a "
                        "folder you may write to, for example --out out.") from error
    return path


def check_target(path: Path) -> Path:
    """Refuse, before any work is done, a file that could not be written in the end.

    Links are followed: what they lead to must be a plain file that may be written, or nothing.
    """
    _target(path)
    return path


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill` write a temporary file beside `path`, then rename it into place.

    A failure leaves no partial file and any older file untouched. A file that is there keeps its
    mode; through a link, what it leads to is written. `FieldError` where the disk refuses.
    """
    target = _target(path)
    beside = target.parent / f".cosim-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        try:
            # Opened so, a new file has the mode that the user's umask gives.
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(handle, "wb") as file:
                fill(file)
                _keep_owner(handle, target)
            os.replace(beside, target)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise FieldError(f"cannot write {str(path)!r}: {_reason(error)}.") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def _target(path: Path) -> Path:
    """Where a path leads, which is a plain file that may be replaced, or free."""
    try:
        target = Path(os.path.realpath(path, strict=False))
        state = target.stat() if target.exists() else None
    except OSError as error:
        raise FieldError(f"cannot write {str(path)!r}: {_reason(error)}.") from error
    if target.is_symlink():
        raise FieldError(f"cannot write {str(path)!r}: its links go in a circle.")
    if state is not None and stat.S_ISDIR(state.st_mode):
        raise FieldError(f"{str(path)!r} is a folder; name a file, for example "
                        f"{str(path / 'result.json')!r}.")
    if state is not None and not stat.S_ISREG(state.st_mode):
        raise FieldError(f"{str(path)!r} is a device or a pipe; name a plain file.")
    if state is not None and (not state.st_mode & 0o222 or not os.access(target, os.W_OK)):
        raise FieldError(f"{str(path)!r} may not be written to; name another file, or allow it.")
    if state is not None and state.st_nlink > 1:
        raise FieldError(f"{str(path)!r} is one file under {state.st_nlink} names (hard links), "
                        "which writing would part; name another file.")
    writable_folder(target.parent)
    return target


def _keep_owner(handle: int, target: Path) -> None:
    """Give a new file the mode, and where one may the owner, of the one that it replaces."""
    if not target.exists():
        return
    state = target.stat()
    with suppress(OSError):
        os.fchown(handle, state.st_uid, state.st_gid)
    os.fchmod(handle, stat.S_IMODE(state.st_mode))


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def toml_string(text: str) -> str:
    """A text as a TOML string: JSON's escapes are TOML's, which wants one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """A number, text, switch, choice, or list of them as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return toml_value(str(value.value))
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, (frozenset, tuple)):
        parts = sorted(value) if isinstance(value, frozenset) else value
        return "[" + ", ".join(toml_value(part) for part in parts) + "]"
    return str(value)


def toml_lines(value: Any) -> str:
    """The fields of a dataclass as lines of a TOML table."""
    return "".join(f"{item.name} = {toml_value(getattr(value, item.name))}\n"
                   for item in fields(value))


def toml_text(value: Any, left_out: frozenset[str] = frozenset()) -> str:
    """A dataclass as a TOML file: plain fields, then tables and lists of tables.

    `left_out`: fields that are not written.
    """
    plain, tables = [], []
    for name in (item.name for item in fields(value) if item.name not in left_out):
        part = getattr(value, name)
        if is_dataclass(part):
            tables.append(f"\n[{name}]\n" + toml_lines(part))
        elif isinstance(part, tuple) and part and is_dataclass(part[0]):
            tables += [f"\n[[{name}]]\n" + toml_lines(item) for item in part]
        else:
            plain.append(f"{name} = {toml_value(part)}\n")
    return "".join(plain) + "".join(tables)
