"""Reads JSON and writes files whole, with every failure as one `UserError`.

It does not know what the files mean; see `records`. `arch_models.files` and `output` do the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from arch_models import files, output
from arch_models.fields import FieldError
from studies.plain.errors import UserError


def output_folder(path: Path) -> Path:
    """Make the folder if it is missing; `UserError` if that or writing into it cannot work."""
    with _as_user_error():
        return output.writable_folder(path)


def check_writable(path: Path, ending: str = "") -> Path:
    """Refuse, before any work is done, a file that could not be written in the end.

    `ending`: what its name must end in, since who opens the file goes by that.
    """
    if path.suffix != ending and ending:
        raise UserError(f"{str(path)!r} must end in {ending}, for example "
                        f"{str(path.with_suffix(ending))!r}")
    with _as_user_error():
        return output.check_target(path)


def check_writables(*paths: Path | None) -> None:
    """The same of those that are given."""
    for path in paths:
        if path is not None:
            check_writable(path)


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """As `output.write_whole`."""
    with _as_user_error():
        output.write_whole(path, fill)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write JSON with two spaces of indent, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file; `UserError` if it is missing, unreadable or not JSON."""
    with _as_user_error():
        return files.read_json(path)


@contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except FieldError as error:
        raise UserError(str(error)) from error
