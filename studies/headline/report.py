"""Tables, JSON and the page of the headline study.

It evaluates nothing: every figure comes from `studies.headline.study`, and all are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from arch_models.overlay import overlay_toml
from studies.evaluation import inputs
from studies.headline.document import (
    AblationFile,
    CandidateFile,
    Headline,
    PointFile,
    StepFile,
)
from studies.headline.study import (
    ARM_DOUBT,
    PAPER_UJ_PER_PIXEL,
    REGULATOR_EFFICIENCY,
    WORKLOADS,
    Candidate,
    Point,
)
from studies.plain.records import encode
from studies.plain.terminal import grid
from studies.why.ablation import LEFT_OUT, Ablation, Step
from studies.why.array_use import LOST, ArrayUse, total
from studies.why.phase_sums import phase_sums

GOAL = 0.95
#: The paper's figure is of this network.
PAPER_NETWORK = "agc"
#: Layers with less of the array's cycles stand together in one row.
LEAST_LAYER = 0.01


def shape(item: Candidate) -> str:
    """The array and what is in fabric, in a few words."""
    overlay = item.overlay
    engines = sorted(engine.value for engine in overlay.engines if engine.value != "convolution")
    packed = ", packed" if overlay.dsp_packing else ""
    return (f"{overlay.tm} x {overlay.tn} x {overlay.columns}{packed}; in fabric: convolution"
            + "".join(f", {name}" for name in engines).replace("_", " "))


def rich_tables(points: Sequence[Point]) -> list[Table]:
    """Best designs, limits, power countings; one row a workload."""
    best = grid("Best designs (predicted, ddr3)",
                ["workload", "MHz", "ms", "uJ a pixel", "% of the DSP limit", "% of the array",
                 "% in convolutions", "DDR %", "static %"])
    power = grid(f"uJ a pixel by counting (predicted); the paper states {PAPER_UJ_PER_PIXEL}",
                 ["workload", "MHz", *points[0].reached])
    for point in points:
        item = point.latency_best
        found, at = item.evaluation, item.limits
        best.add_row(point.workload, point.clock, f"{found.latency_ms:.1f}",
                     f"{found.energy_uj_per_pixel:.2f}",
                     *(f"{100 * share:.1f}" for share in (
                         at.dsp_share, at.array_share, at.convolution_share, at.ddr_share,
                         at.static_share)))
        power.add_row(point.workload, point.clock, *(
            f"{candidate.counted[name]:.2f}" for name, candidate in point.reached.items()))
    return [best, power]


def document(points: Sequence[Point], designs: int, seed: int) -> Headline:
    """Everything as JSON values, design files included."""
    return {
        "predicted": True, "board": "pynq-z1", "memory_model": "ddr3", "designs": designs,
        "seed": seed, "clock_rates": "predicted; unchecked by vendor timing",
        "paper_uj_per_pixel": {"value": PAPER_UJ_PER_PIXEL, "source": "arXiv 2511.09272",
                               "status": "stated", "power_counted": "not stated"},
        "regulator_efficiency": {"value": REGULATOR_EFFICIENCY.value,
                                 "source": REGULATOR_EFFICIENCY.source,
                                 "status": REGULATOR_EFFICIENCY.status.value},
        "left_out": LEFT_OUT, "points": [_point(point) for point in points]}


def _point(point: Point) -> PointFile:
    return {
        "workload": point.workload,
        "designs_evaluated": point.evaluated, "designs_infeasible": point.infeasible,
        "latency_best": _candidate(point.latency_best),
        "latency_ms_with_slow_arm": {"value": point.slow_arm_ms, "times_slower": ARM_DOUBT},
        "energy_best": _candidate(point.energy_best),
        "critical_path_cycles": dict(point.path),
        "array_use": [encode(use) for use in (*point.uses, total(point.uses))],
        "front": [_candidate(item) for item in point.front],
        "power": {name: {"uj_per_pixel": item.counted[name],
                         "reached": item.counted[name] <= PAPER_UJ_PER_PIXEL,
                         "design": _candidate(item)} for name, item in point.reached.items()},
        "ablation": _ablation(point.ablation), "ablation_hand_made": _ablation(point.hand_made)}


def _candidate(item: Candidate) -> CandidateFile:
    found, at = item.evaluation, item.limits
    return {"clock_mhz": found.clock_hz / 1e6, "clock": encode(found.clock),
            "latency_ms": found.latency_ms, "uj_per_pixel": found.energy_uj_per_pixel,
            "mj_per_picture": item.mj_per_picture,
            "counted_uj_per_pixel": dict(item.counted),
            "counted_limits_uj_per_pixel": {name: list(both)
                                            for name, both in item.between.items()},
            "array_utilization": found.utilization,
            "limits_ms": {"dsp": at.dsp_ms, "array": at.array_ms, "ddr": at.ddr_ms,
                          "program": at.program_ms},
            "share_of_limit": {"dsp": at.dsp_share, "array": at.array_share, "ddr": at.ddr_share},
            "convolution_share": at.convolution_share, "static_share": at.static_share,
            "resources": {part.name: part.used for part in found.resources},
            "design_file": overlay_toml(item.overlay)}


def _ablation(found: Ablation) -> AblationFile:
    return {"without": [_step(row) for row in found.without],
            "cumulative": [_step(row) for row in found.cumulative]}


def _step(row: Step) -> StepFile:
    found = row.evaluation
    return {"device": row.device, "used": row.used, "reason": row.reason, "bits": row.bits,
            "latency_ms": found.latency_ms if found else None,
            "uj_per_pixel": found.energy_uj_per_pixel if found and row.bits == 8 else None}


def page(points: Sequence[Point], designs: int, seed: int) -> str:
    """The study as Markdown."""
    lines = [
        "# The headline study", "",
        "Generated by", "```",
        _command(points, designs, seed),
        "```",
        "One inter frame of AGC and one image of Unicorn (8 sampler steps, whole), 256 x 256, on "
        "PYNQ-Z1. **Everything here is "
        "predicted**, searched with the memory model `flat` and evaluated with `ddr3`. Clock rates "
        "are unchecked by vendor timing, so each stands alone. Times of operators left to the ARM "
        "are those of other software (`arch_models/boards`), energies have 80 % limits "
        "(`arch_models/data/fitted_energy.toml`); sites are fitted to Yosys runs of the RTL "
        "(`docs/validation.md`). A design is the best of those tried, not proved best; whether the "
        "vendor's tools pack two products into a DSP at these clocks is unchecked.", ""]
    lines += _limits(points) + _front(points)
    lines += _power(points)
    lines += _paths(points) + _uses(points)
    for point in points:
        lines += _ablation_table(f"{point.workload}, {point.clock} MHz, fastest design",
                                 point.ablation)
    first = points[0]
    lines += _ablation_table(f"{first.workload}, {first.clock} MHz, the hand-made default "
                             "design, which has every engine in fabric", first.hand_made)
    lines += ["", "Not shown:", ""]
    lines += [f"- {name}: {why}." for name, why in LEFT_OUT.items()]
    lines += ["", "A device can cost: an engine in fabric may be slower than the ARM is taken to "
              "be, and its DSPs are missing from the array. An engine may also stand idle "
              "because no bank holds its smallest tile."]
    lines += _phases(points)
    return "\n".join(lines) + "\n"


def _limits(points: Sequence[Point]) -> list[str]:
    lines = [
        "## Fastest designs, and the limits", "",
        "DSP limit: the frame's products on all 220 DSPs, two each. Array: the design's own "
        "products a cycle. Convolutions: useful products over the array's, in the cycles of "
        "convolution layers only, stalls and padding included. DDR: the design's bytes at "
        "the DRAM's peak. Static: energy that passes with time alone (PS, fabric static, DRAM "
        "standby). Slow ARM: the same design "
        f"if the ARM takes {ARM_DOUBT:g} times as long as taken for what is left to it; "
        "leaving an engine out is only as good a choice as that figure.", "",
        "| workload | MHz | fabric reaches, MHz | ms | slow ARM, ms | mJ a picture | uJ a pixel | "
        "DSP limit, ms | % of it | % of array | % in convolutions | DDR % | static % of energy | "
        "design |", "|" + " --- |" * 14]
    for point in points:
        item = point.latency_best
        found, at = item.evaluation, item.limits
        shares = (at.dsp_share, at.array_share, at.convolution_share, at.ddr_share,
                  at.static_share)
        lines.append(f"| {point.workload} | {point.clock} | {found.clock.interval} | "
                     f"{found.latency_ms:.1f} | "
                     f"{point.slow_arm_ms:.1f} | {item.mj_per_picture:.0f} | "
                     f"{found.energy_uj_per_pixel:.2f} | {at.dsp_ms:.1f} | "
                     + " | ".join(f"{100 * share:.1f}" for share in shares)
                     + f" | {shape(item)} |")
    return lines


def _front(points: Sequence[Point]) -> list[str]:
    lines = ["", "## Front between latency and energy", "",
             "Power passes mostly with time, so the fastest design is nearly the one of least "
             "energy and the fronts are short.", "",
             "| workload | MHz | designs | fastest: ms, uJ | least energy: ms, uJ |",
             "| --- | --- | --- | --- | --- |"]
    for point in points:
        ends = [f"{item.evaluation.latency_ms:.2f}, {item.evaluation.energy_uj_per_pixel:.3f}"
                for item in (point.latency_best, point.energy_best)]
        lines.append(f"| {point.workload} | {point.clock} | {len(point.front)} | "
                     + " | ".join(ends) + " |")
    return lines


def _command(points: Sequence[Point], designs: int, seed: int) -> str:
    text = (f"cosim study headline --designs {designs} --seed {seed} "
            "--page docs/headline.md")
    workloads = tuple(dict.fromkeys(point.workload for point in points))
    if workloads != WORKLOADS:
        text += " --workloads " + ",".join(workloads)
    return text


def _power(points: Sequence[Point]) -> list[str]:
    names = list(points[0].reached)
    lines = ["", f"## {PAPER_UJ_PER_PIXEL} uJ a pixel: by which counting of power", "",
             f"The paper (arXiv 2511.09272) states {PAPER_UJ_PER_PIXEL} uJ a pixel and not which "
             "power is counted nor how wide the network is. Each cell is the least energy found by "
             "that counting, with its 80 % limits and the design's milliseconds; **bold** is AGC "
             "that reaches it. "
             f"Whole board: the rails over a regulator efficiency of {REGULATOR_EFFICIENCY.value} "
             "(guess).", "",
             "| workload | MHz | " + " | ".join(names) + " |",
             "| --- | --- |" + " --- |" * len(names)]
    for point in points:
        cells = []
        for name, item in point.reached.items():
            text = f"{item.counted[name]:.2f}"
            reached = (item.counted[name] <= PAPER_UJ_PER_PIXEL
                       and point.workload.startswith(PAPER_NETWORK))
            low, high = item.between[name]
            cells.append((f"**{text}**" if reached else text)
                         + f" ({low:.1f} to {high:.1f}; {item.evaluation.latency_ms:.0f} ms)")
        lines.append(f"| {point.workload} | {point.clock} | " + " | ".join(cells) + " |")
    lines += ["", "The design that reaches it for each network and counting:", ""]
    for name in names:
        for workload in dict.fromkeys(point.workload for point in points
                                      if point.workload.startswith(PAPER_NETWORK)):
            point = next(item for item in points if item.workload == workload)
            item = point.reached[name]
            if item.counted[name] <= PAPER_UJ_PER_PIXEL:
                lines.append(f"- {name}, {workload}: {item.counted[name]:.2f} uJ a pixel at "
                             f"{item.evaluation.clock_hz / 1e6:.4g} MHz, {shape(item)}.")
            else:
                lines.append(f"- {name}, {workload}: not reached.")
    return lines


def _paths(points: Sequence[Point]) -> list[str]:
    """Shares of the critical path by unit."""
    lines = ["", "## Where the latency lies", "",
             "The critical path of the fastest designs by unit (all steps of a sampler), units "
             "under 0.5 % together.", "", "| workload | MHz | shares |", "| --- | --- | --- |"]
    for point in points:
        whole = sum(point.path.values())
        large = {name: cycles for name, cycles in point.path.items() if cycles >= 0.005 * whole}
        rest = whole - sum(large.values())
        parts = [f"{name.replace('_', ' ')} {100 * cycles / whole:.1f} %"
                 for name, cycles in {**large, "others": rest}.items() if cycles]
        lines.append(f"| {point.workload} | {point.clock} | {', '.join(parts)} |")
    return lines


def _uses(points: Sequence[Point]) -> list[str]:
    """Where the array's products go, by network and by layer."""
    names = ("useful", *LOST)
    heads = " | ".join(name.replace("_", " ") + ", %" for name in names)
    rule = "| --- |" + " --- |" * (len(names) + 1)

    def row(use: ArrayUse, whole: int) -> str:
        return (f"| {use.name} | {100 * use.cycles / whole:.1f} | "
                + " | ".join(f"{100 * use.share(name):.1f}" for name in names) + " |")

    lines = ["", "## Where the array's products go (fastest designs)",
             "",
             "All products that the array could have made in the cycles of the layers it works "
             "on: useful ones, and those lost to channels that fill no word of `tm` or `tn`, to "
             "columns of a row that fill no group, to fill and drain of operations, and to waiting "
             "(every stall, first and last tile included). The parts sum to 100 %. Of a sampler, "
             "one step and the picture's layers.", "",
             f"| network | % of these cycles | {heads} |", rule]
    lines += [row(total(point.uses, point.workload), total(point.uses).cycles)
              for point in points]
    lines += ["", "Goal for layers bound by the array: 95 % useful.", ""]
    for point in points:
        good = tuple(use for use in point.uses if use.share("useful") >= GOAL)
        part = total(good).useful / total(point.uses).useful
        lines.append(f"- {point.workload}: {len(good)} of {len(point.uses)} layers reach it, with "
                     f"{100 * part:.1f} % of the products.")
    for point in points:
        whole = total(point.uses).cycles
        shown = [use for use in point.uses if use.cycles >= LEAST_LAYER * whole]
        rest = tuple(use for use in point.uses if use not in shown)
        lines += ["", f"### {point.workload}: {shape(point.latency_best)}", "",
                  f"| layer | % of these cycles | {heads} |", rule]
        lines += [row(use, whole) for use in shown]
        if rest:
            lines.append(row(total(rest, f"{len(rest)} others, each under "
                                         f"{100 * LEAST_LAYER:g} %"), whole))
    return lines


