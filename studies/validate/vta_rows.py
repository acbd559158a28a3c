"""Reads tables of convolutions on VTA: layer, schedule, and what was measured of them.

It predicts nothing. Unknown columns are ignored; a missing column is named; a bad row is refused
with its line number while the others go on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arch_models.fields import FieldError, shortened
from arch_models.files import read_text
from arch_models.vta import DEFAULT_ARRAY, VtaArray, VtaModel, load_vta
from cosim.vta.schedule import VtaConvolution, VtaSchedule
from studies.plain.errors import UserError, nearest

#: Sizes of layers are far below; bytes counted at a bus may come near.
MOST_WHOLE = 1 << 32
REQUIRED = ("ic", "ih", "iw", "oc", "kh", "sh", "tile_h", "tile_w", "tile_ci", "tile_co",
            "oc_nthread", "h_nthread")
#: Bytes counted at each bus master, and the name of the same in `vta_instructions.bus_bytes`.
COUNTERS = {"fetch_read_B": "fetch", "load_read_B": "load", "uop_read_B": "micro_op",
            "bias_read_B": "bias", "store_write_B": "store"}
#: ALU passes that each chain of operators takes: those of a convolution (shift, clip from both
#: sides) and those after it. Inferred from the micro-op counters, one micro-op a pass and thread.
CHAIN_PASSES = {"conv": 3, "conv+?": 4, "conv+bn": 4, "conv+bn+relu": 4, "conv+relu": 5}
#: The counters of these sets show one ALU pass more than the chain names.
EXTRA_PASS_SETS = ("conv_165_pytorch",)


@dataclass(frozen=True)
class VtaRow:
    """One row. `measured_ms`, `counted` (bytes by master) and `accepted` are None where absent.

    `exact`: the table marks the schedule as reproducing the counted load bytes exactly.
    """

    line: int
    array: VtaArray
    layer: VtaConvolution
    schedule: VtaSchedule
    label: str
    measured_ms: float | None = None
    counted: Mapping[str, int] | None = None
    exact: bool = False
    accepted: bool | None = None
    vector_operations: int = 3
    bias: bool = False


@dataclass(frozen=True)
class Refusal:
    """A row that was not taken, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class VtaTable:
    """The rows of a file, and those refused."""

    name: str
    rows: tuple[VtaRow, ...]
    refused: tuple[Refusal, ...]


def read_rows(path: Path, config: str | None = None) -> VtaTable:
    """The rows of a CSV file with the columns of the public tables.

    `config` names the array (`1x16`, `4x8`) and is used for every row; without it a row's own
    `config` column decides, else 1x16. Raises `UserError` if the file cannot be read, has no
    header, or misses a column; `FieldError` if `config` names no array.
    """
    model = load_vta()
    chosen = model.array(array_name(config)) if config is not None else None
    try:
        text = read_text(path)
    except FieldError as error:
        raise UserError(f"{error}.") from None
    reader = csv.DictReader(text.splitlines())
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        close = {name: nearest(name, [c for c in columns if c not in REQUIRED])
                 for name in missing}
        hints = [f"{name} (is it {near!r}?)" if near else name for name, near in close.items()]
        raise UserError(f"{str(path)!r} misses the column{'s' if len(missing) > 1 else ''} "
                        f"{', '.join(hints)}.")
    rows: list[VtaRow] = []
    refused: list[Refusal] = []
    try:
        for record in reader:
            try:
                rows.append(_row(record, reader.line_num, model, chosen))
            except ValueError as error:
                refused.append(Refusal(reader.line_num, shortened(error, 300)))
    except csv.Error as error:
        raise UserError(f"{str(path)!r}, line {reader.line_num}: not CSV: {error}.") from None
    return VtaTable(path.name, tuple(rows), tuple(refused))


def array_name(text: str) -> str:
    """The array that a configuration names, e.g. `pynq_1x16_i8w8a32_15_15_18_17`: `1x16`."""
    found = re.search(r"(?<!\d)(\d+)x(\d+)(?!\d)", text)
    return f"{found[1]}x{found[2]}" if found else text


