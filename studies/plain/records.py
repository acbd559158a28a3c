"""Stores results as JSON and reads them back, checked field by field against their type.

It does not compute results. A file that is cut short, of another kind, or holds a wrong field is
refused with the file, the field, the value and the rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from arch_models.fields import convert, shortened
from studies.plain.errors import UserError
from studies.plain.files import read_json, write_json

T = TypeVar("T")
FORMAT = "cosim"
VERSION = 1
#: A dataclass names here those of its properties that stand in files, too.
DERIVED = "DERIVED"


def encode(value: Any) -> Any:
    """A dataclass, mapping or sequence as plain JSON values; other values are kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: encode(getattr(value, name))
                for name in (*names, *getattr(value, DERIVED, ()))}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "item") and not isinstance(value, str):
        return value.item()
    return value


def decode(kind: type[T], value: Any, where: str = "content") -> T:
    """Build a dataclass from plain JSON values, refusing what its type hints do not allow.

    See `fields.convert` for the types. Raises `UserError` with a line for each wrong place.
    """
    try:
        found: T = convert(kind, value, where, None)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    return found


def header(kind: str, command: str = "") -> dict[str, Any]:
    """What every file of results begins with: what it is, and the command that made it."""
    return {"format": FORMAT, "version": VERSION, "kind": kind,
            **({"command": command} if command else {})}


def save(path: Path, kind: str, value: Any, command: str = "") -> None:
    """Write a result under a kind, for example `evaluation`; whole or not at all."""
    write_json(path, {**header(kind, command), "content": encode(value)})


def kind_of(path: Path) -> tuple[str, str]:
    """Kind of a file of results, and the command that made it ("" if it does not say).

    `UserError` if it is no such file, or of another version of the format.
    """
    document = _document(path)
    command = document.get("command", "")
    return str(document.get("kind")), command if isinstance(command, str) else ""


def load(path: Path, kind: str, into: type[T]) -> T:
    """Read a result that `save` wrote; `UserError` if it is anything else."""
    document = _of_kind(path, kind)
    return decode(into, document.get("content"), f"{path}: content")


def load_flat(path: Path, kind: str, into: type[T]) -> T:
    """Read those fields of a file that `into` has: it stands beside its header, not under it."""
    document = _of_kind(path, kind)
    names = [item.name for item in dataclasses.fields(into)]  # type: ignore[arg-type]
    return decode(into, {name: document[name] for name in names if name in document}, str(path))


def _document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is no result file of this program: it has no "
                        f'"format": "{FORMAT}". `cosim simulate --json FILE` writes one.')
    if document.get("version") != VERSION:
        raise UserError(f"{str(path)!r}: version is {shortened(document.get('version'))}, must be "
                        f"{VERSION}. Write it again with this program.")
    return document


def _of_kind(path: Path, kind: str) -> dict[str, Any]:
    document = _document(path)
    if document.get("kind") != kind:
        raise UserError(f"{str(path)!r}: kind is {shortened(document.get('kind'))!r}, must be "
                        f"{kind!r}.")
    return document
