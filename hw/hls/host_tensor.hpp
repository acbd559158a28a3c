// Tensors, records and constants of the host layers.
// It computes nothing; see host_operators.hpp and host_attention.hpp.
#ifndef COSIM_HOST_TENSOR_HPP
#define COSIM_HOST_TENSOR_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "arithmetic.hpp"

namespace cosim {

constexpr int RECORD_WORDS = 64;

enum Operator : std::int32_t {
    NOTHING, CONVOLUTION, UPSAMPLE, AVERAGE_POOL, DOWNSAMPLE, MAX_POOL, ADD, MULTIPLY, AFFINE,
    LOOKUP, SOFTMAX, GRID_SAMPLE, CONCAT, DISPLACEMENTS, HEAT_MAPS, SPARSE_FLOW, FLOW_SUM, MATMUL,
    TRANSPOSE, RESHAPE, REQUANTIZE, SAMPLER, GROUP_NORM, ROW, GATHER
};

struct Array {
    std::int32_t offset, count;
};

struct Place {
    std::int32_t address, channels, rows, columns, bits, places, unused[2];
};

// One record of the table, word by word.
struct Record {
    std::int32_t layer, kind, relu, fraction_bits;
    std::int32_t kernel_rows, kernel_columns, stride, padding, groups;
    std::int32_t scale[2], shift;
    Array weights, bias, multiplier, offset, shifts, table, row_axis, column_axis;
    Place input[3], output;
    union {
        std::int32_t epsilon[2]; // of a norm: low word, high word
        std::int32_t zeros[2];   // of a product: what stands for zero in its operands
    };
    std::int32_t pad_value, unused;
};
static_assert(sizeof(Record) == RECORD_WORDS * 4, "a record is 64 words");

// The table of host layers as it was given; offsets count from its start.
const std::int32_t *words(const Array &array);
const std::int8_t *bytes(const Array &array);

// What a sum, a product or a mean adds before its shift; 0 where no zero point is held.
inline std::int64_t offset_of(const Record &layer) {
    return layer.offset.count ? words(layer.offset)[0] : 0;
}

// A tensor with its channels in order, [channel][row][column].
struct Tensor {
    int channels, rows, columns;
    std::vector<std::int32_t> value;

    Tensor(int c, int r, int w)
        : channels(c), rows(r), columns(w), value(static_cast<std::size_t>(c) * r * w) {}

    std::int32_t &at(int channel, int row, int column) {
        return value[(static_cast<std::size_t>(channel) * rows + row) * columns + column];
    }
    std::int32_t at(int channel, int row, int column) const {
        return value[(static_cast<std::size_t>(channel) * rows + row) * columns + column];
    }
    bool inside(int row, int column) const {
        return row >= 0 && row < rows && column >= 0 && column < columns;
    }
};

// To the width of the layer's output.
inline std::int32_t narrowed(const Record &layer, std::int64_t value) {
    return layer.output.bits == 16 ? saturate16(value) : saturate8(value);
}

inline std::int32_t rectified(const Record &layer, std::int32_t value) {
    return layer.relu && value < 0 ? 0 : value;
}

} // namespace cosim

#endif // COSIM_HOST_TENSOR_HPP
