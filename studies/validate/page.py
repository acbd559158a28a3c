"""Writes docs/validation.md: what every public check of the models found, with its sources.

It computes no prediction of its own; run `cosim validate page`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from arch_models.board import load_board
from arch_models.engines import Resources
from arch_models.overlay import load_overlay
from arch_models.vta import VtaModel, load_vta
from hw.rtl_sim.timed import TimedBench
from studies.evaluation.inputs import MEMORY_MODELS
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_text
from studies.plain.markdown import markdown_table
from studies.plain.truth import CARRIED, truth_path
from studies.resources.fit_resources import fit, modelled
from studies.resources.resource_grid import PARTS, Sites, read_grid
from studies.validate import memory as validate_memory
from studies.validate import overlap as validate_overlap
from studies.validate import vta as validate_vta
from studies.validate import vta_report
from studies.validate.clock import clock_lines
from studies.validate.described import fpga2015, nvdla, nvdla_small, pipecnn
from studies.validate.dram_commands import check_commands, told
from studies.validate.energy import energy_lines
from studies.validate.ladder import deviation_lines, tier_lines
from studies.validate.rtl import compare_frame, compare_programs, compare_tiles
from studies.validate.streams import page_lines
from studies.validate.vta import REGIMES, Report, summary
from workloads.library import load

PAGE = Path("docs/validation.md")
PICTURE = "validation_vta.png"
BLIND = CARRIED / "blind.csv"
RTL_NETWORKS = CARRIED / "rtl_networks.csv"
ABSENT = "The table {} is absent here, so its rows were not checked."

HEAD = """# Validation

Written by `cosim validate page`; do not edit. *Predicted* is a simulation of ours, *measured* is
what others published. Errors are predicted over measured, less one. Each check can be run alone:
`cosim validate vta-pynq`, `overlap`, `fpga2015`, `pipecnn`, `nvdla`, `nvdla-small`, `memory`,
`streams`, `energy`, `clock`, `rtl`.
"""

BLIND_READING = """
## Blind, by others

Everything below this section is public (tiers 1 to 4): its rows were there to fit and to choose the
models by. This table is not: others held the models against what the authors had not seen. It is of
the models before their last terms (VTA's waits for edges, stores and misses; serial phases and copy
loops of described designs); nobody has repeated it since, so what those terms are worth blind is
unchecked.
"""

VTA_SOURCES = """
Sources: times of 2019, tuning records that the TVM project published (carried, `studies/data`);
times, bus counters (AXI performance monitor) and accepted schedules of 2022, public records of
another laboratory (not carried; looked for in `../shared/truth`). The structure (loop order,
tokens, micro-ops, DMA patterns, intervals) is that of the published sources of TVM and VTA.
"""

BYTES_READING = """
Where the load bytes agree and the instruction or micro-op bytes do not, the schedule of the table
is one of several that load the same bytes: for the three rows examined (lines 140, 149 and 158)
another buildable schedule gives every counter exactly. Bias and store counters that differ are
too low, some by a few beats, some by large parts: they lost counts. ALU passes of a chain were
inferred from the micro-op counters (`studies/validate/vta_rows.py`).
"""

COEFFICIENTS = """Nine, fitted to the timed rows of 2019 and 2022 together (`cosim study fit-vta`).
*Spread* is the standard deviation when all coefficients may move together. The rows say little of
two: what the hardware's source leads one to expect of them (6 +- 3 and 35 +- 12 cycles) was given
to the fit. The terms are read from the hardware's published source and were chosen with these rows
in view, so leaving networks out judges the numbers and not the form. The two campaigns differ by
about 1 % on the same schedule, which no coefficient can mend: it is the floor. No row of the 4x8
array was there to fit or to test; that its weight buffer, of one bank, takes a beat a cycle is
inferred. No public row is bound by loads of an input above the cache's size.
"""

OVERLAP_READING = """
The figure names no schedules. *Rule* takes, as the public scheduler of that year did, the
schedule that moves the fewest bytes; *nearest* takes the one whose predicted time is nearest to
the measured one, so it only shows whether any schedule explains both times. No coefficient was
refitted, the host overhead included. **The aim of 5 % for each layer is not met**: {rule} of
{count} layers by the rule, {nearest} of {count} by the nearest schedule. Layers C8 and C11 ran
faster on the board of 2018 than the same layers ran on the board of 2019 with their best tuned
schedules (0.85 and 0.87 ms against 1.03 and 1.08 ms): that bitstream loads strided rows faster,
which no schedule reproduces. Source: Moreau et al., arXiv 1807.04188, digitised to about 0.1 %.
"""

RTL_READING = """
The command is `cosim validate rtl --design DESIGN --programs N --tiles N --network NAME --memory
MEMORY`: random programs for control and transfers, random tiles through every engine of a design
with data, and the whole narrow AGC inter frame, 256 x 256, whose outputs are compared with the
integer reference as well. The RTL is Amaranth (`hw/rtl`), compiled by Verilator; counters are busy,
idle, memory stall and stall by channel. `tests/hw/test_rtl_*.py` compare other arrays, masters
and small frames.

