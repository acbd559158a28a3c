"""JSON Schemas of the files that people write and commands read, made from their types.

It checks no file: `records` and `fields` do, with better messages; these are for editors and for
other programs.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from arch_models.board import Board, load_board
from arch_models.overlay import Overlay
from hw.board.measurement import FORMAT as COUNTED
from hw.board.measurement import Measurement
from studies.certify.certificate import KIND as CERTIFICATE
from studies.certify.certificate import Document
from studies.evaluation.values import Evaluation
from studies.plain.errors import unknown
from studies.plain.records import FORMAT, VERSION
from studies.report.documents import Compared, Search, WhatIf
from studies.search.space import Combine, Space, default_space
from studies.search.space_file import optional_axes

#: Files by the name of their schema: type, what it is, where its fields stand.
FILES: dict[str, tuple[type, str, str]] = {
    "design": (Overlay, "A design (`.toml`): `--design`, `best.toml` of a search.", "toml"),
    "board": (Board, "A board (`.toml`): `--board`. Every number says its source.", "toml"),
    "evaluation": (Evaluation, "A result: `cosim simulate --json`.", "content"),
    "search": (Search, "A search: `explore.json` of `cosim explore`.", "beside"),
    "comparison": (Compared, "A comparison: `cosim compare --json`.", "beside"),
    "what-if": (WhatIf, "A what-if: `cosim what-if --json`.", "beside"),
    "space": (Space, "A design space (`.toml`): `--space`; see docs/space.md.", "toml"),
    "measurement": (Measurement, "A measurement: `cosim measure`, `board/run.py`.", "counted"),
    CERTIFICATE: (Document, "A certificate: `cosim explore --prove`.", "beside"),
}
#: Boards differ in the values of axes, not in their names.
ANY_BOARD = "pynq-z1"
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file; further fields are allowed where results stand.

    `UserError` names the kinds for any other name.
    """
    if name not in FILES:
        raise unknown("kind of file", name, tuple(FILES))
    kind, title, place = FILES[name]
    found: dict[str, Any] = {}
    numbers = name == "board"
    body = _space() if kind is Space else _dataclass(kind, found, numbers,
                                                     strict=place != "beside")
    if place == "counted":
        body["properties"]["format"] = {"const": COUNTED}
        body["required"] = ["format", *body["required"]]
    elif name == "board":
        body["properties"].pop("coefficients", None)
    if place in ("content", "beside"):
        header = {"format": {"const": FORMAT}, "version": {"const": VERSION},
                  "kind": {"const": name}, "command": {"type": "string"}}
        inner = {"content": body} if place == "content" else body["properties"]
        needed = ["content"] if place == "content" else body["required"]
        body = {"type": "object", "properties": {**header, **inner},
                "required": ["format", "version", "kind", *needed]}
    return {"$schema": DRAFT, "title": title, **body, **({"$defs": found} if found else {})}


def _space() -> dict[str, Any]:
    """Of a space file, which is shorter than the space that is made of it."""
    board = load_board(ANY_BOARD)
    full = default_space(board)
    names = [axis.name for axis in (*full.axes, *optional_axes(board, full))]
    some = {"type": "array", "minItems": 1, "items": {"type": ["boolean", "integer", "string"]}}
    condition = {"type": "object", "minProperties": 1, "maxProperties": 1,
                 "additionalProperties": some}
    axis = {"anyOf": [some, {"type": "object", "properties": {"values": some, "when": condition},
                             "required": ["values"], "additionalProperties": False}]}
    axes = {"type": "array", "minItems": 1, "items": {"enum": names}}
    bound = {"type": "integer"}
    constraint = {
        "type": "object", "additionalProperties": False,
        "properties": {**{how.value: axes for how in Combine}, "at_most": bound,
                       "at_least": bound},
        "oneOf": [{"required": [how.value]} for how in Combine],
        "anyOf": [{"required": ["at_most"]}, {"required": ["at_least"]}]}
    return {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": {
        "axes": {"type": "object", "properties": dict.fromkeys(names, axis),
                 "additionalProperties": False},
        "constraints": {"type": "array", "items": constraint}}}


def _dataclass(kind: Any, found: dict[str, Any], numbers: bool, strict: bool = True
               ) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = [item.name for item in fields(kind) if item.default is MISSING
             and item.default_factory is MISSING]
    return {"type": "object", "properties": {
        item.name: _type(hints[item.name], found, numbers) for item in fields(kind)},
        "required": names, **({"additionalProperties": False} if strict else {})}


def _type(kind: Any, found: dict[str, Any], numbers: bool) -> dict[str, Any]:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(part, found, numbers) for part in parts]}
    if origin in (tuple, frozenset):
        if origin is tuple and parts[1:] != (Ellipsis,):
            return {"type": "array", "prefixItems": [_type(part, found, False) for part in parts],
                    "minItems": len(parts), "maxItems": len(parts)}
        return {"type": "array", "items": _type(parts[0], found, numbers and parts[0] is not int)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(parts[1], found, numbers)}
    if is_dataclass(kind):
        name = kind.__name__  # type: ignore[union-attr]
        if name not in found:
            found[name] = {}
            found[name] = _dataclass(kind, found, numbers)
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [item.value for item in kind]}
    plain = {int: "integer", float: "number", str: "string", bool: "boolean",
             types.NoneType: "null"}.get(kind)
    if plain in ("integer", "number") and numbers:
        return {"type": "object", "required": ["value", "unit", "source", "status"],
                "properties": {"value": {"type": plain}, "unit": {"type": "string"},
                               "source": {"type": "string"}, "status": {"type": "string"},
                               "error": {"type": "number"}}, "additionalProperties": False}
    return {"type": plain} if plain else {}
