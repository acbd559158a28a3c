"""A convolution and its schedule on VTA, and which schedules the compiler accepts.

It does not write instructions and times nothing; see `cosim.vta.instructions`.

The rules are those of TVM's VTA back end as published: buffer capacities shared by the virtual
threads, one thread axis, and two-dimensional DMA patterns (`vta/python/vta/transform.py`,
`_get_2d_pattern`).
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.vta import VtaArray


class VtaScheduleError(ValueError):
    """A layer or schedule has no meaning. The message names the field, the value, the rule."""


@dataclass(frozen=True, slots=True)
class VtaConvolution:
    """A convolution in elements. Padding is given at each side; `groups` must be 1."""

    batch: int
    in_channels: int
    in_rows: int
    in_columns: int
    out_channels: int
    kernel_rows: int
    kernel_columns: int
    stride_rows: int = 1
    stride_columns: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0

    @property
    def out_rows(self) -> int:
        """Output rows."""
        padded = self.in_rows + self.pad_top + self.pad_bottom
        return (padded - self.kernel_rows) // self.stride_rows + 1

    @property
    def out_columns(self) -> int:
        """Output columns."""
        padded = self.in_columns + self.pad_left + self.pad_right
        return (padded - self.kernel_columns) // self.stride_columns + 1

    @property
    def padded(self) -> bool:
        """Is any side padded? Then a load is a padded one, also where no padding falls."""
        return bool(self.pad_top or self.pad_left or self.pad_bottom or self.pad_right)

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return (self.batch * self.out_channels * self.out_rows * self.out_columns
                * self.in_channels * self.kernel_rows * self.kernel_columns)


@dataclass(frozen=True, slots=True)
class VtaSchedule:
    """Inner tile sizes: rows, columns, blocks of input and output channels, blocks of images.

    `out_threads` or `row_threads` = 2 runs two neighbouring tiles as virtual threads.
    """

    tile_rows: int
    tile_columns: int
    tile_in_blocks: int
    tile_out_blocks: int
    out_threads: int = 1
    row_threads: int = 1
    tile_batch_blocks: int = 1

    @property
    def threads(self) -> int:
        """Tiles that share the buffers."""
        return self.out_threads * self.row_threads


@dataclass(frozen=True, slots=True)
class Blocks:
    """A layer in blocks of an array: what the tiles divide."""

    batch: int
    in_blocks: int
    out_blocks: int


def blocks(layer: VtaConvolution, array: VtaArray) -> Blocks:
    """The layer in blocks; `VtaScheduleError` where a block does not divide a dimension."""
    sizes = (("batch", layer.batch, array.block_batch),
             ("in_channels", layer.in_channels, array.block_in),
             ("out_channels", layer.out_channels, array.block_out))
    for name, value, block in sizes:
        if value < 1 or value % block:
            up = max(1, -(-value // block)) * block
            raise VtaScheduleError(f"{name} is {value}, must be a multiple of {block} on the "
                                   f"{array.name} array; nearest: {up}")
    return Blocks(*(value // block for _, value, block in sizes))


def check_layer(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray) -> Blocks:
    """Refuse what has no meaning at all: sizes below one, tiles that do not divide."""
    found = blocks(layer, array)
    if layer.out_rows < 1 or layer.out_columns < 1:
        raise VtaScheduleError(f"output is {layer.out_rows} x {layer.out_columns}, must be at "
                               "least 1 x 1; the kernel is larger than the padded input")
    for name, tile, whole in (
        ("tile_h", schedule.tile_rows, layer.out_rows),
        ("tile_w", schedule.tile_columns, layer.out_columns),
        ("tile_ci", schedule.tile_in_blocks, found.in_blocks),
        ("tile_co", schedule.tile_out_blocks, found.out_blocks),
        ("tile_b", schedule.tile_batch_blocks, found.batch),
    ):
        if tile < 1 or whole % tile:
            legal = [size for size in range(1, whole + 1) if whole % size == 0]
            close = min(legal, key=lambda size: abs(size - tile))
            raise VtaScheduleError(f"{name} is {tile}, must divide {whole}; nearest: {close}")
    for name, threads in (("oc_nthread", schedule.out_threads), ("h_nthread",
                                                                 schedule.row_threads)):
        if threads not in (1, 2):
            raise VtaScheduleError(f"{name} is {threads}, must be 1 or 2")
    return found


def reject_reason(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray) -> str | None:
    """Why the compiler does not build this schedule, or None if it does."""
    try:
        found = check_layer(layer, schedule, array)
    except VtaScheduleError as error:
        return str(error)
    if schedule.out_threads > 1 and schedule.row_threads > 1:
        return "two axes of virtual threads; at most one"
    if (found.out_blocks // schedule.tile_out_blocks) % schedule.out_threads:
        return "oc_nthread does not divide the number of output-channel tiles"
    if (layer.out_rows // schedule.tile_rows) % schedule.row_threads:
        return "h_nthread does not divide the number of row tiles"
    return _capacity_reason(layer, schedule, array) or _pattern_reason(layer, schedule,
                                                                               found)


def patch(layer: VtaConvolution, schedule: VtaSchedule) -> tuple[int, int]:
    """Rows and columns of the input patch of a tile, padding included."""
    rows = (schedule.tile_rows - 1) * layer.stride_rows + layer.kernel_rows
    columns = (schedule.tile_columns - 1) * layer.stride_columns + layer.kernel_columns
    return rows, columns


def _capacity_reason(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray) -> str | None:
    rows, columns = patch(layer, schedule)
    kernel = layer.kernel_rows * layer.kernel_columns
    demands = (
        ("input", rows * columns * schedule.tile_in_blocks * schedule.tile_batch_blocks,
         array.input_buffer_bytes // array.input_block_bytes),
        ("weight", kernel * schedule.tile_in_blocks * schedule.tile_out_blocks,
         array.weight_buffer_bytes // array.weight_block_bytes),
        ("accumulator", schedule.tile_rows * schedule.tile_columns * schedule.tile_out_blocks
         * schedule.tile_batch_blocks,
         array.accumulator_buffer_bytes // array.accumulator_block_bytes),
    )
    for name, demand, capacity in demands:
        if demand * schedule.threads > capacity:
            return (f"{name} tiles need {demand * schedule.threads} blocks, the buffer holds "
                    f"{capacity}")
    return None


def _pattern_reason(layer: VtaConvolution, schedule: VtaSchedule, found: Blocks) -> str | None:
    """Loads and stores are runs with one stride: three strides have no instruction."""
    rows, columns = patch(layer, schedule)
    if layer.padded:
        if schedule.tile_in_blocks > 1 or schedule.tile_batch_blocks > 1:
            return "a padded load holds one input block: tile_ci must be 1"
    elif _dimensions(((schedule.tile_batch_blocks, found.batch),
                      (schedule.tile_in_blocks, found.in_blocks),
                      (rows, layer.in_rows), (columns, layer.in_columns))) > 2:
        return "the input tile is no two-dimensional pattern"
    if _dimensions(((schedule.tile_batch_blocks, found.batch),
                    (schedule.tile_out_blocks, found.out_blocks),
                    (schedule.tile_rows, layer.out_rows),
                    (schedule.tile_columns, layer.out_columns))) > 2:
        return "the output tile is no two-dimensional pattern"
    return None


def _dimensions(parts: tuple[tuple[int, int], ...]) -> int:
    """Strided dimensions left after folding: outer to inner (size in the tile, in the tensor)."""
    count = 1
    whole = parts[-1][0] == parts[-1][1]
    for tile, full in reversed(parts[:-1]):
        if tile > 1:
            count += not whole
            whole = tile == full
        else:
            whole = False if full != 1 else whole
    return count
