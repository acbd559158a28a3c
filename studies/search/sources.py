"""Digests what predictions come from: every module that the evaluation reaches, and its data.

It follows imports as they are written, those inside functions too; it runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Where the evaluation of a choice and the order of choices begin.
ENTRY = ("studies/search/exploration.py", "studies/evaluation/batch.py")
DATA_KINDS = ("*.toml", "*.csv", "*.json")


@cache
def reached(entry: tuple[str, ...] = ENTRY) -> tuple[Path, ...]:
    """Every module of the program that the entry imports, directly or not; from the root."""
    found: set[Path] = set()
    waiting = [Path(name) for name in entry]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(module)
    return tuple(sorted(found))


@cache
def data_files(entry: tuple[str, ...] = ENTRY) -> tuple[Path, ...]:
    """Tables beside those modules, and in the folder `data` of their room; from the root.

    Boards, designs and networks are chosen by a command: `identity` digests the ones it has.
    """
    folders = {folder for module in reached(entry)
               for folder in (module.parent, Path(module.parts[0], "data"))}
    return tuple(sorted(path.relative_to(ROOT) for folder in folders for kind in DATA_KINDS
                        for path in (ROOT / folder).glob(kind)))


@cache
def simulator_digest(entry: tuple[str, ...] = ENTRY) -> str:
    """A short digest of all of them."""
    found = hashlib.sha256()
    for path in (*reached(entry), *data_files(entry)):
        content = (ROOT / path).read_bytes()
        found.update(f"{path.as_posix()} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def _imported(module: Path) -> Iterator[Path]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # One dot is the module's own package, two the one around it.
            package = module.parts[: len(module.parts) - node.level] if node.level else ()
            base = ".".join((*package, *([node.module] if node.module else [])))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            place = Path(*name.split("."))
            # The packages around a module run with it.
            packages = [parent / "__init__.py" for parent in (place, *place.parents)]
            yield from (path for path in (place.with_suffix(".py"), *packages[:-1])
                        if (ROOT / path).is_file())


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement below a node but what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)