Where the hardware had a good reason to differ, the model was changed:
1. AXI carries one write response a cycle. The `ddr3` model gave two writes of a port one cycle.
2. `setup_cycles` is at least 10 and `tail_cycles` at least 2: bursts are cut ahead, in stages.
3. Grid sampling reads the grid before its pixels: 3 + 4 a plane cycles a position, not 1 + 4.
4. Results leave the convolution's array over several cycles: a group of output positions takes
   `result_cycles` trips at least (eight by default, so a 3x3 loses nothing), for OUTPUT has one
   write port, and a requantizer takes four DSP48, so one for each of `tm` channels would not fit.
5. A column of unroll has its own accumulator memory; a split reduction counts whole groups of
   columns against `accumulator_words`.

Where the hardware differs and the model was not changed:
1. The queues of the IP hold 64 commands, those of the model any number. An emitted table is in the
   order in which operations start, so that none starts later for it (`hw/interface/plan.py`,
   `late_commands`); but while another unit's queue is full a unit may have no command where the
   model has it wait for a token, and counts idle cycles instead. The whole agc-w16 frame with
   `default`, decoded by the driver through the IP: 35,269,438 cycles in fabric as predicted, and
   of 77 counters two differ, by 89,717 cycles of the weight master.

Not built in RTL, and refused by name: data of other widths than 8 bits, more than two input
masters.
"""
RESOURCE_READING = """
Yosys (`synth_xilinx -family xc7`, flattened) counts the parts that the model sums, over arrays up
to {products} products a cycle, one to four columns, packed or not, one to sixteen requantize
cycles, ports of 32, 64 and 128 bits, one and two masters a role, one to eight engines, and
memories of {shallow} to {deep} words ({rows} runs, `arch_models/data/resource_grid.csv`; to repeat
them, `cosim study resources --synthesize all`). Coefficients are least squares
(`engine_sites.toml`); the errors are those of each row when it is left out of the fit, at worst.
*Exact*: every row. The convolution has `tm * tn * columns` DSP48 for the products (half if packed),
4 a requantizer (2 without the fused addition) and 4 for addresses. `control`: registers,
descriptor feed, tokens, counters; `places`: what lies between masters, memories and engines. Queues
hold 64 commands, as in an emitted design.

