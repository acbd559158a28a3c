// The convolution engine: TM x TN multiply-accumulates a trip, output stationary, with fused
// requantization, ReLU, skip addition and 2x2 average pool behind it and nearest x2 before it.
// It moves nothing between DRAM and the buffers.
#ifndef COSIM_CONVOLUTION_HPP
#define COSIM_CONVOLUTION_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace cosim {

struct AccumulatorWord {
    std::int32_t lane[TM];
};

// One trip: sum[m] += weights[m][n] * pixel[n].
inline void multiply_accumulate(std::int32_t sum[TM], const WeightWord &weights,
                                const InputWord &pixel) {
    COSIM_INLINE
    for (int m = 0; m < TM; ++m) {
        COSIM_UNROLL
        std::int32_t dot = 0;
        for (int n = 0; n < TN; ++n) {
            COSIM_UNROLL
            dot += static_cast<std::int16_t>(weights.lane[m * TN + n]) *
                   static_cast<std::int16_t>(pixel.lane[n]);
        }
        sum[m] += dot;
    }
}

// All trips of one output position and one block of TM output channels.
inline void reduce(const ConvolutionArguments &item, int out_word, int row, int column,
                   const InputWord input[INPUT_SIZE], const WeightWord weight[WEIGHT_SIZE],
                   std::int32_t sum[TM]) {
    COSIM_INLINE
    const int virtual_rows = item.in_rows << item.upsample;
    const int virtual_columns = item.in_columns << item.upsample;
    const int positions = item.in_rows * item.in_columns;
    const int kernel = item.kernel_rows * item.kernel_columns;
    for (int in_word = 0; in_word < item.in_words; ++in_word) {
        int word = item.weight_base + (out_word * item.in_words + in_word) * kernel;
        for (int kernel_row = 0; kernel_row < item.kernel_rows; ++kernel_row) {
            const int y = row * item.stride + kernel_row - item.pad_top;
            for (int kernel_column = 0; kernel_column < item.kernel_columns; ++kernel_column) {
                COSIM_PIPELINE
                const int x = column * item.stride + kernel_column - item.pad_left;
                const bool inside = y >= 0 && y < virtual_rows && x >= 0 && x < virtual_columns;
                if (inside) {
                    const int place = (y >> item.upsample) * item.in_columns + (x >> item.upsample);
                    multiply_accumulate(sum, weight[word],
                                        input[item.in_base + in_word * positions + place]);
                }
                ++word;
            }
        }
    }
}

// Requantize, ReLU and skip addition of one output word.
inline OutputWord finish(const ConvolutionArguments &item, const std::int32_t sum[TM],
                         const Parameter parameter[TM], const OutputWord &skip) {
    COSIM_INLINE
    OutputWord result;
    for (int m = 0; m < TM; ++m) {
        COSIM_UNROLL
        std::int32_t value = requantize(sum[m], parameter[m].multiplier, parameter[m].shift);
        if (item.relu && value < 0) {
            value = 0;
        }
        if (item.add) {
            const std::int64_t both =
                static_cast<std::int64_t>(value) * item.add_multiplier_new +
                static_cast<std::int64_t>(skip.lane[m]) * item.add_multiplier_skip;
            value = saturate8(round_shift(both, item.add_shift));
        }
        result.lane[m] = static_cast<std::int8_t>(value);
    }
    return result;
}

// `skip` holds the tile that a fused addition reads, at the place of the result in `output`.
inline void convolution(const ConvolutionArguments &item, const InputWord input[INPUT_SIZE],
                        const WeightWord weight[WEIGHT_SIZE],
                        const Beat parameters[PARAMETER_ENTRIES],
                        AccumulatorWord accumulator[ACCUMULATOR_SIZE],
                        const OutputWord skip[OUTPUT_SIZE], OutputWord output[OUTPUT_SIZE]) {
    const int positions = item.out_rows * item.out_columns;
    const int visits = item.pool ? 4 : 1;
    const int rows = item.out_rows >> item.pool;
    const int columns = item.out_columns >> item.pool;
    for (int out_word = 0; out_word < item.out_words; ++out_word) {
        Parameter parameter[TM];
        COSIM_PARTITION(parameter)
        for (int m = 0; m < TM; ++m) {
            COSIM_PIPELINE
            parameter[m] = parameter_of(parameters[item.parameter_base + out_word * TM + m]);
        }
        for (int row = 0; row < rows; ++row) {
            for (int column = 0; column < columns; ++column) {
                const int place = item.out_base + (out_word * rows + row) * columns + column;
                std::int32_t pooled[TM];
                COSIM_PARTITION(pooled)
                for (int visit = 0; visit < visits; ++visit) {
                    const int y = (row << item.pool) + (visit >> 1);
                    const int x = (column << item.pool) + (visit & 1);
                    const int partial = out_word * positions + y * item.out_columns + x;
                    std::int32_t sum[TM];
                    COSIM_PARTITION(sum)
                    for (int m = 0; m < TM; ++m) {
                        COSIM_UNROLL
                        sum[m] = item.first ? parameter[m].offset : accumulator[partial].lane[m];
                    }
                    reduce(item, out_word, y, x, input, weight, sum);
                    if (!item.last) {
                        for (int m = 0; m < TM; ++m) {
                            COSIM_UNROLL
                            accumulator[partial].lane[m] = sum[m];
                        }
                        continue;
                    }
                    const OutputWord value = finish(item, sum, parameter, skip[place]);
                    for (int m = 0; m < TM; ++m) {
                        COSIM_UNROLL
                        pooled[m] = value.lane[m] + (visit ? pooled[m] : 0);
                    }
                }
                if (item.last) {
                    for (int m = 0; m < TM; ++m) {
                        COSIM_UNROLL
                        const std::int64_t value =
                            item.pool ? round_shift(pooled[m], 2) : pooled[m];
                        output[place].lane[m] = static_cast<std::int8_t>(value);
                    }
                }
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_CONVOLUTION_HPP
