"""Writes files whole or not at all, and reads JSON with errors that name the file and the place.

It does not know what the files mean; see `records`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from studies.plain.errors import UserError


def output_folder(path: Path) -> Path:
    """Make the folder if it is missing; `UserError` if that or writing into it cannot work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write into the folder {str(path)!r}: {_reason(error)}. Choose a "
                        "folder you may write to, for example --out out.") from error
    return path


def check_writable(path: Path) -> Path:
    """Refuse, before any work is done, a file that could not be written in the end."""
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; name a file, for example "
                        f"{str(path / 'result.json')!r}.")
    output_folder(path.parent)
    return path


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill` write a temporary file beside `path`, then rename it into place.

    A failure leaves no partial file and any older file untouched.
    """
    check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write JSON with two spaces of indent, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file; `UserError` if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(path)!r}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{str(path)!r} is not JSON: {error.msg} at line {error.lineno}, column "
                        f"{error.colno}. It may be cut short; write it again.") from error


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
