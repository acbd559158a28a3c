"""Who writes JSON files, and of which kinds; holds what tests make them write against its schema.

It runs no command. `WRITERS` and `NO_FILE` name every function that makes JSON, so that a new
one cannot go without a schema (`tests/docs/test_docs_schemas.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from json import loads
from pathlib import Path

import jsonschema
import pytest

from studies.plain import files
from studies.schemas import schema

ROOT = Path(__file__).parents[2]
#: Its caller names the kind; a test names kinds of its own.
SAVE = "studies/plain/records.py:save"
#: Kinds of the files that a function writes, by `file:function`; with several, any may be right.
WRITERS: dict[str, tuple[str, ...]] = {
    "hw/board/measurement.py:measurement_text": ("measurement",),
    "hw/board/seal.py:seal": ("seal",),
    "hw/interface/descriptors.py:shell_text": ("program",),
    "hw/project/emit.py:project_files": ("prediction", "manifest"),
    "studies/certify/branching/book.py:add": ("boxes",),
    "studies/certify/certificate.py:write_certificate": ("certificate",),
    "studies/certify/session.py:run_proof": ("claim",),
    "studies/commands/calibrate.py:calibrate": ("calibration",),
    "studies/commands/catalogue.py:boards": ("boards",),
    "studies/commands/catalogue.py:lint_design": ("findings",),
    "studies/commands/compare.py:compare_designs": ("comparison",),
    "studies/commands/emit.py:emit_design": ("emission",),
    "studies/commands/explain.py:explain_design": ("explanation",),
    "studies/commands/explore.py:_write": ("search",),
    "studies/commands/fits.py:fit_energy": ("energy-fit",),
    "studies/commands/fits.py:fit_vta": ("vta-fit",),
    "studies/commands/fits.py:paths": ("paths",),
    "studies/commands/fits.py:resources": ("resource-fit", "resource-check"),
    "studies/commands/fits.py:toggles": ("toggles",),
    "studies/commands/report.py:decode": ("frames",),
    "studies/commands/study.py:_keep_rows": ("on-chip", "precision", "regret"),
    "studies/commands/study.py:decoders": ("decoders",),
    "studies/commands/study.py:efficiency": ("efficiency",),
    "studies/commands/study.py:enumerate_wide": ("enumeration",),
    "studies/commands/study.py:headline": ("headline",),
    "studies/commands/study.py:proof": ("sampler-proof",),
    "studies/commands/study.py:quality": ("quality",),
    "studies/commands/train.py:_shown": ("quality",),
    "studies/commands/validate.py:_described": ("fpga2015-check", "nvdla-check",
                                                "nvdla-small-check", "pipecnn-check"),
    "studies/commands/validate.py:board": ("board-check",),
    "studies/commands/validate.py:memory": ("memory-check",),
    "studies/commands/validate.py:overlap": ("overlap-check",),
    "studies/commands/validate.py:rtl": ("rtl-check",),
    "studies/commands/validate.py:streams": ("streams-check",),
    "studies/commands/validate.py:vta_pynq": ("vta-check",),
    "studies/commands/what_if.py:what_if_command": ("what-if",),
    "studies/demo.py:run_demo": ("summary",),
    "studies/demo.py:searched": ("search",),
    SAVE: ("evaluation",),
    "studies/report/live.py:_write": ("live",),
    "studies/speed/benchmark.py:run_benchmark": ("benchmark",),
    "studies/validate/clock.py:run": ("clock-check",),
    "studies/validate/energy.py:run": ("energy-check",),
    "studies/validate/onnx/study.py:run": ("onnx-check",),
    "workloads/library.py:save_graph": ("network",),
}
#: JSON that is no file of this program, and what it is.
NO_FILE = {
    "arch_models/output.py:toml_string": "a string of a TOML file",
    "studies/certify/certificate.py:_sum": "what a checksum is of",
    "studies/certify/goals.py:order": "a key in memory",
    "studies/certify/session.py:_book": "the first line of the boxes, compared as text",
    "studies/commands/catalogue.py:print_schema": "a schema",
    "studies/plain/files.py:write_json": "whatever its caller has",
    "studies/report/page.py:in_script": "inside the page, for its own script",
    "studies/search/identity.py:digest": "what a digest is of",
    "studies/search/outcomes.py:design_key": "a key in memory",
    "studies/search/shared_study.py:open_study": "an attribute of Optuna's study",
    "studies/search/storage.py:append_logs": "Optuna's own journal",
}
#: Longer files take seconds to check; `test_docs_schemas` has a short one of each kind.
MOST_CHARACTERS = 100_000


@cache
def checker(kind: str) -> jsonschema.Draft202012Validator:
    """Of a kind of file."""
    return jsonschema.Draft202012Validator(schema(kind))


def check(text: str, kinds: tuple[str, ...]) -> None:
    """Refuse JSON that none of the kinds allows."""
    value = loads(text)
    wrong = [jsonschema.exceptions.best_match(checker(kind).iter_errors(value)) for kind in kinds]
    assert None in wrong, f"{kinds}: {wrong[0].message} at {list(wrong[0].absolute_path)}"


def writer() -> str | None:
    """The function of the project that has JSON written now; None if a test does, or if it is
    other text."""
    frame = sys._getframe(2)
    if frame.f_code is not files.write_json.__code__:
        return None
    while frame is not None:
        place = Path(frame.f_code.co_filename)
        if place.is_relative_to(ROOT):
            if place.is_relative_to(ROOT / "tests"):
                return None
            name = f"{place.relative_to(ROOT).as_posix()}:{frame.f_code.co_name}"
            if name in WRITERS:
                caller = frame.f_back and Path(frame.f_back.f_code.co_filename)
                own = name == SAVE and caller and caller.is_relative_to(ROOT / "tests")
                return None if own else name
        frame = frame.f_back
    return None


@pytest.fixture(autouse=True, scope="session")
def what_is_written_keeps_to_its_schema() -> Iterator[None]:
    """Every JSON file that a command writes in this process, in whichever test."""
    write = files.write_text

    def checked(path: Path, text: str) -> None:
        if len(text) <= MOST_CHARACTERS and (name := writer()) is not None:
            check(text, WRITERS[name])
        write(path, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_text", checked)
        yield
