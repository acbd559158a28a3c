"""Do the rooms keep to the arrows of docs/design.md, stay small, and say what they are?

It reads the source; it runs nothing. The lists of exceptions may only shrink.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.source import (
    CPP,
    MODULES,
    ROOT,
    circles,
    cpp_function_sizes,
    function_sizes,
    imported_modules,
    imported_packages,
    room,
    tree,
)

#: What a top-level folder may import, besides itself.
BELOW = {
    "workloads": set(),
    "arch_models": set(),
    "cosim": {"workloads", "arch_models"},
    "hw": {"workloads", "arch_models", "cosim"},
    "studies": {"workloads", "arch_models", "cosim", "hw"},
}
#: Rooms of each top-level folder from the ground up: a room imports only rooms before it.
FLOORS = {
    "workloads": ("graph", "arithmetic", "seeded", "convolution", "weights_torch", "verify",
                  "reference", "quantization", "onnx", "agc", "unicorn", "library", "frames",
                  "training"),
    "cosim": ("compiled", "memory", "program", "mapping", "engines", "lowering", "build",
              "executors", "recurrence", "analysis", "vta"),
    "hw": ("interface", "board", "csim", "rtl", "project", "rtl_sim", "pynq"),
    "studies": ("plain", "energy", "evaluation", "search", "certify", "why", "report",
                "resources", "validate", "proof", "headline", "speed", "demo", "schemas",
                "commands", "cli"),
}
#: Readers and checks of files and names, that every room may use.
SHARED = {Path(f"arch_models/{name}.py") for name in ("fields", "files", "output")}
#: Hands names of every room on, when they are asked for; imports none itself.
FACE = Path("cosim/__init__.py")
ONLY_IN = {
    "simpy": {"cosim/executors/des.py"},
    "numba": {"cosim/compiled.py", "cosim/executors/fast.py", "cosim/recurrence/cuda_kernels.py"},
    "optuna": {"studies/search/search.py", "studies/search/storage.py",
               "studies/search/shared_study.py"},
    "sqlalchemy": {"studies/search/storage.py"},
    "grpc": {"studies/search/storage.py", "hw/pynq/protocol.py", "hw/pynq/server.py"},
    "distributed": {"studies/search/dask_workers.py"},
    "pynq": {"hw/board/hardware.py"},
    "onnx": {"workloads/onnx", "studies/validate/onnx/layers.py"},
    "onnxruntime": {"studies/validate/onnx/outputs.py"},
    "torch": {"workloads/agc/torch.py", "workloads/unicorn/torch.py", "workloads/weights_torch.py",
              "workloads/training", "studies/headline/efficiency.py",
              "studies/headline/perceptual.py"},
    "torchmetrics": {"studies/headline/perceptual.py"},
}
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS, MOST_MODULES = 400, 60, 8, 14
#: Arrows that run back up, to be cut: (from, to).
UPWARD: set[tuple[str, str, str]] = set()
#: Modules that import one another in a loop, to be opened.
LOOPS: set[tuple[str, ...]] = set()
#: Files over the budget, with their lines.
LONG_FILES: dict[str, int] = {}
#: Functions over the budget, with their lines.
LONG_FUNCTIONS: dict[str, int] = {}
#: Functions with more parameters than the budget (not the commands, whose parameters are options).
MANY_PARAMETERS: dict[str, int] = {}
#: Folders with more modules than the budget.
WIDE_FOLDERS: dict[str, int] = {}
INSIDE = [item for item in MODULES if item != FACE]


@pytest.mark.parametrize("module", INSIDE, ids=str)
def test_module_imports_only_rooms_below_it(module: Path) -> None:
    allowed = BELOW[module.parts[0]] | {module.parts[0]}
    strangers = {item.as_posix() for item in imported_modules(module) - SHARED
                 if item.parts[0] not in allowed and item.name != "__init__.py"}
    assert not strangers, f"{module} imports {sorted(strangers)}"


@pytest.mark.parametrize("top", FLOORS)
def test_arrows_between_rooms_run_down(top: str) -> None:
    order = {name: place for place, name in enumerate(FLOORS[top])}
    modules = [item for item in INSIDE if item.parts[0] == top and item.name != "__main__.py"
               and (len(item.parts) > 2 or item.name != "__init__.py")]
    homeless = {room(item) for item in modules} - set(order)
    assert not homeless, f"rooms of {top} without a floor: {sorted(homeless)}"
    wrong = {(top, room(item), room(other)): f"{item} imports {other}"
             for item in modules for other in imported_modules(item)
             if other.parts[0] == top and room(other) in order
             and order[room(other)] > order[room(item)]}
    assert not {key: text for key, text in wrong.items() if key not in UPWARD}
    cut = {item for item in UPWARD if item[0] == top} - set(wrong)
    assert not cut, f"cut, so no exception any more: {sorted(cut)}"


def test_no_modules_import_one_another_in_a_loop() -> None:
    arrows = {item: imported_modules(item) for item in INSIDE}
    found = {tuple(path.as_posix() for path in group) for group in circles(arrows)}
    assert not found - LOOPS, f"import loops: {sorted(found - LOOPS)}"
    assert not LOOPS - found, f"opened, so no exception any more: {sorted(LOOPS - found)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_packages_stay_in_their_module(module: Path) -> None:
    for package in imported_packages(module) & set(ONLY_IN):
        homes = {module.as_posix(), "/".join(module.parts[:2])} & ONLY_IN[package]
        assert homes, f"{module} imports {package}, which lives in {sorted(ONLY_IN[package])}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_says_what_it_is(module: Path) -> None:
    docstring = _docstring(module)
    first = docstring.partition("\n\n")[0]
    assert first.endswith((".", ":")), f"{module}: the docstring does not open with a sentence"
    if module.name != "__init__.py":
        assert "\n" in docstring, f"{module}: the docstring does not say what it does not do"


def test_what_tests_share_is_one_package() -> None:
    outside = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")
               if "support" not in path.parts and not path.name.startswith("test_")
               and path != ROOT / "tests" / "conftest.py"]
    assert not outside, f"helpers outside tests/support: {outside}"


def _docstring(module: Path) -> str:
    import ast

    return ast.get_docstring(tree(module)) or ""


def held(budget: int, sizes: dict[str, int], exceptions: dict[str, int]) -> None:
    """No size above the budget but the exceptions, none of which has grown or is done with."""
    over = {name: size for name, size in sizes.items()
            if size > exceptions.get(name, budget)}
    assert not over, f"over the budget of {budget} (or grown): {over}"
    done = {name for name in exceptions if sizes.get(name, 0) <= budget}
    assert not done, f"within the budget, so no exception any more: {sorted(done)}"


def test_files_are_short() -> None:
    held(MOST_LINES, {item.as_posix(): len((ROOT / item).read_text("utf-8").splitlines())
                      for item in (*MODULES, *CPP)}, LONG_FILES)


def test_functions_are_short() -> None:
    sizes: dict[str, int] = {}
    for item in MODULES:
        for name, lines, _ in function_sizes(item):
            key = f"{item.as_posix()} {name}"
            sizes[key] = max(lines, sizes.get(key, 0))
    for item in CPP:
        sizes |= {f"{item.as_posix()} {name}": lines for name, lines in cpp_function_sizes(item)}
    held(MOST_FUNCTION_LINES, sizes, LONG_FUNCTIONS)


def test_functions_take_few_parameters() -> None:
    sizes: dict[str, int] = {}
    for item in MODULES:
        if item.parts[:2] == ("studies", "commands"):
            continue
        for name, _, parameters in function_sizes(item):
            key = f"{item.as_posix()} {name}"
            sizes[key] = max(parameters, sizes.get(key, 0))
    held(MOST_PARAMETERS, sizes, MANY_PARAMETERS)


def test_folders_hold_few_modules() -> None:
    sizes: dict[str, int] = {}
    for item in MODULES:
        if item.name not in ("__init__.py", "__main__.py"):
            sizes[item.parent.as_posix()] = sizes.get(item.parent.as_posix(), 0) + 1
    held(MOST_MODULES, sizes, WIDE_FOLDERS)