def _row(record: Mapping[str | None, str | None], line: int, model: VtaModel,
         chosen: VtaArray | None) -> VtaRow:
    cells = {name: (value or "").strip() for name, value in record.items()
             if name is not None and not isinstance(value, list)}
    array = chosen or model.array(array_name(cells.get("config", "") or DEFAULT_ARRAY))
    if cells.get("op", "conv2d") not in ("", "conv2d"):
        raise ValueError(f"op is {cells['op']!r}, must be conv2d")
    if _whole(cells, "groups", 1) != 1:
        raise ValueError(f"groups is {cells['groups']}, must be 1")
    layer = _layer(cells, array)
    schedule = VtaSchedule(
        _whole(cells, "tile_h"), _whole(cells, "tile_w"), _whole(cells, "tile_ci"),
        _whole(cells, "tile_co"), _whole(cells, "oc_nthread"), _whole(cells, "h_nthread"),
        _whole(cells, "tile_b", 1))
    for name, mine in (("oh", layer.out_rows), ("ow", layer.out_columns)):
        if cells.get(name) and _whole(cells, name) != mine:
            raise ValueError(f"{name} is {cells[name]}, the layer gives {mine}")
    counted = {counter: _whole(cells, column, least=0) for column, counter in COUNTERS.items()
               if cells.get(column)}
    chain = cells.get("op_chain", "conv")
    extra = bool(counted) and cells.get("set", "") in EXTRA_PASS_SETS
    return VtaRow(
        line, array, layer, schedule, _label(cells, layer, schedule),
        _milliseconds(cells.get("time_ms", "")), counted or None,
        cells.get("sched_match") == "exact",
        None if not cells.get("errno") else cells["errno"] == "0",
        CHAIN_PASSES.get(chain, 3) + extra if counted else 3, bool(counted))


def _layer(cells: Mapping[str, str], array: VtaArray) -> VtaConvolution:
    kernel_rows = _whole(cells, "kh")
    kernel_columns = _whole(cells, "kw", kernel_rows)
    pads = [(_whole(cells, one, -1, 0), _whole(cells, both, -1, 0), (kernel - 1) // 2)
            for one, both, kernel in (("pt", "pad_h", kernel_rows), ("pl", "pad_w",
                                                                     kernel_columns),
                                      ("pb", "pad_h", kernel_rows), ("pr", "pad_w",
                                                                     kernel_columns))]
    # Without padding columns the layers are those that keep their size.
    top, left, bottom, right = (next(pad for pad in found if pad >= 0) for found in pads)
    stride = _whole(cells, "sh")
    # The compiler pads images and channels to whole blocks.
    return VtaConvolution(
        _up(_whole(cells, "batch", array.block_batch), array.block_batch),
        _up(_whole(cells, "ic"), array.block_in), _whole(cells, "ih"), _whole(cells, "iw"),
        _up(_whole(cells, "oc"), array.block_out), kernel_rows, kernel_columns, stride,
        _whole(cells, "sw", stride), top, left, bottom, right)


def _up(value: int, block: int) -> int:
    return -(-value // block) * block


def _whole(cells: Mapping[str, str], name: str, default: int | None = None,
           least: int = 1) -> int:
    text = cells.get(name, "")
    if not text:
        if default is None:
            raise ValueError(f"{name} is empty, must be a whole number")
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= MOST_WHOLE or value != int(value):
        raise ValueError(f"{name} is {text!r}, must be a whole number of at least {least}, at "
                         f"most {MOST_WHOLE}")
    return int(value)


def _milliseconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ValueError(f"time_ms is {text!r}, must be a positive number")
    return value


def _label(cells: Mapping[str, str], layer: VtaConvolution, schedule: VtaSchedule) -> str:
    name = f"{cells['net']} " if cells.get("net") else ""
    threads = f" oc{schedule.out_threads} h{schedule.row_threads}"
    return (f"{name}{layer.in_channels}x{layer.in_rows}x{layer.in_columns}-{layer.out_channels} "
            f"{layer.kernel_rows}x{layer.kernel_columns}/{layer.stride_rows} tile "
            f"{schedule.tile_rows}x{schedule.tile_columns} ci{schedule.tile_in_blocks} "
            f"co{schedule.tile_out_blocks}{threads}")