With two input masters a bank of INPUT has two writing ports, whose first one also reads. Yosys
takes a true dual port block RAM for it once a write's address is defined while nothing is written
(`opt_expr -mux_undef`, in its script); whether the vendor's tools do is unchecked.
"""
WHOLE_READING = """
Whole designs as one IP, synthesized once and not fitted (`cosim study resources
--whole DESIGN` does so for any design); the first is `default`. Nothing was placed or
routed; clock and timing are unchecked.
"""
RTL_PROGRAMS, RTL_TILES = 300, 180
RTL_DESIGNS, RTL_NETWORK = ("default", "diffusion"), "agc-w16"

def absent_tables() -> tuple[str, ...]:
    """The public tables that are not here, whose rows the page would lack."""
    names = (*validate_vta.TIMED_TABLES, validate_vta.BYTES_TABLE, validate_vta.LEGALITY_TABLE)
    return tuple(name for name in names if truth_path(name) is None)


def write(path: Path = PAGE, fewer: bool = False) -> None:
    """Run every check (a quarter of an hour), write the page and its picture.

    `fewer`: overwrite a page though tables are absent here; `UserError` without it.
    """
    check_writable(path)
    absent = absent_tables()
    if absent and path.exists() and not fewer:
        raise UserError(f"{path} is there, and the page would hold fewer rows: {', '.join(absent)} "
                        f"{'is' if len(absent) == 1 else 'are'} absent here. Name another file "
                        "with --out, or give --fewer.")
    report = validate_vta.validate()
    vta_report.plot(report, path.parent / "pictures" / PICTURE)
    parts = [HEAD, *tier_lines(), *_blind(), *deviation_lines(), *_vta(report, load_vta()),
             *_overlap(), *_described(), *_memory(), *energy_lines(), *clock_lines(),
             *_rtl(), *_resources()]
    write_text(path, re.sub("\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n")


def _blind() -> Iterable[str]:
    yield BLIND_READING
    yield markdown_table(("what", "rows", "found"), [tuple(row.values()) for row in _rows(BLIND)])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rtl() -> Iterable[str]:
    board = load_board("pynq-z1")
    bench = TimedBench()
    runs = [(f"random programs, `{model}`", compare_programs(RTL_PROGRAMS, 0, bench, model=model))
            for model in MEMORY_MODELS]
    for overlay in (load_overlay(name) for name in RTL_DESIGNS):
        runs += [(f"random tiles of `{overlay.name}`, `{model}`",
                  compare_tiles(RTL_TILES, 0, overlay, board, model)) for model in MEMORY_MODELS]
    overlay = load_overlay(RTL_DESIGNS[0])
    runs += [(f"whole {RTL_NETWORK} frame on `{overlay.name}`, `{model}`",
              compare_frame(load(RTL_NETWORK), overlay, board, model=model))
             for model in MEMORY_MODELS]
    yield "\n## RTL: is the model cycle-accurate?\n"
    yield markdown_table(("what", "operations", "cycles", "counters", "bytes", "differing"), [
        (name, *(f"{count:,}" for count in (
            found.operations_compared, found.cycles_compared, found.counters_compared,
            found.bytes_compared, found.operations_differing + found.counters_differing
            + found.bytes_differing)))
        for name, found in runs])
    yield RTL_READING
    yield "Whole networks as emitted, once each (commits in `studies/data/rtl_networks.csv`):\n"
    counts = ("operations", "cycles", "counters", "bytes", "differing")
    yield markdown_table(("network", "design", "memory", *counts, "cycles a second"), [
        (row["network"], f"`{row['design']}`", f"`{row['memory']}`",
         *(f"{int(row[name]):,}" for name in counts), f"{float(row['cycles_per_s']):,.0f}")
        for row in _rows(RTL_NETWORKS)])


def _resources() -> Iterable[str]:
    rows = read_grid()
    buffers = [row for row in rows if row.part == "buffer"]
    yield "\n## RTL: what does it take?"
    yield RESOURCE_READING.format(
        rows=len(rows), products=max(row.overlay.macs_per_cycle for row in rows
                                     if row.part == "convolution"),
        shallow=min(row.depth for row in buffers), deep=max(row.depth for row in buffers))
    shown = []
    for part in PARTS:
        if part == "whole":
            continue
        mine = [row for row in rows if row.part == part]
        cells = []
        for site in ("dsp", "bram36", "lut", "ff"):
            exact = all(getattr(modelled(row), site) == getattr(row, site) for row in mine)
            cells.append("exact" if exact else _missed(mine, part, site))
        shown.append((part, len(mine), *cells))
    yield markdown_table(("part", "rows", "DSP", "BRAM36", "LUT", "FF"), shown)
    yield WHOLE_READING
    yield markdown_table(("array", "engines", "Yosys", "model"), [
        (f"{row.tm}x{row.tn}", row.engines, _sites(row), _sites(modelled(row)))
        for row in rows if row.part == "whole"])


def _sites(found: Sites | Resources) -> str:
    return (f"{found.dsp} DSP48, {found.bram36:g} BRAM36, {found.lut:,} LUT and {found.ff:,} "
            "flip-flops")


def _missed(rows: Sequence[Sites], part: str, site: str) -> str:
    if part == "buffer" and site == "ff":
        return f"{max(abs(modelled(row).ff - row.ff) for row in rows)} at most"
    if part == "buffer":
        worst = max(abs(getattr(modelled(row), site) - getattr(row, site))
                    / max(1, getattr(row, site)) for row in rows)
        return f"{100 * worst:.1f} %"
    return f"{100 * fit(rows, part, site).cross_validated_error:.1f} %"


def _vta(report: Report, model: VtaModel) -> Iterable[str]:
    yield "## VTA on PYNQ: time, bytes, legality"
    yield VTA_SOURCES
    for name in report.absent:
        yield ABSENT.format(f"`{name}`") + "\n"
    yield f"![predicted against measured](pictures/{PICTURE})\n"
    yield "Absolute error of the predicted time, in per cent:\n"
    rows = []
    for name in (*REGIMES, "all"):
        found = summary(report.errors(None if name == "all" else name))
        if found["rows"]:
            rows.append((name, found["rows"], *(f"{100 * float(found[key] or 0):.2f}" for key in (
                "median_abs_error", "p95_abs_error", "max_abs_error"))))
    yield markdown_table(("regime", "rows", "median", "95th percentile", "maximum"), rows)
    yield (f"Median of the fit {model.fit_error_percent:.2f} %; median with every network "
           "predicted by coefficients fitted to the other two "
           f"{model.cross_validated_error_percent:.2f} % (`cosim study fit-vta`).\n")
    yield "Error by cause:\n"
    yield markdown_table(vta_report.WAIT_HEAD, vta_report.wait_rows(report))
    yield from (line + "\n" if index == 0 else f"- {line.strip()}"
                for index, line in enumerate(vta_report.explanations(report.timed)))
    yield "\n### Bytes and legality\n"
    counted = vta_report.byte_lines(report)
    for line in (*counted, *vta_report.legality_lines(report)):
        yield f"  - {line.strip()}" if line.startswith("  ") else f"- {line}"
    unscheduled = sum("is empty" in item.reason for _, item in report.refused)
    if unscheduled:
        yield (f"- {unscheduled} rows of the bus table name no schedule and cannot be predicted.")
    if counted:
        yield BYTES_READING
    yield "\n### Fitted coefficients\n"
    yield COEFFICIENTS
    yield markdown_table(("coefficient", "value", "unit", "plausible", "spread", "meaning"), [
        (f"`{item.name}`", f"{item.value:g}", item.unit, f"{item.low:g} to {item.high:g}",
         f"{item.spread:g}", item.meaning) for item in model.fitted])
    yield ("Coefficients that move together: " + "; ".join(
        f"`{item.first}` and `{item.second}` {item.value:+.2f}" for item in model.correlations)
        + ".\n")
    yield "### The carried rows\n"
    yield markdown_table(("layer and schedule", "predicted ms", "measured ms", "error %"), [
        (item.row.label, f"{item.predicted_ms:.4f}", f"{item.row.measured_ms:.4f}",
         f"{100 * (item.error or 0):+.2f}") for item in report.timed
        if (CARRIED / item.table).is_file()])


def _overlap() -> Iterable[str]:
    checks = validate_overlap.validate()
    yield "## VTA 2018: what load/compute overlap gains\n"
    yield markdown_table(("layer", "measured ratio", "rule", "error %", "nearest", "error %"), [
        (item.name, f"{item.ratio:.3f}", f"{item.rule.ratio:.3f}",
         f"{100 * item.error(item.rule):+.1f}", f"{item.nearest.ratio:.3f}",
         f"{100 * item.error(item.nearest):+.1f}") for item in checks])
    yield OVERLAP_READING.format(rule=validate_overlap.within(checks, "rule"),
                                 nearest=validate_overlap.within(checks, "nearest"),
                                 count=len(checks))


def _described() -> Iterable[str]:
    """Accelerators of the literature, each with what is stated, recalled and guessed."""
    yield fpga2015.TITLE
    checks = fpga2015.validate()
    yield markdown_table(fpga2015.HEAD, fpga2015.table_rows(checks))
    yield fpga2015.reading(checks)
    yield pipecnn.TITLE
    yield markdown_table(pipecnn.HEAD, pipecnn.table_rows(pipecnn.validate()))
    yield pipecnn.READING
    yield nvdla.TITLE
    yield markdown_table(nvdla.HEAD, nvdla.table_rows(nvdla.validate()))
    yield nvdla.READING
    yield nvdla_small.TITLE
    small = nvdla_small.validate()
    yield markdown_table(nvdla_small.HEAD, nvdla_small.table_rows(small))
    yield nvdla_small.reading(small)


COMMANDS_READING = """
### The DRAM's rules against another simulator

