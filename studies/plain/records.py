"""Stores results as JSON and reads them back, checked field by field against their type.

It does not compute results. A file that is cut short, of another kind, or holds a wrong field is
refused with the file, the field, the value and the rule.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from studies.plain.errors import UserError, nearest
from studies.plain.files import read_json, write_json

T = TypeVar("T")
FORMAT = "cosim"
VERSION = 1


def encode(value: Any) -> Any:
    """A dataclass, mapping or sequence as plain JSON values; other values are kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name))
                for item in dataclasses.fields(value)}
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

    Understands dataclasses, enums, int, float, str, bool, X | None, tuple[X, ...], tuple[X, Y]
    and Mapping[str, X]. Raises `UserError` with the place of the first thing that is wrong.
    """
    return _decode(kind, value, where)


def save(path: Path, kind: str, value: Any) -> None:
    """Write a result under a kind, for example `evaluation`; whole or not at all."""
    write_json(path, {"format": FORMAT, "version": VERSION, "kind": kind,
                      "content": encode(value)})


def load(path: Path, kind: str, into: type[T]) -> T:
    """Read a result that `save` wrote; `UserError` if it is anything else."""
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is no result file of this program: it has no "
                        f'"format": "{FORMAT}". `cosim simulate --json FILE` writes one.')
    if document.get("version") != VERSION:
        raise UserError(f"{str(path)!r}: version is {document.get('version')!r}, must be "
                        f"{VERSION}. Write it again with this program.")
    if document.get("kind") != kind:
        raise UserError(f"{str(path)!r}: kind is {document.get('kind')!r}, must be {kind!r}.")
    return _decode(into, document.get("content"), f"{path}: content")


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return value
    if origin in (Union, types.UnionType):
        choices = [item for item in get_args(kind) if item is not type(None)]
        if value is None and len(choices) < len(get_args(kind)):
            return None
        return _first_fit(choices, value, where)
    if origin is tuple:
        return _decode_tuple(kind, value, where)
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(value, dict), value, where, "an object")
        item = get_args(kind)[1]
        return {key: _decode(item, entry, f"{where}.{key}") for key, entry in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        legal = [member.value for member in kind]
        _require(value in legal, value, where, f"one of {legal}")
        return kind(value)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(number, value, where, "a number")
        return float(value)
    if kind is int:
        _require(isinstance(value, int) and not isinstance(value, bool), value, where,
                 "a whole number")
        return value
    _require(isinstance(value, kind), value, where, f"of type {kind.__name__}")
    return value


def _first_fit(choices: list[Any], value: Any, where: str) -> Any:
    problem: UserError | None = None
    for choice in choices:
        try:
            return _decode(choice, value, where)
        except UserError as error:
            problem = error
    assert problem is not None
    raise problem


def _decode_tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), value, where, "a list")
    items = get_args(kind)
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_decode(items[0], entry, f"{where}[{index}]")
                     for index, entry in enumerate(value))
    _require(len(value) == len(items), value, where, f"a list of {len(items)}")
    return tuple(_decode(item, entry, f"{where}[{index}]")
                 for index, (item, entry) in enumerate(zip(items, value, strict=True)))


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), value, where, "an object")
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    for name in value:
        if name not in known:
            close = nearest(name, known)
            hint = f" Did you mean {close!r}?" if close else ""
            raise UserError(f"{where}: there is no field {name!r}.{hint} "
                            f"Known: {', '.join(known)}.")
    for name, item in known.items():
        required = (item.default is dataclasses.MISSING
                    and item.default_factory is dataclasses.MISSING)
        if required and name not in value:
            raise UserError(f"{where}: the field {name!r} is missing. The file may be cut short "
                            "or of an older program; write it again.")
    built = {name: _decode(hints[name], entry, f"{where}.{name}")
             for name, entry in value.items()}
    try:
        return kind(**built)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


def _require(fine: bool, value: Any, where: str, rule: str) -> None:
    if not fine:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise UserError(f"{where}: {shown}, must be {rule}.")
