"""The checks as one ladder: what each tier is held against, and where models are known to be off.

It predicts nothing; each deviation's size is asked of the check that finds it. A test holds every
deviation to be one, of the size stated at least, and the page to say so: whoever closes one has
to change this table and the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp, log
from statistics import mean

from studies.energy.check import validate as energy_report
from studies.plain.markdown import markdown_table
from studies.validate import overlap, streams
from studies.validate.clock import public_rows
from studies.validate.described import fpga2015, nvdla, nvdla_small, pipecnn
from studies.validate.dram_commands import check_commands
from studies.validate.memory import best_share, grouped_errors, zynqmp_board


@dataclass(frozen=True)
class Tier:
    """A kind of reference. `says`: what agreement is worth; `commands`: the checks, as words after
    `cosim validate`; `oracles`: the carried files that hold the reference."""

    number: int
    reference: str
    says: str
    commands: tuple[str, ...]
    oracles: tuple[str, ...]


@dataclass(frozen=True)
class Deviation:
    """Where a check finds the models off. `least`: so much at least, in `unit`; `size`: how much
    now; `why`: what is known of the cause."""

    number: int
    tier: int
    what: str
    least: float
    unit: str
    command: str
    why: str
    size: Callable[[], float]

    @property
    def name(self) -> str:
        """As pages and tests call it."""
        return f"D{self.number}"


TIERS = (
    Tier(1, "our own RTL, simulated", "cycles and bytes are those of the hardware that is emitted; "
         "nothing on rules that both share", ("rtl",), ("studies/data/rtl_networks.csv",)),
    Tier(2, "exact counts of others", "the rules themselves, to the cycle",
         ("memory", "fpga2015"), ("studies/data/dram_commands.csv", "studies/data/ddr4_curve.csv",
                                  "studies/data/fpga2015_alexnet.csv")),
    Tier(3, "estimates of makers and their tools", "as good as those are", (
        "memory", "nvdla", "clock"), ("arch_models/data/memory_checks.csv",
                                      "studies/data/nvdla_resnet50.csv",
                                      "arch_models/data/clock_checks.csv",
                                      "studies/data/routed_clocks.csv")),
    Tier(4, "public measurements", "what boards took; the rows were there to fit and to choose by",
         ("vta-pynq", "overlap", "fpga2015", "pipecnn", "nvdla-small", "memory", "streams",
                                                               "energy"),
         ("studies/data/vta_pynq_board_ms_2019.csv", "studies/data/vta_pynq_board_overlap_2018.csv",
          "studies/data/fpga2015_alexnet.csv", "studies/data/pipecnn_alexnet.csv",
          "studies/data/nvdla_small_times.csv", "studies/data/zynqmp_throughput.csv",
          "studies/data/zc702_streams.csv",
          "arch_models/data/zc702_rails.csv")),
    Tier(5, "blind, by others", "what boards took that the authors had not seen; the only tier "
         "that says how far to trust a new row", (), ("studies/data/blind.csv",)),
)
#: Fabric clocks at which the kernels that write saturate their DRAM.
SATURATED_MHZ = 140


def _streams() -> float:
    return min(-100 * item.error for item in streams.validate()
               if item.kernel in streams.WRITERS and item.mhz > SATURATED_MHZ)


def _overlap(way: str) -> float:
    return max(abs(100 * item.error(getattr(item, way))) for item in overlap.validate())


def _pipecnn() -> float:
    return max(abs(100 * item.error) for item in pipecnn.validate())


def _nvdla() -> float:
    return min(abs(100 * item.error) for item in nvdla.validate() if item.stride > 1)


def _nvdla_small() -> float:
    return min(-100 * item.error for item in nvdla_small.validate())


def _fpga2015() -> float:
    return max(abs(item.cycles - item.published_cycles) for item in fpga2015.validate())


def _last_command(grouped: bool) -> float:
    return max(abs(item.end_gap) for item in check_commands()
               if (item.board != "pynq-z1") == grouped)


def _grouped() -> float:
    return max(float(mean(abs(value) for value in errors))
               for errors in grouped_errors().values())


def _order() -> float:
    return sum(not item.equal and item.end_gap == 0 for item in check_commands())


def _rails() -> float:
    return 100 * energy_report().worst_abs_error


def _clock() -> float:
    return 100 * (exp(mean(log(row.ratio) for row in public_rows())) - 1)


DEVIATIONS = (
    Deviation(1, 4, "kernels that read and write saturate the DRAM of a ZC702: predicted too fast",
              10, "%", "streams", "their addresses and the order of their reads and writes are not "
              "known", _streams),
    Deviation(2, 4, "what overlap gains on VTA of 2018, schedules by the rule of that year", 25,
              "%", "overlap", "the figure names no schedules", lambda: _overlap("rule")),
    Deviation(3, 4, "the same with whichever schedule explains most", 20, "%", "overlap",
              "that bitstream loads strided rows faster than the one of 2019",
              lambda: _overlap("nearest")),
    Deviation(4, 4, "PipeCNN on the smaller board", 7, "%", "pipecnn",
              "widths of ports and rates of the DRAM are recalled, latencies guessed", _pipecnn),
    Deviation(5, 3, "strided 1x1 layers of NVDLA: each is off by that", 55, "%", "nvdla",
              "the sheet takes their weights once a position of the stride", _nvdla),
    Deviation(6, 2, "first layer of FPGA 2015", 40, "cycles", "fpga2015",
              "the published count leaves the pipeline's depth out", _fpga2015),
    Deviation(7, 2, "a write burst that meets a refresh: its last command", 28, "DDR clocks",
              "memory", "our controller ends an AXI burst before a refresh that is due",
              lambda: _last_command(grouped=False)),
    Deviation(8, 2, "scenarios that end together, but with commands in another order", 4,
              "scenarios", "memory", "our controller serves an AXI burst whole", _order),
    Deviation(9, 4, "energy a cycle of the worst of nine designs, by the others", 30, "%", "energy",
              "sites alone do not say what data toggle", _rails),
    Deviation(10, 3, "routed clocks of public designs: above ours in the mean", 15, "%", "clock",
              "predictions are not raised by it; the interval holds it", _clock),
    Deviation(11, 4, "NVDLA small on two systems: each network is predicted too fast by that", 25,
              "%", "nvdla-small", "what its driver does and how its interconnect cuts single beats "
              "are not stated", _nvdla_small),
    Deviation(12, 2, "streams on DDR4: the worst pattern's mean distance from DRAMsim3", 10,
              "points of peak", "memory", "our controller serves an AXI burst whole, DRAMsim3 lets "
              "DRAM bursts of other bank groups between; its mixes are faster on DDR3 too",
              _grouped),
    Deviation(13, 2, "scenarios on DDR4: the last command of all", 4, "DDR clocks", "memory",
              "our controller serves an AXI burst whole, opens rows for one direction at a time, "
              "and has no slots of the command bus", lambda: _last_command(grouped=True)),
    Deviation(14, 4, "most throughput of a ZCU102's DRAM: predicted below the measured 75 %", 4,
              "points of peak", "memory", "as D12: no other group's DRAM burst goes between",
              lambda: 75 - best_share(zynqmp_board("zcu102"))),
)

HEAD = """
## The ladder

Five tiers, by what the models are held against. What is carried lies in the repository, with where
it comes from beside it; `tests/studies/test_studies_ladder.py` asks both.
"""
READING = """
## Deviations

Where the models are known to be off. Each is asserted to be a deviation of the size stated at
least: closing one fails a test until this table says so. Blind misses stand above, with their rows.
"""


def tier_lines() -> Iterable[str]:
    """The section of the tiers."""
    yield HEAD
    yield markdown_table(("tier", "held against", "agreement says", "checks", "carried"), [
        (item.number, item.reference, item.says,
         ", ".join(f"`{name}`" for name in item.commands) or "by others",
         ", ".join(f"`{name.rpartition('/')[2]}`" for name in item.oracles)) for item in TIERS])


def deviation_lines() -> Iterable[str]:
    """The section of the deviations."""
    yield READING
    yield markdown_table(("", "tier", "what", "at least", "check", "what is known of why"), [
        (item.name, item.tier, item.what, f"{item.least:g} {item.unit}", f"`{item.command}`",
         item.why) for item in DEVIATIONS])