def _phases(points: Sequence[Point]) -> list[str]:
    """Why nearest x2 with 3 x 3 does not run as four 2 x 2 convolutions."""
    lines = ["", "## Not built: nearest x2 with 3 x 3 as four 2 x 2 convolutions", "",
             "It takes 4 products for 9, but is exact with int8 weights only where sums of 2 and "
             "of 4 weights are int8. They are not. A sum of 10 bits does not pack two products a "
             "DSP, so 4 products at half the rate against 9 would save a ninth of these layers' "
             "time for a second form of the array; sums requantized to int8 would be another "
             "network.", "",
             "| network | layers | largest sum | sums beyond int8, % | channels with one, % |",
             "| --- | --- | --- | --- | --- |"]
    for point in points:
        found = phase_sums(inputs.workload(point.workload))
        if found:
            beyond = [100 * item.sums_beyond for item in found]
            lines.append(
                f"| {point.workload} | {len(found)} | {max(item.largest for item in found)} | "
                f"{min(beyond):.1f} to {max(beyond):.1f} | at least "
                f"{100 * min(item.channels_beyond for item in found):.1f} |")
    return lines


def _ablation_table(title: str, found: Ablation) -> list[str]:
    lines = ["", f"## What each device buys: {title}", "",
             "Left: the design less this one device. Right: none of them, then one more a row.", "",
             "| device | without it: ms | uJ a pixel | with all up to it: ms | uJ a pixel |",
             "| --- | --- | --- | --- | --- |",
             f"| none of them | | | {_cells(found.cumulative[0])} |"]
    for alone, sum_up in zip(found.without, found.cumulative[1:], strict=True):
        left = _cells(alone) if alone.used else "not in the design | "
        lines.append(f"| {alone.device} | {left} | {_cells(sum_up)} |")
    return lines


def _cells(row: Step) -> str:
    found = row.evaluation
    if found is None:
        return f"does not fit ({row.reason.split(' (')[0]}) | "
    energy = f"{found.energy_uj_per_pixel:.2f}" if row.bits == 8 else "not known"
    return f"{found.latency_ms:.1f} | {energy}"
