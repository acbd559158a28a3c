"""Do the rooms keep to the arrows of docs/design.md, and does each module say what it is?

It reads the source; it runs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "workloads": {"workloads"},
    "arch_models": {"arch_models"},
    "cosim": {"workloads", "arch_models", "cosim"},
    "hw": {"workloads", "arch_models", "cosim", "hw"},
    "studies": {"workloads", "arch_models", "cosim", "hw", "studies"},
}
#: Readers and checks of files and names, that every room may use.
SHARED = {"arch_models.fields", "arch_models.files", "arch_models.output"}
ONLY_IN = {
    "simpy": {"cosim/executors/des.py"},
    "numba": {"cosim/executors/fast.py", "cosim/memory/bursts.py",
              "cosim/recurrence/cuda_kernels.py", "cosim/lowering/row_parts.py"},
    "optuna": {"studies/search/search.py", "studies/search/storage.py",
               "studies/search/shared_study.py"},
    "sqlalchemy": {"studies/search/storage.py"},
    "grpc": {"studies/search/storage.py", "hw/pynq/protocol.py", "hw/pynq/server.py"},
    "distributed": {"studies/search/dask_workers.py"},
    "pynq": {"hw/board/hardware.py"},
}
MODULES = sorted(
    path.relative_to(ROOT)
    for room in ALLOWED
    for path in (ROOT / room).rglob("*.py")
)


def imported(path: Path, without: Set[str] = frozenset()) -> set[str]:
    """Top-level names of everything a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return {name.split(".")[0] for name in found - without}


#: Hands names of every room on, when they are asked for; imports none itself.
FACE = Path("cosim/__init__.py")


@pytest.mark.parametrize("module", [item for item in MODULES if item != FACE], ids=str)
def test_module_imports_only_rooms_below_it(module: Path) -> None:
    room = module.parts[0]
    strangers = (imported(ROOT / module, SHARED) & set(ALLOWED)) - ALLOWED[room]
    assert not strangers, f"{module} imports {sorted(strangers)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_packages_stay_in_their_module(module: Path) -> None:
    names = imported(ROOT / module)
    for package, homes in ONLY_IN.items():
        if package in names:
            assert module.as_posix() in homes, f"{module} imports {package}"
    if names & {"onnx", "onnxruntime"}:
        assert (module.parts[:2] == ("workloads", "onnx")
                or module.as_posix() == "studies/validate/onnx.py"), f"{module} imports onnx"
    if "torch" in names:
        assert (module.name in ("torch.py", "weights_torch.py")
                or module.parts[:2] == ("workloads", "training")
                or module.as_posix() == "studies/headline/efficiency.py"), f"{module} imports torch"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_says_what_it_is(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / module).read_text())) or ""
    first = docstring.partition("\n\n")[0]
    assert first.endswith((".", ":")), f"{module}: the docstring does not open with a sentence"
    if module.name != "__init__.py":
        assert "\n" in docstring, f"{module}: the docstring does not say what it does not do"
