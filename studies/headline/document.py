"""What the JSON files of this room hold, as types; `report` fills the headline study's.

It measures and writes nothing. Measures stand by their names, since they differ by answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from studies.evaluation.values import ClockReport
from studies.why.array_use import ArrayUse


@dataclass(frozen=True)
class EfficiencyRow:
    """One device. `uj_per_pixel` is None where no counter could be read.

    `kind`: measured, predicted or published. `power_counted`: what the energy covers.
    """

    device: str
    kind: str
    form: str
    seconds_per_frame: float | None
    uj_per_pixel: float | None
    power_counted: str


EfficiencyRows = Sequence[EfficiencyRow]
#: A row a network and answer: names, and measures by name.
Measures = Mapping[str, str | float]
MeasuredRows = Sequence[Measures]


class Frames(TypedDict):
    """What `cosim decode --json` writes: PSNR in dB of every frame. `clip`, `seed`: of AGC's."""

    network: str
    frames: Sequence[Mapping[str, float]]
    clip: NotRequired[str]
    seed: NotRequired[int]


class Cited(TypedDict):
    """A number of somebody else."""

    value: float
    source: str
    status: str
    power_counted: NotRequired[str]


class LimitsMs(TypedDict):
    """The least milliseconds by each limit."""

    dsp: float
    array: float
    ddr: float
    program: float


class Shares(TypedDict):
    """Limits over the latency, as parts of one."""

    dsp: float
    array: float
    ddr: float


class CandidateFile(TypedDict):
    """A design with its figures, all predicted."""

    clock_mhz: float
    clock: ClockReport
    latency_ms: float
    uj_per_pixel: float
    mj_per_picture: float
    counted_uj_per_pixel: Mapping[str, float]
    counted_limits_uj_per_pixel: Mapping[str, Sequence[float]]
    array_utilization: float
    limits_ms: LimitsMs
    share_of_limit: Shares
    convolution_share: float
    static_share: float
    resources: Mapping[str, float]
    design_file: str


class SlowArm(TypedDict):
    """The latency if the processor is so many times slower than taken."""

    value: float
    times_slower: float


class Reached(TypedDict):
    """The design that takes the least energy by one way to count."""

    uj_per_pixel: float
    reached: bool
    design: CandidateFile


class StepFile(TypedDict):
    """A device left out or added; without figures where nothing fits."""

    device: str
    used: str | bool
    reason: str
    bits: int
    latency_ms: float | None
    uj_per_pixel: float | None


class AblationFile(TypedDict):
    """Each device alone, and one behind the other."""

    without: list[StepFile]
    cumulative: list[StepFile]


class PointFile(TypedDict):
    """One network."""

    workload: str
    designs_evaluated: int
    designs_infeasible: int
    latency_best: CandidateFile
    latency_ms_with_slow_arm: SlowArm
    energy_best: CandidateFile
    critical_path_cycles: Mapping[str, int]
    array_use: Sequence[ArrayUse]
    front: list[CandidateFile]
    power: dict[str, Reached]
    ablation: AblationFile
    ablation_hand_made: AblationFile


class Headline(TypedDict):
    """What `cosim study headline --json` writes."""

    predicted: bool
    board: str
    memory_model: str
    designs: int
    seed: int
    clock_rates: str
    paper_uj_per_pixel: Cited
    regulator_efficiency: Cited
    left_out: Mapping[str, str]
    points: list[PointFile]
