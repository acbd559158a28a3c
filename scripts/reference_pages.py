"""Reference pages of the documents' site, made from the code while it is built (mkdocs hook).

It writes no file of the project: commands, Python and files are pages of the site only.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

import cosim
from studies.cli import COMMANDS, GROUPS, _load
from studies.schemas import FILES, field_types, must_be_there, schema

MADE = "Made from the code."


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and the schemas as files to load."""
    from mkdocs.structure.files import File

    made = {"reference/commands.md": commands_page(), "reference/python.md": python_page(),
            "reference/files.md": files_page(),
            **{f"reference/{name}.schema.json": json.dumps(schema(name), indent=1)
               for name in FILES}}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def files_page() -> str:
    """The kinds of files with their fields."""
    parts = ["# Files", "", f"{MADE} `cosim schema KIND` prints a JSON Schema, for editors and "
             "other programs.", ""]
    for name, file in FILES.items():
        parts += [f"## {name}", "", file.title, "", *_type(file.type), ""]
    return "\n".join(parts)


def _type(kind: Any) -> list[str]:
    """What a file's type says, and a row a field; of a file of rows, those of a row."""
    if typing.get_origin(kind) is not None:
        inner = typing.get_args(kind)[0]
        return ["A list.", "", *_type(inner)] if _has_fields(inner) else [_words(kind)]
    if not _has_fields(kind):
        return []
    optional = {item.name: _default(item) for item in fields(kind)} if is_dataclass(kind) else {}
    rows = [f"| `{name}` | {_words(hint)} | "
            + optional.get(name, "must be there" if must_be_there(kind, name) else "left out")
            + " |" for name, hint in field_types(kind).items() if name != "coefficients"]
    return [*_paragraphs(kind), "", "| field | type | if left out |", "| --- | --- | --- |", *rows]


def _has_fields(kind: Any) -> bool:
    return is_dataclass(kind) or typing.is_typeddict(kind)


def _paragraphs(thing: Any) -> list[str]:
    return [line.replace("|", "\\|") for line in inspect.cleandoc(thing.__doc__ or "").splitlines()]


def _words(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    for part in ("typing.", "collections.abc."):
        text = text.replace(part, "")
    text = ".".join(text.split(".")[-1:]) if "[" not in text and " " not in text else text
    return f"`{_bare(text)}`".replace("|", "\\|")


def _bare(text: str) -> str:
    return re.sub(r"\b(?:[a-z_]+\.)+([A-Z]\w*)", r"\1", text)


def _default(item: Any) -> str:
    if item.default is MISSING:
        return "must be there" if item.default_factory is MISSING else "empty"
    value = item.default.value if isinstance(item.default, Enum) else item.default
    if is_dataclass(value):
        return "its own defaults"
    if isinstance(value, frozenset):
        return f"`{', '.join(sorted(str(part) for part in value))}`"
    return f"`{value}`"


def commands_page() -> str:
    """Every command with its arguments and options."""
    parts = ["# Commands", "", f"{MADE} `cosim COMMAND --help` says the same.", ""]
    for name, command in _commands():
        parts += [f"## cosim {name}", "", inspect.cleandoc(command.help or ""), ""]
        rows = [(_usage(item), item.help or "") for item in command.params
                if item.name != "help"]
        parts += ["| | |", "| --- | --- |"] if rows else []
        parts += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows]
        parts.append("")
    return "\n".join(parts)


def _usage(item: Any) -> str:
    """An argument's or option's names and what it is if left out."""
    if item.param_type_name == "argument":
        return str(item.name).upper() + ("" if item.required else f" ({item.default})")
    names = ", ".join([*item.opts, *item.secondary_opts])
    shown = item.show_default if isinstance(item.show_default, str) else item.default
    if isinstance(shown, Enum):
        shown = shown.value
    return names if item.is_flag or shown is None or callable(shown) else f"{names} ({shown})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _commands() -> Iterator[tuple[str, Any]]:
    for name, place in COMMANDS.items():
        yield name, _load(name, place)
    for group, (_, names) in GROUPS.items():
        for name, place in names.items():
            yield f"{group} {name}", _load(name, place)


def python_page() -> str:
    """What `import cosim` offers, with signatures."""
    parts = ["# Python", "", MADE, "",
             *_paragraphs(cosim), ""]
    for name in cosim.__all__:
        thing = getattr(cosim, name)
        parts += [f"## cosim.{name}", ""]
        if not isinstance(thing, type):
            signature = _bare(str(inspect.signature(thing, eval_str=True)))
            parts += ["```python", f"cosim.{name}{signature}", "```", ""]
        parts += [*_paragraphs(thing), ""]
    return "\n".join(parts)
