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


@dataclass(frozen=True, slots=True)
class FittedCoefficient:
    """A timing coefficient that was fitted: what it is, how well it is known.

    `low` and `high` bound what is physically plausible; `spread` is half the range of the values
    that the folds of the cross-validation found, in the same unit.
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
    row_cycles: int
    miss_burst_cycles: int
    weight_beat_cycles: int
    cache_bytes: int


@dataclass(frozen=True)
class VtaModel:
    """Arrays by name, the timing, and the evidence of every number in the file."""

    arrays: tuple[VtaArray, ...]
    fitted: tuple[FittedCoefficient, ...]
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
        """The fitted coefficients as whole cycles."""
        values = {item.name: round(item.value) for item in self.fitted}
        return VtaTiming(**values)


def load_vta(path: str | Path = DATA) -> VtaModel:
    """Read arrays and coefficients.

    Refused with `FieldError`: unknown or missing fields, a value outside its plausible range, and
    a cross-validated error above the one that the file declares as its bound.
    """
    return _load(str(path))


@cache
def _load(path: str) -> VtaModel:
    tables = read_toml(path)
    check_keys(path, tables, ("array", "fit", "coefficient"))
    found: list[Coefficient] = []
    arrays = tuple(build(VtaArray, table, f"array[{index}]", found)
                   for index, table in enumerate(tables["array"]))
    fitted = tuple(build(FittedCoefficient, table, f"coefficient[{index}]")
                   for index, table in enumerate(tables["coefficient"]))
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
    return VtaModel(arrays, fitted, tuple(found), values[0], values[1])
