"""Makes frozen dataclasses of a file's tables and refuses what does not belong there.

It knows no board and no accelerator. Every refusal names the field, the value, the rule and the
nearest legal choice.

A name that comes from a file may end in C++, Verilog, Tcl, a Makefile, a path, a page or a
picture. It is an `identifier`, a `label` or a line of `prose`: the first two mean nothing special
in any of those, prose must be escaped for where it goes.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Container, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import Enum, StrEnum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


#: Whole numbers are counted in 64 bits everywhere.
MOST_NUMBER = 2**63 - 1
MOST_IDENTIFIER, MOST_LABEL, MOST_PROSE = 64, 128, 1000
_IDENTIFIER = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{MOST_IDENTIFIER - 1}}}", re.ASCII)
_LABEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MOST_LABEL - 1}}}", re.ASCII)


class FieldError(ValueError):
    """A file or an argument names something unknown, misses a field or breaks a rule."""


class Status(StrEnum):
    """How much a number is worth as evidence."""

    STATED = "stated"  # printed in the source
    MEASURED = "measured"  # by us or by the source, on hardware or on RTL
    COMPUTED = "computed"  # exact arithmetic on stated figures
    VENDOR = "vendor report"  # an estimate that a vendor's tool printed
    INFERRED = "inferred"  # derived from stated figures by an argument
    RECALLED = "recalled"  # from memory, source not at hand
    GUESS = "guess"  # nobody knows; named so that it can be replaced


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One number with its unit and its evidence. `name` is its dotted path in its file.

    `error`: standard deviation of its logarithm, cross-validated where it was fitted; 0 if exact
    or not known.
    """

    name: str
    value: float
    unit: str
    source: str
    status: Status
    error: float = 0.0


def nearest(name: str, choices: Iterable[str]) -> str:
    """A phrase with the closest legal choice, or all of them if none is close."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}"


def identifier(text: object, where: str) -> str:
    """The text if C++, Verilog and Tcl all take it for a name; else `FieldError`.

    A letter, then letters, digits and underscores, `MOST_IDENTIFIER` characters at most.
    """
    if isinstance(text, str) and _IDENTIFIER.fullmatch(text):
        return text
    near = re.sub("[^A-Za-z0-9_]+", "_", str(text)).strip("_")[:MOST_IDENTIFIER]
    near = near if near[:1].isalpha() else f"n_{near}"[:MOST_IDENTIFIER].rstrip("_")
    raise FieldError(f"{where}: {_shown(text)}, must be a letter, then letters, digits and _, at "
                     f"most {MOST_IDENTIFIER}; nearest {near!r}")


def label(text: object, where: str) -> str:
    """The text if it can be a file's name and needs no escape anywhere; else `FieldError`.

    Letters, digits, `_`, `.` and `-`, a letter or digit first, `MOST_LABEL` characters at most.
    """
    if isinstance(text, str) and _LABEL.fullmatch(text):
        return text
    raise FieldError(f"{where}: {_shown(text)}, must be letters, digits, '_', '.' and '-', a "
                     f"letter or digit first, at most {MOST_LABEL}; nearest {made_label(text)!r}")


def made_label(text: object, taken: Container[str] = ()) -> str:
    """A label like `text` that is not taken: other characters become `_`, a number may follow."""
    room = MOST_LABEL * 3 // 4  # what is made of it, `x.weights`, is a label too
    stem = re.sub("[^A-Za-z0-9_.-]+", "_", str(text)).lstrip("_.-")[:room] or "unnamed"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}.{number}"
    return name


def prose(text: object, where: str) -> str:
    """The text if it is one printable line; else `FieldError`. It is to be escaped where it goes.

    No control characters: they could end a comment, or steer a terminal.
    """
    if isinstance(text, str) and text.isprintable() and len(text) <= MOST_PROSE:
        return text
    raise FieldError(f"{where}: {_shown(text)}, must be one line of printable characters, at "
                     f"most {MOST_PROSE}")


def shortened(value: object, most: int = 80) -> str:
    """What a message says of a value from a file: one printable line, cut where it is long.

    A text is shown as it is, with escapes for what is not printable; anything else as `repr`.
    """
    shown = value if isinstance(value, str) else (
        str(value) if isinstance(value, Exception) else repr(value))
    shown = shown[:4 * most].encode("ascii", "backslashreplace").decode()
    shown = "".join(item if item.isprintable() else ascii(item)[1:-1] for item in shown)
    return shown if len(shown) <= most else shown[:most - 3] + "..."


def between(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number outside its bounds."""
    if not least <= value <= most:
        hint = "; in MHz it is clock_mhz" if name == "clock_hz" and 0 < value < least else ""
        raise FieldError(f"{name} is {shortened(value)}, must be at least {least} and at most "
                         f"{most}; nearest {min(max(value, least), most)}{hint}")


