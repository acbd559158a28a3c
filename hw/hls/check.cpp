#include "check.hpp"

#include <cstdint>
#include <cstdio>

#include "depthwise.hpp"
#include "transfer.hpp"
#include "types.hpp"

namespace cosim {
namespace {

char text[160];

bool outside(const char *what, std::int64_t first, std::int64_t count, std::int64_t size) {
    if (first >= 0 && count >= 0 && first + count <= size) {
        return false;
    }
    std::snprintf(text, sizeof text, "%s: words %lld to %lld, buffer has %lld", what,
                  static_cast<long long>(first), static_cast<long long>(first + count),
                  static_cast<long long>(size));
    return true;
}

bool fails(const char *message) {
    std::snprintf(text, sizeof text, "%s", message);
    return true;
}

std::int64_t in_words(std::int64_t planes) { return (planes + IN_LANES - 1) / IN_LANES; }

std::int64_t out_words(std::int64_t planes) { return (planes + OUT_LANES - 1) / OUT_LANES; }

bool tile(std::int64_t in_base, std::int64_t out_base, std::int64_t planes,
          std::int64_t in_positions, std::int64_t out_positions) {
    return outside("INPUT", in_base, in_words(planes) * in_positions, INPUT_SIZE) ||
           outside("OUTPUT", out_base, out_words(planes) * out_positions, OUTPUT_SIZE);
}

bool bad_transfer(const Transfer &item, std::size_t memory_bytes) {
    const std::int64_t planes = item.planes, rows = item.rows;
    std::int64_t low = item.address, high = item.address;
    const std::int64_t plane_span = (planes - 1) * item.plane_stride;
    const std::int64_t row_span = (rows - 1) * item.row_stride;
    (plane_span < 0 ? low : high) += plane_span;
    (row_span < 0 ? low : high) += row_span;
    if (item.address % BEAT_BYTES || item.row_bytes % BEAT_BYTES ||
        item.row_stride % BEAT_BYTES || item.plane_stride % BEAT_BYTES) {
        return fails("transfer: addresses, strides and sizes must be multiples of 8 bytes");
    }
    if (TENSOR_MEMORY && low >= std::int64_t{WINDOW_BEAT} * BEAT_BYTES) {
        if (high + item.row_bytes > std::int64_t{1} << 32) {
            return fails("transfer: reaches beyond the window of the tensor memory");
        }
        return false;
    }
    if (low < 0 || high + item.row_bytes > static_cast<std::int64_t>(memory_bytes)) {
        std::snprintf(text, sizeof text, "transfer: bytes %lld to %lld, memory has %lld",
                      static_cast<long long>(low), static_cast<long long>(high + item.row_bytes),
                      static_cast<long long>(memory_bytes));
        return true;
    }
    return false;
}

bool bad_operand(const Transfer &item, const LoadArguments &place, std::int64_t beats) {
    const bool by_rows = place.order == static_cast<int>(WeightOrder::ROWS);
    const std::int64_t channels = std::int64_t{item.planes} * BEAT_BYTES;
    const std::int64_t outer = by_rows ? beats : channels, inner = by_rows ? channels : beats;
    if (place.order > static_cast<int>(WeightOrder::COLUMNS) || inner > place.positions * TN) {
        return fails("load: unknown order, or more input channels than the block has words for");
    }
    return outside("WEIGHT", place.base, (outer + TM - 1) / TM * place.positions, WEIGHT_SIZE);
}

bool bad_group_sums(const GroupSumsArguments &item) {
    const std::int64_t planes = item.planes;
    if (item.group_channels < 1 || item.all_positions < 1 ||
        item.channels % item.group_channels || item.channels > planes * BEAT_BYTES) {
        return fails("group sums: a block has whole groups, within its planes");
    }
    return outside("INPUT", item.in_base, in_words(planes) * item.positions, INPUT_SIZE) ||
           outside("NORM channels", 0, planes * BEAT_BYTES, NORM_PARAMETERS_SIZE) ||
           outside("NORM_PARAMETERS", item.parameter_base, item.channels, NORM_PARAMETERS_SIZE) ||
           (item.film && (outside("NORM_PARAMETERS", item.gain_base, planes, NORM_PARAMETERS_SIZE) ||
                          outside("NORM_PARAMETERS", item.offset_base, planes, NORM_PARAMETERS_SIZE)));
}

bool bad_group_norm(const GroupNormArguments &item) {
    const std::int64_t planes = item.planes;
    return outside("INPUT", item.in_base,
                   (in_words(planes) - 1) * item.in_positions + item.positions, INPUT_SIZE) ||
           outside("NORM channels", 0, planes * BEAT_BYTES, NORM_PARAMETERS_SIZE) ||
           outside("OUTPUT", item.out_base, out_words(planes) * item.positions, OUTPUT_SIZE);
}

#define COSIM_FITS(name, buffer, size) \
    case Buffer::buffer: \
        return outside(#buffer, place.base, block, size);

bool bad_load(const Command &command, std::size_t memory_bytes) {
    const Transfer item = decode_transfer(command);
    const LoadArguments place = decode_load_arguments(command);
    const std::int64_t beats = item.row_bytes / BEAT_BYTES * std::int64_t{item.rows};
    const std::int64_t block = beats * item.planes;
    if (bad_transfer(item, memory_bytes)) {
        return true;
    }
    const Buffer buffer = static_cast<Buffer>(place.buffer);
    if (item.address / BEAT_BYTES >= WINDOW_BEAT && buffer != Buffer::INPUT &&
        buffer != Buffer::OUTPUT) {
        return fails("load: the tensor memory holds no weights");
    }
    switch (buffer) {
    case Buffer::INPUT:
        return outside("INPUT", place.base,
                       (in_words(item.planes) - 1) * place.positions + beats, INPUT_SIZE);
    case Buffer::OUTPUT:
        return outside("OUTPUT", place.base,
                       (out_words(item.planes) - 1) * place.positions + beats, OUTPUT_SIZE);
    case Buffer::WEIGHT:
        if (place.order != static_cast<int>(WeightOrder::STORED)) {
            return bad_operand(item, place, beats);
        }
        return outside("WEIGHT", place.base,
                       (block * BEAT_BYTES + TM * TN - 1) / (TM * TN), WEIGHT_SIZE);
        COSIM_BEAT_MEMORIES(COSIM_FITS)
    }
    return fails("load: unknown buffer");
}

bool bad_padding(int value) {
    return value != 0 && !ZERO_POINTS && fails("pad_value: this design pads with 0 alone");
}

bool bad_offset(std::int32_t value) {
    return value != 0 && !ZERO_POINTS && fails("offset: this design holds no zero points");
}

bool bad_convolution(const ConvolutionArguments &item, bool narrow) {
    if (bad_padding(item.pad_value)) {
        return true;
    }
    if (narrow && !NARROW_WEIGHTS) {
        return fails("convolution: this design has no narrow weights");
    }
    const std::int64_t kernel = std::int64_t{item.kernel_rows} * item.kernel_columns;
    const std::int64_t out = std::int64_t{item.out_rows} * item.out_columns;
    if (item.pool && (item.out_rows % 2 || item.out_columns % 2 || item.add)) {
        return fails("convolution: a fused pool needs even sizes and no fused addition");
    }
    return outside("INPUT", item.in_base,
                   std::int64_t{item.in_words} * item.in_rows * item.in_columns, INPUT_SIZE) ||
           outside("WEIGHT", item.weight_base,
                   (item.out_words * item.in_words * kernel + narrow) >> narrow, WEIGHT_SIZE) ||
           outside("CONVOLUTION_PARAMETERS", item.parameter_base, std::int64_t{item.out_words} * TM,
                   CONVOLUTION_PARAMETERS_SIZE) ||
           (!(item.first && item.last) &&
            outside("ACCUMULATOR", 0, item.out_words * out, ACCUMULATOR_SIZE)) ||
           (item.last && outside("OUTPUT", item.out_base,
                                 item.out_words * (item.pool ? out / 4 : out), OUTPUT_SIZE));
}

bool bad_depthwise(const DepthwiseArguments &item) {
    if (bad_padding(item.pad_value)) {
        return true;
    }
    const std::int64_t planes = item.planes;
    if (item.stride < 1 || item.kernel_rows < 1 || item.kernel_columns < 1 || item.row_span < 1 ||
        item.column_span < 1) {
        return fails("depthwise: kernel, stride and spans must be at least 1");
    }
    const std::int64_t groups = (item.kernel_columns + DEPTHWISE_TAPS - 1) / DEPTHWISE_TAPS;
    const std::int64_t rows = (item.row_span - 1) / item.stride + 1;
    const std::int64_t columns = (item.column_span - 1) / item.stride + 1;
    return tile(item.in_base, item.out_base, planes, std::int64_t{item.in_rows} * item.in_columns,
                rows * columns) ||
           outside("DEPTHWISE_PARAMETERS", item.parameter_base, planes * BEAT_BYTES,
                   DEPTHWISE_PARAMETERS_SIZE) ||
           outside("DEPTHWISE_WEIGHTS", std::int64_t{item.weight_base} * DEPTHWISE_TAPS,
                   planes * groups * item.kernel_rows * DEPTHWISE_TAPS, DEPTHWISE_WEIGHTS_SIZE);
}

template <class Item> bool bad_pool(const Item &item, int padding) {
    if (item.stride < 1 || item.kernel < 1) {
        return fails("pool: kernel and stride must be at least 1");
    }
    const std::int64_t rows = (item.in_rows + 2 * padding - item.kernel) / item.stride + 1;
    const std::int64_t columns = (item.in_columns + 2 * padding - item.kernel) / item.stride + 1;
    return tile(item.in_base, item.out_base, item.planes,
                std::int64_t{item.in_rows} * item.in_columns, rows * columns);
}

template <class Item> bool bad_beats(const Item &item) {
    return tile(item.in_base, item.out_base, item.planes, item.positions, item.positions);
}

bool bad_grid_sample(const GridSampleArguments &item) {
    return tile(item.in_base, item.out_base, item.planes,
                std::int64_t{item.in_rows} * item.in_columns, item.positions) ||
           outside("INPUT", item.grid_base, item.positions, INPUT_SIZE);
}

bool bad_vector(const Command &command, Opcode opcode) {
    if (opcode == Opcode::ADD) {
        const AddArguments item = decode_add_arguments(command);
        return bad_offset(item.offset) || bad_beats(item) ||
               outside("INPUT", item.other_base, in_words(item.planes) * item.positions,
                       INPUT_SIZE);
    }
    if (opcode == Opcode::MULTIPLY) {
        const MultiplyArguments item = decode_multiply_arguments(command);
        const std::int64_t words = in_words(item.broadcast ? 1 : item.planes);
        return bad_offset(item.offset | item.zero_in | item.zero_other) || bad_beats(item) ||
               outside("INPUT", item.other_base, words * item.positions, INPUT_SIZE);
    }
    if (opcode == Opcode::AFFINE) {
        const AffineArguments item = decode_affine_arguments(command);
        return bad_beats(item) || outside("VECTOR_PARAMETERS", item.parameter_base,
                                          item.planes * BEAT_BYTES, VECTOR_PARAMETERS_SIZE);
    }
    if (opcode == Opcode::LOOKUP) {
        const LookupArguments item = decode_lookup_arguments(command);
        return bad_beats(item) || outside("TABLE", item.table_base, 32, TABLE_SIZE);
    }
    if (opcode == Opcode::SOFTMAX) {
        const SoftmaxArguments item = decode_softmax_arguments(command);
        const std::int64_t planes = (item.channels + BEAT_BYTES - 1) / BEAT_BYTES;
        return tile(item.in_base, item.out_base, planes, item.positions, item.positions) ||
               outside("TABLE", item.table_base, 64, TABLE_SIZE);
    }
    const FlowSumArguments item = decode_flow_sum_arguments(command);
    if (item.columns < 1) {
        return fails("flow sum: columns must be at least 1");
    }
    const std::int64_t planes = (item.channels + BEAT_BYTES - 1) / BEAT_BYTES;
    return outside("INPUT", item.in_base, in_words(planes) * item.positions, INPUT_SIZE) ||
           outside("OUTPUT", item.out_base, item.positions, OUTPUT_SIZE) ||
           outside("VECTOR_PARAMETERS", item.parameter_base, item.channels, VECTOR_PARAMETERS_SIZE);
}

bool breaks(const Command &command, std::size_t memory_bytes) {
    const Opcode opcode = static_cast<Opcode>(decode_header(command).opcode);
    switch (opcode) {
    case Opcode::LOAD:
        return bad_load(command, memory_bytes);
    case Opcode::STORE: {
        const Transfer item = decode_transfer(command);
        const StoreArguments place = decode_store_arguments(command);
        return bad_transfer(item, memory_bytes) ||
               outside("OUTPUT", place.base,
                       (out_words(item.planes) - 1) * place.positions +
                           item.row_bytes / BEAT_BYTES * std::int64_t{item.rows},
                       OUTPUT_SIZE);
    }
    case Opcode::CONVOLUTION:
    case Opcode::NARROW_CONVOLUTION:
        return bad_convolution(decode_convolution_arguments(command),
                               opcode == Opcode::NARROW_CONVOLUTION);
    case Opcode::AVERAGE_POOL:
        return bad_pool(decode_average_pool_arguments(command), 0);
    case Opcode::MAX_POOL:
        return bad_pool(decode_max_pool_arguments(command),
                        decode_max_pool_arguments(command).padding);
    case Opcode::UPSAMPLE: {
        const UpsampleArguments item = decode_upsample_arguments(command);
        const std::int64_t positions = std::int64_t{item.in_rows} * item.in_columns;
        return tile(item.in_base, item.out_base, item.planes, positions, positions * 4);
    }
    case Opcode::GRID_SAMPLE:
        return bad_grid_sample(decode_grid_sample_arguments(command));
    case Opcode::HOST:
    case Opcode::FETCH:
        return false;
    case Opcode::GROUP_SUMS:
        return bad_group_sums(decode_group_sums_arguments(command));
    case Opcode::GROUP_NORM:
        return bad_group_norm(decode_group_norm_arguments(command));
    case Opcode::DEPTHWISE:
        return bad_depthwise(decode_depthwise_arguments(command));
    case Opcode::OTHER:
        return fails("opcode: timed only, not emitted");
    default:
        return bad_vector(command, opcode);
    }
}

} // namespace

const char *broken_rule(const Command &command, std::size_t memory_bytes) {
    text[0] = '\0';
    breaks(command, memory_bytes);
    return text;
}

} // namespace cosim
