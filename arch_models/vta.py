"""VTA as data: both array shapes on PYNQ and the fitted timing coefficients, with their sources.

It does not lower, simulate or fit; see `cosim.vta.lower` and `studies.validate.fit_vta`.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from arch_models.fields import Coefficient, FieldError, build, check_keys, nearest
from arch_models.files import read_toml

DATA = Path(__file__).parent / "data" / "vta.toml"
DEFAULT_ARRAY = "1x16"
#: Widest memory that the vendor's tools of that time built in one piece.
BANK_BITS = 1024
#: Coefficients that are means over many bursts and so need not be whole.
MEANS = ("miss_burst_cycles", "miss_wide_burst_cycles")


@dataclass(frozen=True, slots=True)
class VtaArray:
    """One bitstream: a block is `block_batch` images by `block_in` or `block_out` channels.

    Buffers are in bytes. A cycle does block_batch * block_in * block_out int8 MACs. `gemm` and
    `alu` intervals are cycles for each block operation. Command queues hold `queue_depth`
    instructions of `instruction_bytes`.
    """

    name: str
    block_batch: int
    block_in: int
    block_out: int
    micro_op_buffer_bytes: int
    input_buffer_bytes: int
    weight_buffer_bytes: int
    accumulator_buffer_bytes: int
    clock_hz: int
    port_width_bytes: int
    burst_beats: int
    queue_depth: int
    instruction_bytes: int
    micro_op_bytes: int
    gemm_interval_cycles: int
    alu_interval_cycles: int

    @property
    def input_block_bytes(self) -> int:
        """int8 values of one input block."""
        return self.block_batch * self.block_in

    @property
    def weight_block_bytes(self) -> int:
        """int8 values of one weight block."""
        return self.block_in * self.block_out

    @property
    def accumulator_block_bytes(self) -> int:
        """int32 values of one accumulator block; a bias block has the same form."""
        return 4 * self.block_batch * self.block_out

    @property
    def output_block_bytes(self) -> int:
        """int8 values of one output block."""
        return self.block_batch * self.block_out

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates a cycle."""
        return self.block_batch * self.block_in * self.block_out

    @property
    def weight_beat_cycles(self) -> int:
        """Cycles for a 64-bit beat into the weight buffer: one for each bank of a weight block.

        The published build splits a memory into banks of at most 1024 bits (`config/pkg_config.py`
        of apache/tvm-vta, `wgt_mem_banks`). A block of 2048 bits takes a beat every two cycles on
        the board (the public rows of load-bound layers); that the banks are the cause, and so that
        a block of one bank takes a beat a cycle, is inferred.
        """
        return -(-8 * self.weight_block_bytes // BANK_BITS)


@dataclass(frozen=True, slots=True)
class FittedCoefficient:
    """A timing coefficient that was fitted: what it is, how well it is known.

    `low` and `high` bound what is physically plausible; `spread` is the standard deviation that
    the rows leave when all coefficients may move together, in the same unit.
    """

    name: str
    value: float
    unit: str
    meaning: str
    source: str
    samples: int
    fit_error_percent: float
    low: float
    high: float
    spread: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise FieldError(f"vta coefficient {self.name!r}: value {self.value} {self.unit}, "
                             f"must be from {self.low} to {self.high}")


@dataclass(frozen=True, slots=True)
class VtaTiming:
    """The fitted timing of VTA on PYNQ, in fabric cycles and bytes; see `data/vta.toml`."""

    host_cycles: int
    instruction_cycles: int
    gemm_cycles: int
    row_cycles: int
    padded_row_cycles: int
    store_row_cycles: int
    miss_burst_cycles: float
    miss_wide_burst_cycles: float
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two fitted coefficients move together: the rows separate them badly near 1 and -1."""

    first: str
    second: str
    value: float


@dataclass(frozen=True)
class VtaModel:
    """Arrays by name, the timing, and the evidence of every number in the file."""

    arrays: tuple[VtaArray, ...]
    fitted: tuple[FittedCoefficient, ...]
    correlations: tuple[Correlation, ...]
    coefficients: tuple[Coefficient, ...]
    fit_error_percent: float
    cross_validated_error_percent: float

    def array(self, name: str = DEFAULT_ARRAY) -> VtaArray:
        """The array of that name; `FieldError` with the nearest name if there is none."""
        for item in self.arrays:
            if item.name == name:
                return item
        known = [item.name for item in self.arrays]
        raise FieldError(f"there is no VTA array {name!r}; {nearest(name, known)}")

    @property
    def timing(self) -> VtaTiming:
        """The fitted coefficients: whole cycles but for the two means over bursts."""
        values = {item.name: item.value for item in self.fitted}
        return VtaTiming(**{name: value if name in MEANS else round(value)
                            for name, value in values.items()})  # type: ignore[arg-type]


def load_vta(path: str | Path = DATA) -> VtaModel:
    """Read arrays and coefficients.

    Refused with `FieldError`: unknown or missing fields, a value outside its plausible range, and
    a cross-validated error above the one that the file declares as its bound.
    """
    return _load(str(path))


@cache
def _load(path: str) -> VtaModel:
    tables = read_toml(path)
    check_keys(path, tables, ("array", "fit", "coefficient", "correlation"))
    found: list[Coefficient] = []
    arrays = tuple(build(VtaArray, table, f"array[{index}]", found)
                   for index, table in enumerate(tables["array"]))
    fitted = tuple(build(FittedCoefficient, table, f"coefficient[{index}]")
                   for index, table in enumerate(tables["coefficient"]))
    correlations = tuple(build(Correlation, table, f"correlation[{index}]")
                         for index, table in enumerate(tables.get("correlation", ())))
    expected = [item.name for item in fields(VtaTiming)]
    check_keys(path, {item.name: item for item in fitted}, expected)
    missing = set(expected) - {item.name for item in fitted}
    if missing:
        raise FieldError(f"{path}: coefficient {sorted(missing)[0]!r} is missing")
    fit = tables["fit"]
    names = ("median_error_percent", "cross_validated_error_percent", "declared_error_percent")
    check_keys(f"{path}: fit", fit, (*names, "note"))
    values = [float(typing.cast(float, fit[name])) for name in names]
    if values[1] > values[2]:
        raise FieldError(f"{path}: cross_validated_error_percent is {values[1]}, must not exceed "
                         f"declared_error_percent, {values[2]}")
    return VtaModel(arrays, fitted, correlations, tuple(found), values[0], values[1])
