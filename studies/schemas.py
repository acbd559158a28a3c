"""JSON Schemas of the files that people write and commands read and write, made from their types.

It checks no file: `records` and `fields` do, with better messages; these are for editors and for
other programs. A trace is no JSON but Perfetto's own format, and a study that `--storage` keeps is
Optuna's.
"""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from arch_models.board import load_board
from hw.board.measurement import FORMAT as COUNTED
from studies.plain.errors import unknown
from studies.plain.records import DERIVED, FORMAT, VERSION
from studies.search.space import Combine, default_space
from studies.search.space_file import optional_axes


class Layout(Enum):
    """Where the fields of a file's type stand.

    PLAIN: the file is the value. CONTENT, BESIDE: under or beside the header of a result.
    COUNTED: beside a format's number. LINES: a value a line, behind a first line that names the
    proof.
    """

    PLAIN = "plain"
    CONTENT = "content"
    BESIDE = "beside"
    COUNTED = "counted"
    LINES = "lines"


@dataclass(frozen=True)
class File:
    """A kind of file: where its type is (`module:name`, loaded when asked for), and what it is."""

    place: str
    title: str
    layout: Layout = Layout.PLAIN

    @property
    def type(self) -> Any:
        """A dataclass, a typed dictionary, or a sequence or mapping of them."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


#: Files by the name of their schema.
FILES: dict[str, File] = {
    "design": File("arch_models.overlay:Overlay",
                   "A design (`.toml`): `--design`, `best.toml` of a search."),
    "board": File("arch_models.board:Board",
                  "A board (`.toml`): `--board`. Every number says its source."),
    "space": File("studies.search.space:Space",
                  "A design space (`.toml`): `--space`; see docs/space.md."),
    "network": File("workloads.library:Document",
                    "A shipped network (`.json`); its constants lie beside it (`.safetensors`)."),
    "evaluation": File("studies.evaluation.values:Evaluation",
                       "A result: `cosim simulate --json`.", Layout.CONTENT),
    "search": File("studies.report.documents:Search",
                   "A search: `explore.json` of `cosim explore`.", Layout.BESIDE),
    "live": File("studies.report.live:State",
                 "A search while it runs: `live.json`, which the page of `--live` asks for."),
    "comparison": File("studies.report.documents:Compared",
                       "A comparison: `cosim compare --json`.", Layout.BESIDE),
    "what-if": File("studies.report.documents:WhatIf", "A what-if: `cosim what-if --json`.",
                    Layout.BESIDE),
    "explanation": File("studies.why.explain:ExplanationFile", "`cosim explain --json`."),
    "findings": File("studies.why.lint:Findings", "`cosim lint --json`."),
    "boards": File("studies.commands.catalogue:BoardRows", "`cosim boards --json`."),
    "certificate": File("studies.certify.certificate:Document",
                        "A certificate: `cosim explore --prove`.", Layout.BESIDE),
    "claim": File("studies.certify.session:ClaimFile",
                  "What a proof claims: `cosim explore --prove --json`.", Layout.BESIDE),
    "boxes": File("studies.certify.branching.book:Line",
                  "Closed boxes of a proof, a line each: `cosim explore --prove --storage`.",
                  Layout.LINES),
    "emission": File("studies.commands.emit:Emission", "`cosim emit --json`."),
    "manifest": File("hw.project.documents:ManifestFile",
                     "`manifest.json` of an emitted project: all that its driver needs."),
    "program": File("hw.interface.descriptors:Shell",
                    "`data/program.json` of an emitted project: what descriptors do not hold."),
    "prediction": File("hw.project.documents:Prediction",
                       "`data/prediction.json` of an emitted project: predicted, not measured."),
    "build-report": File("hw.project.documents:BuildReport",
                         "`build/report.json`: what the build script read back from the tools."),
    "seal": File("hw.project.documents:Seal",
                 "`bitstream.json`: ties a bitstream to its project, `board/seal.py`."),
    "measurement": File("hw.board.measurement:Measurement",
                        "A measurement: `cosim measure`, `board/run.py`.", Layout.COUNTED),
    "calibration": File("studies.resources.build_check:Calibration", "`cosim calibrate --json`."),
    "frames": File("studies.headline.document:Frames", "`cosim decode --json`."),
    "summary": File("studies.demo:Summary", "`summary.json` of `cosim study demo`."),
    "memory-check": File("studies.validate.memory:MemoryFile", "`cosim validate memory --json`."),
    "streams-check": File("studies.validate.streams:Checks", "`cosim validate streams --json`."),
    "vta-check": File("studies.validate.vta:VtaFile", "`cosim validate vta-pynq --json`."),
    "overlap-check": File("studies.validate.overlap:Checks", "`cosim validate overlap --json`."),
    "fpga2015-check": File("studies.validate.described.fpga2015:Checks",
                           "`cosim validate fpga2015 --json`."),
    "pipecnn-check": File("studies.validate.described.pipecnn:Checks",
                          "`cosim validate pipecnn --json`."),
    "nvdla-check": File("studies.validate.described.nvdla:Checks",
                        "`cosim validate nvdla --json`."),
    "nvdla-small-check": File("studies.validate.described.nvdla_small:Checks",
                              "`cosim validate nvdla-small --json`."),
    "board-check": File("studies.validate.board:BoardValidation",
                        "`cosim validate board --json`: measured beside predicted."),
    "rtl-check": File("studies.validate.rtl:Counts", "`cosim validate rtl --json`."),
    "energy-check": File("studies.validate.energy:EnergyFile", "`cosim validate energy --json`."),
    "clock-check": File("studies.validate.clock:ClockFile", "`cosim validate clock --json`."),
    "onnx-check": File("studies.validate.onnx.study:OnnxFile", "`cosim validate onnx --json`."),
    "headline": File("studies.headline.document:Headline", "`cosim study headline --json`."),
    "sampler-proof": File("studies.proof.proof:SamplerProof", "`cosim study proof --json`."),
    "enumeration": File("studies.proof.enumerate_wide:Enumeration",
                        "`cosim study enumerate --json`."),
    "regret": File("studies.proof.regret:Rows", "`cosim study regret --json`."),
    "efficiency": File("studies.headline.document:EfficiencyRows",
                       "`cosim study efficiency --json`."),
    "quality": File("studies.headline.document:MeasuredRows",
                    "`cosim study quality --json`, `cosim train evaluate-... --json`: a row a "
                    "network and answer, its measures by name."),
    "decoders": File("studies.headline.decoders:Points", "`cosim study decoders --json`."),
    "on-chip": File("studies.why.on_chip:Rows", "`cosim study on-chip --json`."),
    "precision": File("studies.headline.precision:Rows", "`cosim study precision --json`."),
    "resource-fit": File("studies.resources.fit_resources:Fits",
                         "`cosim study resources --json`."),
    "resource-check": File("studies.resources.fit_resources:Besides",
                           "`cosim study resources --whole DESIGN --json`."),
    "vta-fit": File("studies.validate.fit_vta:Found", "`cosim study fit-vta --json`."),
    "energy-fit": File("studies.energy.fit:Values", "`cosim study fit-energy --json`."),
    "toggles": File("studies.energy.toggles:Rows", "`cosim study toggles --json`."),
    "paths": File("studies.resources.timing:Longest", "`cosim study paths --json`."),
    "benchmark": File("studies.speed.benchmark:Figures", "`cosim benchmark --json`."),
}
#: Boards differ in the values of axes, not in their names.
ANY_BOARD = "pynq-z1"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean",
         types.NoneType: "null"}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file; further fields are allowed where results stand.

    `UserError` names the kinds for any other name.
    """
    if name not in FILES:
        raise unknown("kind of file", name, tuple(FILES))
    file = FILES[name]
    made = _Types(sourced=name == "board")
    if name == "space":
        body = _space()
    else:
        body = made.whole(file.type, strict=file.layout is not Layout.BESIDE)
    if file.layout is Layout.COUNTED:
        body["properties"]["format"] = {"const": COUNTED}
        body["required"] = ["format", *body["required"]]
    elif name == "board":
        body["properties"].pop("coefficients", None)
    if file.layout in (Layout.CONTENT, Layout.BESIDE):
        header = {"format": {"const": FORMAT}, "version": {"const": VERSION},
                  "kind": {"const": name}, "command": {"type": "string"}}
        under = file.layout is Layout.CONTENT
        inner = {"content": body} if under else body["properties"]
        needed = ["content"] if under else body["required"]
        body = {"type": "object", "properties": {**header, **inner},
                "required": ["format", "version", "kind", *needed]}
    return {"$schema": DRAFT, "title": file.title, **body,
            **({"$defs": made.found} if made.found else {})}


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