def one_of(name: str, value: int, legal: tuple[int, ...]) -> None:
    """Refuse a number that is none of the legal ones."""
    if value not in legal:
        near = min(legal, key=lambda choice: abs(choice - value))
        raise FieldError(f"{name} is {shortened(value)}, must be one of {legal}; nearest {near}")


def _shown(value: object) -> str:
    return f"'{shortened(value)}'" if isinstance(value, str) else shortened(value)


def check_keys(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that are not known, each with the nearest known name."""
    choices = set(known)
    for key in table:
        if key not in choices:
            raise FieldError(f"{where}: unknown field {_shown(key)}; {nearest(key, choices)}")


def build(cls: type[T], table: Any, where: str, found: list[Coefficient] | None = None) -> T:
    """Make a dataclass of a table, recursively.

    With `found`, every number must be a table {value, unit, source, status} and is recorded
    there; without, numbers are plain. The error holds one line for each thing that is wrong.
    """
    if not isinstance(table, Mapping):
        raise FieldError(f"{where}: {_shown(table)} must be a table")
    hints = _hints(typing.cast(Any, cls))
    items = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    wrong = []
    for key in table:
        if key not in items:
            # A misspelt name is most likely one that is missing.
            absent = [name for name in items if name not in table]
            close = difflib.get_close_matches(key, absent, n=1, cutoff=0.5)
            wrong.append(f"{where + ': ' if where else ''}unknown field {_shown(key)}; "
                         f"{nearest(key, close or items)}")
    values: dict[str, Any] = {}
    for name, item in items.items():
        path = f"{where}.{name}" if where else name
        try:
            if name in table:
                values[name] = convert(hints[name], table[name], path, found)
            elif item.default is MISSING and item.default_factory is MISSING:
                wrong.append(f"{where + ': ' if where else ''}field {name!r} is missing")
        except FieldError as error:
            wrong.append(str(error))
    if wrong:
        raise FieldError("\n".join(wrong))
    return cls(**values)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def convert(kind: Any, value: Any, path: str, found: list[Coefficient] | None) -> Any:
    """One value of a file as the annotated type of its field.

    Knows dataclasses, enums, int, float, str, bool, Any, X | None, unions, tuple[X, ...],
    tuple[X, Y], frozenset[X] and Mapping[str, X]; see `build` for `found`.
    """
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return _first_fit(typing.get_args(kind), value, path, found)
    if origin in (tuple, frozenset):
        return _collection(kind, origin, value, path, found)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise FieldError(f"{path}: {_shown(value)} must be a table")
        part = typing.get_args(kind)[1]
        return {key: convert(part, item, f"{path}.{shortened(key)}", found)
                for key, item in value.items()}
    if is_dataclass(kind):
        return build(typing.cast(Any, kind), value, path, found)
    if isinstance(kind, type) and issubclass(kind, Enum):
        legal = [member.value for member in kind]
        if isinstance(value, bool) or value not in legal:
            raise FieldError(f"{path}: {_shown(value)}; "
                             f"{nearest(str(value), [str(item) for item in legal])}")
        return kind(value)
    if kind in (int, float):
        return _number(kind, value, path, found)
    if not isinstance(value, kind):
        raise FieldError(f"{path}: {_shown(value)} must be a {kind.__name__}")
    return value


def _first_fit(kinds: Iterable[Any], value: Any, path: str,
               found: list[Coefficient] | None) -> Any:
    choices = [kind for kind in kinds if kind is not types.NoneType]
    if value is None and types.NoneType in kinds:
        return None
    for kind in choices[:-1]:
        try:
            return convert(kind, value, path, found)
        except FieldError:
            continue
    return convert(choices[-1], value, path, found)


def _collection(kind: Any, origin: Any, value: Any, path: str,
                found: list[Coefficient] | None) -> Any:
    if not isinstance(value, list | tuple):
        raise FieldError(f"{path}: {_shown(value)} must be a list")
    parts = typing.get_args(kind)
    if origin is frozenset or parts[1:] == (Ellipsis,):
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise FieldError(f"{path}: {_shown(value)} must be a list of {len(parts)}")
    return origin(convert(part, item, f"{path}[{index}]", None if part is int else found)
                  for index, (part, item) in enumerate(zip(parts, value, strict=True)))


def _number(kind: type, value: Any, path: str, found: list[Coefficient] | None) -> Any:
    if found is not None:
        value = _coefficient(value, path, found)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(f"{path}: {_shown(value)} must be a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(f"{path}: {value} must be a finite number")
    if abs(value) > MOST_NUMBER and (kind is int or isinstance(value, int)):
        raise FieldError(f"{path}: {shortened(value)} must be a number below 2^63")
    if kind is int and value != int(value):
        raise FieldError(f"{path}: {value!r} must be a whole number")
    return kind(value)


def _coefficient(value: Any, path: str, found: list[Coefficient]) -> Any:
    names = ("value", "unit", "source", "status")
    if not isinstance(value, Mapping):
        raise FieldError(f"{path}: {_shown(value)} must be a table with {', '.join(names)}")
    check_keys(path, value, (*names, "error"))
    for name in names:
        if name not in value:
            raise FieldError(f"{path}: {name!r} is missing")
    for name in ("unit", "source"):
        if not isinstance(value[name], str):
            raise FieldError(f"{path}.{name}: {_shown(value[name])} must be a str")
    status = convert(Status, value["status"], f"{path}.status", None)
    number = value["value"]
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise FieldError(f"{path}.value: {_shown(number)} must be a number")
    error = value.get("error", 0.0)
    if isinstance(error, bool) or not isinstance(error, (int, float)) or not 0 <= error < 10:
        raise FieldError(f"{path}.error: {_shown(error)} must be a number from 0 to 10")
    found.append(Coefficient(path, number, value["unit"], value["source"], status,
                             float(error)))
    return number


def with_value(thing: T, dotted: str, value: Any) -> T:
    """A copy of a frozen dataclass with one field changed, e.g. `ddr.data_bus_bits`.

    Parts of tuples are reached by index or by the `name` of the part. `FieldError` names the
    nearest field on a wrong name.
    """
    return typing.cast(T, _with_value(thing, dotted.split("."), value, dotted))


def _with_value(thing: Any, path: list[str], value: Any, dotted: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(thing, tuple):
        names = [str(getattr(part, "name", index)) for index, part in enumerate(thing)]
        index = int(head) if head.isdigit() else names.index(head) if head in names else -1
        if not 0 <= index < len(thing):
            raise FieldError(f"{dotted}: unknown part {head!r}; {nearest(head, names)}")
        part = _with_value(thing[index], rest, value, dotted) if rest else value
        return (*thing[:index], part, *thing[index + 1:])
    if not is_dataclass(thing):
        raise FieldError(f"{dotted}: {head!r} is not inside a table")
    names = [item.name for item in fields(thing)]
    if head not in names:
        raise FieldError(f"{dotted}: unknown field {head!r}; {nearest(head, names)}")
    if rest:
        new = _with_value(getattr(thing, head), rest, value, dotted)
    else:
        hint = _hints(typing.cast(Any, type(thing)))[head]
        plain = isinstance(value, (int, float, str, bool, list))
        new = convert(hint, value, dotted, None) if plain else value
    return replace(typing.cast(Any, thing), **{head: new})
