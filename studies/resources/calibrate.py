"""Reads loop timings from a Vitis HLS synthesis report and writes engine coefficients as data.

It runs no vendor tool. The report is `csynth.xml` of a solution: each pipelined loop has a name,
`PipelineII`, `PipelineDepth` and, where the bounds are known, `TripCount`.

A pipelined loop of n trips takes depth + II * (n - 1) cycles. An operator whose loops are nested
perfectly is one such loop an operation: interval II, drain depth - II. Where a loop starts anew for
every output (a pool's taps, a softmax's channels), II counts a tap or a channel, and depth - II
comes with every output. A convolution starts its loop anew for every output position, which its
coefficients cannot say: they are a lower bound, and the file says so.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arch_models.fields import FieldError, prose, shortened
from arch_models.files import number, read_bytes
from arch_models.output import toml_string
from studies.plain.errors import UserError

#: What one pass of the loop stands for: a trip of the operation, or a part of one.
PASS = {"convolution": "trip", "add": "trip", "multiply": "trip", "affine": "trip",
        "lookup": "trip", "upsample": "trip", "flow_sum": "channel", "softmax": "channel",
        "average_pool": "tap", "max_pool": "tap", "grid_sample": "plane"}
BACKEND = "vitis"
_COUNT = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Loop:
    """One pipelined loop. `module`: the function it belongs to; `trips`: 0 if not constant."""

    module: str
    name: str
    interval: int
    depth: int
    trips: int

    @property
    def label(self) -> str:
        """As `--loop` takes it."""
        return f"{self.module}/{self.name}"


@dataclass(frozen=True)
class SynthesisReport:
    """What was read. `sha256` is the report file's; `version` the tool's, as it says.

    `clock_ns`: the period that the tool estimates before placement, 0 if it does not say.
    """

    file: str
    sha256: str
    version: str
    part: str
    top: str
    loops: tuple[Loop, ...]
    clock_ns: float = 0.0


def read_report(path: Path) -> SynthesisReport:
    """Every pipelined loop of a report; `UserError` names the file, the loop and the field."""
    try:
        raw = read_bytes(path)
        if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
            raise UserError(f"{path}: declares a document type, which no report does")
        root = ElementTree.fromstring(raw)
    except FieldError as error:
        raise UserError(str(error)) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not XML: {shortened(error)}; give csynth.xml, not the .rpt "
                        "text") from None
    try:
        return _report(path, raw, root)
    except FieldError as error:
        raise UserError(f"{path}: {error}") from None


def _report(path: Path, raw: bytes, root: ElementTree.Element) -> SynthesisReport:
    top = root.findtext(".//TopModelName", "").strip()
    if not top:
        raise UserError(f"{path}: no TopModelName; is it the csynth.xml of a solution?")
    found: dict[str, Loop] = {}
    for where, parent in _modules(root, top):
        for element in parent.iter():
            if element.find("PipelineII") is not None:
                loop = _loop(path, where, element)
                found.setdefault(loop.label, loop)
    if not found:
        raise UserError(f"{path}: no loop has a PipelineII; nothing was pipelined, or the report "
                        "is of another step")
    version = (root.findtext(".//ReportVersion/Version") or "unknown").strip()
    part = root.findtext(".//Part", "unknown").strip()
    return SynthesisReport(
        prose(path.name, "file name"), hashlib.sha256(raw).hexdigest(),
        prose(version, "ReportVersion"), prose(part, "Part"), prose(top, "TopModelName"),
        tuple(found.values()), _clock_ns(path, root))


def _clock_ns(path: Path, root: ElementTree.Element) -> float:
    """Of the whole top: the summary beside its modules."""
    text = root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
    if text is None:
        return 0.0
    return number(text.strip(), f"{path}: EstimatedClockPeriod", 0.01, 1e6)


def _modules(root: ElementTree.Element, top: str) -> list[tuple[str, ElementTree.Element]]:
    """(function, its element); `f_Pipeline_...` is a loop of f that became a module."""
    modules = [(item.findtext("Name", top).strip().split("_Pipeline_")[0], item)
               for item in root.iter("Module")]
    own = root.find("PerformanceEstimates")
    return [*modules, *([(top, own)] if own is not None else [])]


def _loop(path: Path, module: str, element: ElementTree.Element) -> Loop:
    name = element.findtext("Name", element.tag).strip()
    numbers = {}
    for field in ("PipelineII", "PipelineDepth"):
        text = (element.findtext(field) or "").strip()
        if not _COUNT.fullmatch(text) or int(text) < 1:
            raise UserError(f"{path}: loop {shortened(f'{module}/{name}')}: {field} is "
                            f"{shortened(text) or 'missing'}, must be a whole number of at least "
                            "1, and at most 9 digits")
        numbers[field] = int(text)
    trips = (element.findtext("TripCount") or "").strip()
    interval, depth = numbers["PipelineII"], numbers["PipelineDepth"]
    if depth < interval:
        raise UserError(f"{path}: loop {module}/{name}: PipelineDepth is {depth}, must be at least "
                        f"PipelineII {interval}")
    return Loop(prose(module, "function"), prose(name, f"{module}: loop"), interval, depth,
                int(trips) if _COUNT.fullmatch(trips) else 0)


def choose_loops(report: SynthesisReport, chosen: Mapping[str, str]
                 ) -> dict[str, tuple[Loop, ...]]:
    """The loops of each operator: those named in `chosen`, else those of the function of its name.

    `chosen`: operator to `function/loop`, several joined by commas. Raises `UserError` for an
    unknown name, or where one loop is needed and the function has several.
    """
    by_label = {loop.label: loop for loop in report.loops}
    found: dict[str, tuple[Loop, ...]] = {}
    for operator in chosen:
        if operator not in PASS:
            raise UserError(f"--loop: operator {operator!r}, must be one of {', '.join(PASS)}")
    for operator, stands_for in PASS.items():
        if operator in chosen:
            labels = chosen[operator].split(",")
            for label in labels:
                if label not in by_label:
                    raise UserError(f"--loop {operator}: {label!r} is not in {report.file}; it has "
                                    f"{', '.join(sorted(by_label))}")
            loops = tuple(by_label[label] for label in labels)
        else:
            loops = tuple(loop for loop in report.loops if loop.module == operator)
        if stands_for == "trip" and len(loops) > 1:
            names = ", ".join(loop.label for loop in loops)
            raise UserError(f"{operator}: {len(loops)} pipelined loops ({names}); say which one "
                            f"its trips are, for example --loop {operator}={loops[0].label}")
        if loops:
            found[operator] = loops
    if not found:
        raise UserError(f"{report.file}: no loop belongs to a function named as an operator; "
                        f"give --loop OPERATOR=FUNCTION/LOOP. It has {', '.join(sorted(by_label))}")
    return found


def coefficients(operator: str, loops: Sequence[Loop]) -> dict[str, int]:
    """fill, interval, interval_per_... and drain of an operator, in cycles; see the module."""
    interval = sum(loop.interval for loop in loops)
    rest = sum(loop.depth - loop.interval for loop in loops)
    stands_for = PASS[operator]
    if stands_for == "trip":
        return {"fill": 0, "interval": interval, "drain": rest}
    return {"fill": 0, "interval": rest, f"interval_per_{stands_for}": interval, "drain": 0}


def backend_file(report: SynthesisReport, loops: Mapping[str, Sequence[Loop]]) -> str:
    """The text of a coefficient file that an overlay's `backend` may name."""
    lines = [
        f"# Cycles of each operator from a vendor report: {report.file}, {report.version},",
        f"# {report.part}, top {report.top}, SHA-256 {report.sha256}.",
        "# Written by `cosim calibrate`; a report is an estimate of the compiler, no measurement.",
    ]
    for operator, mine in loops.items():
        lines += ["", f"[{BACKEND}.{operator}]"]
        for loop in mine:
            trips = loop.trips or "not constant"
            lines.append(f"# {loop.label}: II {loop.interval}, depth {loop.depth}, trips {trips}")
        if operator == "convolution":
            lines.append("# Lower bound: the loop starts anew for every output position.")
        names = " + ".join(loop.label for loop in mine)
        source = toml_string(f"{report.file} sha256 {report.sha256[:16]}, loop {names}")
        for name, value in coefficients(operator, mine).items():
            unit = f"cycles/{PASS[operator]}" if name.startswith("interval_per") else "cycles"
            lines.append(f'{name} = {{ value = {value}, unit = "{unit}", source = {source}, '
                         'status = "vendor report" }')
    return "\n".join(lines) + "\n"
