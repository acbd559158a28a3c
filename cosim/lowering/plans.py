"""What the row kernels are told about one layer, as named integers.

It holds values only: `jobs` fills them in, `kernels` turns them into rows.
"""

from __future__ import annotations

from typing import NamedTuple


class Area(NamedTuple):
    """A tensor in DRAM: planes of rows x columns positions of `position_bytes`."""

    address: int
    planes: int
    rows: int
    columns: int
    position_bytes: int


class Common(NamedTuple):
    """What every operation of a layer shares."""

    layer: int
    engine: int
    lanes_in: int
    lanes_out: int
    input_words: int
    input_banks: int
    output_words: int
    output_banks: int
    fill: int
    interval: int
    drain: int
    input_share: int
    output_share: int


class ConvolutionPlan(NamedTuple):
    """One convolution with what it absorbs. Tiles in words, convolution rows and columns.

    `group_out`, `group_in`: channels of a group, 0 without groups; then `in_words` are those of
    one output word, and a tile has one. A matmul (`order` not STORED) loads its weights from the
    activation at `weight_address`.
    """

    tm: int
    unroll: int
    result_cycles: int
    out_channels: int
    conv_rows: int
    conv_columns: int
    in_words: int
    out_words: int
    tile_out_words: int
    tile_in_words: int
    tile_rows: int
    tile_columns: int
    resident: int
    weights_outer: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    upsample: int
    relu: int
    pool: int
    add: int
    add_new: int
    add_skip: int
    add_shift: int
    weight_address: int
    weight_word_bytes: int
    weight_words: int
    weight_banks: int
    weight_bank: int
    weight_unit: int
    weight_filled: int
    weight_free: int
    parameter_address: int
    parameter_bytes: int
    parameter_base: int
    skip_filled: int
    group_out: int
    group_in: int
    order: int
    operand_planes: int
    operand_positions: int


class StreamPlan(NamedTuple):
    """A layer that streams tiles: `operands` one or two, `units` groups of positions.

    `by_position`: a trip is a position, else a beat. `pass_columns` etc. fill the arguments.
    """

    opcode: int
    operands: int
    broadcast: int
    planes: int
    out_planes: int
    units: int
    unit_in: int
    unit_out: int
    tile_planes: int
    tile_units: int
    by_position: int
    in_rows_per_unit: int
    in_columns: int
    out_columns: int
    channels: int
    parameter_unit: int
    parameter_filled: int
    parameter_free: int
    parameter_address: int
    parameter_bytes: int
    parameter_buffer: int
    parameter_base: int
    first: int
    second: int
    third: int


class GridPlan(NamedTuple):
    """A grid sampling: source planes and grids that share a bank, positions in chunks."""

    grids: int
    positions: int
    tile_planes: int
    tile_grids: int
    chunk: int
    sub_chunk: int
    interval_base: int
    interval_per_plane: int
    fraction_bits: int


class NormPlan(NamedTuple):
    """A group norm: blocks of whole groups, positions in chunks, each stored in parts.

    `constant_bytes`: epsilon, film and one entry a channel. `film`: bytes of each modulating
    tensor, 0 if there is none.
    """

    planes: int
    channels: int
    group_channels: int
    positions: int
    tile_planes: int
    chunk: int
    part: int
    relu: int
    sums_fill: int
    sums_interval: int
    sums_drain: int
    group_cycles: int
    channel_cycles: int
    parameter_unit: int
    parameter_filled: int
    parameter_free: int
    constant_address: int
    constant_bytes: int
    gain_address: int
    offset_address: int
    film: int