Our RTL's `ddr3` memory runs the rules of the model, so that RTL and model differ in nothing says
nothing about the rules. DRAMsim3, somebody else's controller, was given the same bursts with the
board's registers (`studies/data/dram_commands.csv`, provenance beside it). The clocks fitted to the
vendor's figures are left out here: it knows no such thing.
"""

GROUPED_READING = """
*DDR4* has bank groups, inside which columns, rows and turns of the bus keep further apart. The
KV260's map lets them take turns with every DRAM burst, the ZCU104's gives a row to one group: a
single stream of reads gets two thirds of the peak there, in both simulators (16 bursts of 64 bytes
in flight: 67.8 and 67.8 %; on the KV260 97.1 and 97.0). Streams of 64 and 512 bytes, alone and four
together, 4 and 16 in flight, against DRAMsim3 with the same times:
"""

MEASURED_READING = """
*Measured* on boards: the best throughput from the fabric that Manev, Vaishnav and Koch found (FPT
2019; their figures are from the abstract, so patterns, clock and bursts in flight are not known
here). Predicted is the best of reads, writes and both in order on three HP ports of 128 bits,
bursts of 128 and 192 bytes, 300 MHz, eight in flight (guesses). The Ultra96 has no bank groups;
the ZCU102 is the ZCU104's DRAM with four groups and the times of its own start code, whose map
gives a row to one group. It is no shipped board.
"""


def _memory() -> Iterable[str]:
    found, absent = validate_memory.checks()
    yield "## The DDR3 memory\n"
    for name in absent:
        yield ABSENT.format(f"`{name}`") + "\n"
    judged = [item for item in found if item.tolerance is not None]
    stated = [item for item in found if item.tolerance is None
              and item.name.startswith("dram_curve")]
    measured = [item for item in found if item.name.endswith("best_throughput")]
    head = ("check", "predicted", "reference", "tolerance", "unit", "holds", "source")
    yield markdown_table(head, [
        (item.name, f"{item.predicted:.2f}", f"{item.reference:.2f}", f"{item.tolerance:g}",
         item.unit, "yes" if item.ok else "**no**", item.source) for item in judged])
    if stated:
        gaps = np.abs([item.predicted - item.reference for item in stated])
        yield (f"{len(stated)} further points are stated without a tolerance: they differ by a "
               f"median of {np.median(gaps):.1f} and at most {gaps.max():.1f} {stated[0].unit} "
               f"({stated[0].source}).\n")
    yield COMMANDS_READING
    yield from (f"- {line.strip()}" if line.startswith("DRAM") else f"  - {line.strip()}"
                for line in told(check_commands()))
    yield GROUPED_READING
    yield markdown_table(("board", "pattern", "rows", "mean absolute error, points of peak"), [
        (board, pattern, len(errors), f"{np.mean(np.abs(errors)):.1f}")
        for (board, pattern), errors in validate_memory.grouped_errors().items()])
    yield MEASURED_READING
    yield markdown_table(("board", "predicted, % of peak", "measured"), [
        (item.name.partition("_")[0], f"{item.predicted:.1f}", f"{item.reference:.1f}")
        for item in measured])
    yield from page_lines()
    yield ""
