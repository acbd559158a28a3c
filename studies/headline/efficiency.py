"""Measures the decoder on this host's CPU and GPU and sets it beside the predicted board.

It does not mix the two: every row says whether it is measured or predicted, and which power it
counts. A host without a GPU shows the rows recorded on one (`RECORDED`). Needs torch (the `torch`
extra). `cosim study efficiency` runs it.

The form is that of the paper's headline (arXiv 2511.09272): 11.7 uJ a pixel on PYNQ-Z1, 24.9
times the energy efficiency of a CPU and 4.1 times of a GPU, power counted not stated in detail.
"""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from studies.headline.document import EfficiencyRow as Row
from workloads.agc.config import AgcConfig
from workloads.agc.torch import build_agc

RAPL = Path("/sys/class/powercap")
MICROJOULES = 1e6
#: Rows measured on a GPU host, with their provenance.
RECORDED = Path(__file__).parents[1] / "data" / "efficiency_h100.json"
MEASURE_SECONDS = 10.0
HEADLINE = (
    ("PYNQ-Z1, GRACE", 11.7, "stated; which power is counted is not stated"),
    ("commercial CPU, GRACE", 11.7 * 24.9, "inferred from the stated ratio 24.9"),
    ("commercial GPU, GRACE", 11.7 * 4.1, "inferred from the stated ratio 4.1"),
)


def package_energy() -> Callable[[], float] | None:
    """A function that reads the processor packages' energy counters in joules; None if none can.

    Source: Linux powercap (RAPL), `energy_uj` of each `intel-rapl:N`; counters that wrap within a
    measurement of seconds are not expected.
    """
    counters = [path / "energy_uj" for path in sorted(RAPL.glob("intel-rapl:?"))]
    try:
        for counter in counters:
            counter.read_text()
    except OSError:
        return None
    if not counters:
        return None
    return lambda: sum(int(counter.read_text()) for counter in counters) * 1e-6


def gpu_energy() -> Callable[[], float] | None:
    """A function that reads the first GPU's energy counter in joules; None if the driver has none.

    Source: NVML `nvmlDeviceGetTotalEnergyConsumption`, millijoules since the driver was loaded.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device = ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        return None

    def read() -> float:
        value = ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value)):
            raise OSError("the driver's energy counter stopped answering")
        return value.value * 1e-3

    return read


def measure(config: AgcConfig, device: str, form: torch.dtype, batch: int,
            energy: Callable[[], float] | None) -> tuple[float, float | None]:
    """(median seconds a frame, joules a frame or None) of one inter frame, weights random.

    Time and energy do not depend on the weights' values. The source branch runs once, outside.
    """
    decoder = build_agc(config).to(device=device, dtype=form)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(device=device, dtype=form)

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    points = [random(batch, config.keypoints, 2) * 2 - 1 for _ in range(2)]
    with torch.inference_mode():
        features, small = decoder.source(random(batch, 3, config.rows, config.cols))

        def frame() -> None:
            decoder.frame(features, small, *points)

        for _ in range(3 if device == "cuda" else 1):
            frame()
        wait()
        times: list[float] = []
        before, began = energy() if energy else 0.0, time.perf_counter()
        while time.perf_counter() - began < MEASURE_SECONDS or len(times) < 3:
            start = time.perf_counter()
            frame()
            wait()
            times.append(time.perf_counter() - start)
        spent = energy() - before if energy else None
    joules = None if spent is None else spent / (len(times) * batch)
    return statistics.median(times) / batch, joules


def measured_rows(config: AgcConfig) -> list[Row]:
    """This host's CPU (fp32, batch 1) and, if there is one, its GPU (batch 1 and 8)."""
    pixels = config.rows * config.cols
    counter = package_energy()
    counted = ("processor packages, RAPL" if counter else
               "unavailable: this host shows no readable energy counter")
    seconds, joules = measure(config, "cpu", torch.float32, 1, counter)
    name = f"{_processor()}, {torch.get_num_threads()} threads"
    rows = [Row(name, "measured", "fp32, batch 1", seconds, _per_pixel(joules, pixels), counted)]
    if not torch.cuda.is_available():
        return rows
    counter = gpu_energy()
    counted = "whole GPU board, driver's counter" if counter else "unavailable: no counter"
    torch.backends.cudnn.allow_tf32 = False  # or fp32 would be computed with 10-bit mantissas
    for form, called in ((torch.float16, "fp16"), (torch.float32, "fp32")):
        for batch in (1, 8):
            seconds, joules = measure(config, "cuda", form, batch, counter)
            rows.append(Row(torch.cuda.get_device_name(), "measured", f"{called}, batch {batch}",
                            seconds, _per_pixel(joules, pixels), counted))
    return rows


def recorded_rows(width: int, path: Path = RECORDED) -> list[Row]:
    """The rows of the file if they are of that width of decoder, marked with their date."""
    found = json.loads(path.read_text())
    if found["width"] != width:
        return []
    rows = [Row(**row) for row in found["rows"]]
    return [replace(row, kind=f"{row.kind} {found['provenance']['date']}") for row in rows]


def predicted_rows(config: AgcConfig, design: str, memory: str) -> list[Row]:
    """The same decoder on PYNQ-Z1 as predicted for a design, by three ways to count power."""
    from studies.evaluation import inputs
    from studies.evaluation.evaluate import evaluate, feasible
    from workloads.agc.graph import agc_graph

    item = feasible(evaluate(agc_graph(config), inputs.design(design), inputs.board("pynq-z1"),
                             memory, frames=3))
    energy, pixels = item.energy, config.rows * config.cols
    device = f"PYNQ-Z1, design {item.overlay}"
    form = f"int8, {item.memory_model} memory model"
    fabric = energy.pl_dynamic_j
    ways = (("PS, fabric and DDR", energy.total_j),
            ("fabric, static and dynamic", energy.pl_static_j + fabric),
            ("fabric, dynamic only", fabric))
    return [Row(device, "predicted", form, item.latency_s, _per_pixel(joules, pixels), counted)
            for counted, joules in ways]


def _per_pixel(joules: float | None, pixels: int) -> float | None:
    return None if joules is None else joules / pixels * MICROJOULES


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table; the last column is energy over that of the first prediction."""
    base = next((row.uj_per_pixel for row in rows if row.kind == "predicted"), None)
    lines = ["| device | kind | form | ms a frame | uJ a pixel | power counted | ratio |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        ms = "" if row.seconds_per_frame is None else f"{row.seconds_per_frame * 1e3:.3g}"
        found = row.uj_per_pixel
        energy = "not readable" if found is None else f"{found:.3g}"
        ratio = "" if found is None or base is None else f"{found / base:.2f}"
        lines.append(f"| {row.device} | {row.kind} | {row.form} | {ms} | {energy} | "
                     f"{row.power_counted} | {ratio} |")
    return "\n".join(lines)


def rows(width: int, design: str, memory: str, measured_only: bool = False) -> list[Row]:
    """This host's devices, recorded ones where there is no GPU, the prediction, the paper's.

    `width`: of the AGC decoder. `measured_only` leaves prediction and paper out.
    """
    config = AgcConfig(width=width, motion_width=width, motion_max=16 * width)
    found = measured_rows(config)
    if not torch.cuda.is_available():
        found += recorded_rows(width)
    if not measured_only:
        found += predicted_rows(config, design, memory)
        found += [Row(name, "published", "int8", None, value, counted)
                  for name, value, counted in HEADLINE]
    return found
