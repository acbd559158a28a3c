"""The source tree as tests measure it: who imports whom, how long files and functions are.

It reads the source; it runs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = ("workloads", "arch_models", "cosim", "hw", "studies")
MODULES = sorted(path.relative_to(ROOT) for top in TOP for path in (ROOT / top).rglob("*.py"))
CPP = sorted(path.relative_to(ROOT) for kind in ("*.hpp", "*.cpp", "*.h")
             for path in (ROOT / "hw").rglob(kind))
#: Lines of C++ that open a block which is no function.
NO_FUNCTION = ("namespace", "struct", "class", "union", "enum", "extern", "#")


def tree(module: Path) -> ast.Module:
    """The syntax tree of a module, by its path from the root."""
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def imported_packages(module: Path) -> set[str]:
    """Top-level names of everything a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def imported_modules(module: Path, anywhere: bool = True) -> set[Path]:
    """Modules of ours that a module imports; `anywhere`: also inside its functions."""
    known = set(MODULES)
    nodes = ast.walk(tree(module)) if anywhere else iter(tree(module).body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [name for alias in node.names
                     for name in (f"{node.module}.{alias.name}", node.module)]
        else:
            continue
        for name in names:
            place = Path(*name.split("."))
            found |= {place.with_suffix(".py"), place / "__init__.py"} & known
    return {item for item in found
            if item != module and (item.name != "__init__.py" or item.parent != module.parent)}


def room(module: Path) -> str:
    """The room a module stands in: a folder of a top-level folder, or the module itself there."""
    return module.parts[1] if len(module.parts) > 2 else module.stem


def function_sizes(module: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines and parameters (without self) of every function of a Python module."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [item.arg for item in (*node.args.posonlyargs, *node.args.args,
                                           *node.args.kwonlyargs)]
            yield (node.name, (node.end_lineno or 0) - node.lineno + 1,
                   len([name for name in given if name not in ("self", "cls")]))


def cpp_function_sizes(source: Path) -> Iterator[tuple[str, int]]:
    """First line and length of every function of a C++ file that begins and ends at a margin."""
    opened: tuple[int, str] | None = None
    for number, line in enumerate((ROOT / source).read_text(encoding="utf-8").splitlines()):
        if line and not line[0].isspace() and line.rstrip().endswith("{") \
                and not line.startswith(NO_FUNCTION):
            opened = (number, line.partition("(")[0].split()[-1])
        if line.startswith("}") and opened is not None:
            yield opened[1], number - opened[0] + 1
            opened = None


def circles(arrows: dict[Path, set[Path]]) -> list[list[Path]]:
    """Groups of modules that import one another in a loop (strongly connected components)."""
    order: list[Path] = []
    seen: set[Path] = set()

    def visit(start: Path, edges: dict[Path, set[Path]], out: list[Path]) -> None:
        stack = [(start, iter(sorted(edges.get(start, ()))))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            step = next((item for item in rest if item not in seen), None)
            if step is None:
                out.append(node)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(sorted(edges.get(step, ())))))

    for module in sorted(arrows):
        if module not in seen:
            visit(module, arrows, order)
    back: dict[Path, set[Path]] = {}
    for module, others in arrows.items():
        for other in others:
            back.setdefault(other, set()).add(module)
    seen.clear()
    found = []
    for module in reversed(order):
        if module not in seen:
            group: list[Path] = []
            visit(module, back, group)
            if len(group) > 1:
                found.append(sorted(group))
    return found