class _Types:
    """Schemas of types; `found`: those that are named, for others to refer to.

    `sourced`: numbers stand in tables with unit and source, as in a board's file.
    """

    def __init__(self, sourced: bool) -> None:
        self.sourced = sourced
        self.found: dict[str, dict[str, Any]] = {}
        self._names: dict[Any, str] = {}

    def whole(self, kind: Any, strict: bool) -> dict[str, Any]:
        """The schema of a file's own type, not of one that is referred to."""
        if is_dataclass(kind) or typing.is_typeddict(kind):
            return self._fields(kind, strict)
        return self.of(kind, self.sourced)

    def of(self, kind: Any, sourced: bool) -> dict[str, Any]:
        """The schema of a type where it is used."""
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(part, sourced) for part in parts]}
        if origin is typing.Literal:
            return {"enum": list(parts)}
        if origin is tuple and parts[1:] != (Ellipsis,):
            return {"type": "array", "prefixItems": [self.of(part, False) for part in parts],
                    "minItems": len(parts), "maxItems": len(parts)}
        if origin in (tuple, frozenset, list, Sequence):
            return {"type": "array",
                    "items": self.of(parts[0], sourced and parts[0] is not int)}
        if origin is not None and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(parts[1], sourced)}
        if is_dataclass(kind) or typing.is_typeddict(kind):
            return {"$ref": f"#/$defs/{self._named(kind)}"}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [item.value for item in kind]}
        plain = PLAIN.get(kind)
        if plain in ("integer", "number") and sourced:
            return {"type": "object", "required": ["value", "unit", "source", "status"],
                    "properties": {"value": {"type": plain}, "unit": {"type": "string"},
                                   "source": {"type": "string"}, "status": {"type": "string"},
                                   "error": {"type": "number"}}, "additionalProperties": False}
        return {"type": plain} if plain else {}

    def _named(self, kind: Any) -> str:
        if kind not in self._names:
            name = kind.__name__
            if name in self.found:  # of another module
                name = f"{kind.__module__.rpartition('.')[2]}.{name}"
            self._names[kind] = name
            self.found[name] = {}
            self.found[name] = self._fields(kind, strict=True)
        return self._names[kind]

    def _fields(self, kind: Any, strict: bool) -> dict[str, Any]:
        hints = field_types(kind)
        return {"type": "object",
                "properties": {name: self.of(hint, self.sourced) for name, hint in hints.items()},
                "required": [name for name in hints if must_be_there(kind, name)],
                **({"additionalProperties": False} if strict else {})}


def field_types(kind: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass or typed dictionary, and of what is derived from them."""
    hints = typing.get_type_hints(kind)
    if typing.is_typeddict(kind):
        return hints
    derived = {name: typing.get_type_hints(getattr(kind, name).fget)["return"]
               for name in getattr(kind, DERIVED, ())}
    return {item.name: hints[item.name] for item in fields(kind)} | derived


def must_be_there(kind: Any, name: str) -> bool:
    """May a field not be left out?"""
    if typing.is_typeddict(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[name]
        return typing.get_origin(hint) is not typing.NotRequired
    own = {item.name: item for item in fields(kind)}
    return name not in own or (own[name].default is MISSING
                               and own[name].default_factory is MISSING)
