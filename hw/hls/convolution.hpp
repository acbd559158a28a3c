// The convolution engine: COLUMNS x TM x TN products a trip, output stationary, with fused
// requantization, ReLU, skip addition and 2x2 average pool behind it and nearest x2 before it.
// It moves nothing between DRAM and the buffers.
//
// Sums over TN are written one product after the other and not to be balanced, so that a scheduler
// can map them to the cascade of the DSP48s, as the RTL does. What the vendor's scheduler makes of
// it, and at what clock, is unchecked.
#ifndef COSIM_CONVOLUTION_HPP
#define COSIM_CONVOLUTION_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace cosim {

// Positions of a group under a pool: whole 2x2 squares, so an odd number of columns goes twice.
constexpr int POOL_SPAN = COLUMNS % 2 ? 2 * COLUMNS : COLUMNS;

// The packed form of a product costs the C simulation time and changes no value, so it is on where
// it makes hardware; -DCOSIM_PACK_PRODUCTS=1 runs it anywhere.
#ifndef COSIM_PACK_PRODUCTS
#define COSIM_PACK_PRODUCTS (COSIM_PRAGMAS == 1)
#endif

struct AccumulatorWord {
    std::int32_t lane[TM];
};

// Packed products as in the RTL (hw/rtl/engines/array.py): a multiplier of 25 x 18 bits holds weights of two
// output channels HIGH bits apart, and CHAIN of them are added down a cascade before the sums are
// split. low + 128 makes every operand fit; what the cascade begins with takes it back, and one
// more, so that the sum of low is the signed value of the lowest HIGH bits. Exact for all int8.
constexpr int HIGH = 17;
constexpr int CHAIN = 4;

inline void multiply_chain(const std::int8_t *low, const std::int8_t *high,
                           const std::int8_t *pixel, std::int32_t &low_sum,
                           std::int32_t &high_sum) {
    COSIM_INLINE
    COSIM_NO_BALANCE
    std::int32_t pixels = 0;
    for (int n = 0; n < CHAIN; ++n) {
        COSIM_UNROLL
        pixels += pixel[n];
    }
    std::int64_t sum = -1 - 128 * pixels;
    for (int n = 0; n < CHAIN; ++n) {
        COSIM_UNROLL
        sum += (std::int64_t{high[n]} * (1 << HIGH) + low[n] + 128) * pixel[n];
    }
    const std::int64_t upper = (sum + (1 << (HIGH - 1))) >> HIGH;
    low_sum += static_cast<std::int32_t>(sum - upper * (1 << HIGH)) + 1;
    high_sum += static_cast<std::int32_t>(upper);
}

// One trip of one column: sum[m] += weights[m][n] * pixel[n].
inline void multiply_accumulate(std::int32_t sum[TM], const WeightWord &weights,
                                const InputWord &pixel) {
    COSIM_INLINE
    COSIM_NO_BALANCE
    if (COSIM_PACK_PRODUCTS && DSP_PACKING) {
        for (int m = 0; m < TM; m += 2) {
            COSIM_UNROLL
            for (int n = 0; n < TN; n += CHAIN) {
                COSIM_UNROLL
                multiply_chain(&weights.lane[m * TN + n], &weights.lane[(m + 1) * TN + n],
                               &pixel.lane[n], sum[m], sum[m + 1]);
            }
        }
        return;
    }
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

// Half of a word of narrow weights as a word: byte m * TN + n holds output channel m in its low bits
// and m + TM / 2 in its high bits.
inline void unpack(const WeightWord &held, int half, WeightWord &weights) {
    COSIM_INLINE
    constexpr int lanes = TM / 2 * TN;
    for (int lane = 0; lane < lanes; ++lane) {
        COSIM_UNROLL
        const std::int32_t both = half ? held.lane[lanes + lane] : held.lane[lane];
        weights.lane[lane] = static_cast<std::int8_t>(((both & 15) ^ 8) - 8);
        weights.lane[lanes + lane] = static_cast<std::int8_t>((((both >> 4) & 15) ^ 8) - 8);
    }
}

// All trips of COLUMNS output positions from (row, column) on and one block of TM channels. The
// columns share the weights of a trip, and each reads its own copy of INPUT. Outside of it lies
// the padding: 0, or with ZERO_POINTS the operation's own value.
inline void reduce(const ConvolutionArguments &item, bool narrow, int out_word, int row, int column,
                   const InputWord input[COLUMNS][INPUT_SIZE],
                   const WeightWord weight[WEIGHT_SIZE], std::int32_t sum[COLUMNS][TM]) {
    COSIM_INLINE
    const int virtual_rows = item.in_rows << item.upsample;
    const int virtual_columns = item.in_columns << item.upsample;
    const int positions = item.in_rows * item.in_columns;
    const int kernel = item.kernel_rows * item.kernel_columns;
    InputWord padding;
    for (int n = 0; n < TN; ++n) {
        COSIM_UNROLL
        padding.lane[n] = static_cast<std::int8_t>(ZERO_POINTS ? item.pad_value : 0);
    }
    for (int in_word = 0; in_word < item.in_words; ++in_word) {
        int word = (out_word * item.in_words + in_word) * kernel;
        for (int kernel_row = 0; kernel_row < item.kernel_rows; ++kernel_row) {
            const int y = row * item.stride + kernel_row - item.pad_top;
            for (int kernel_column = 0; kernel_column < item.kernel_columns; ++kernel_column) {
                COSIM_PIPELINE
                const WeightWord &held = weight[item.weight_base + (narrow ? word >> 1 : word)];
                WeightWord unpacked;
                if (narrow) {
                    unpack(held, word & 1, unpacked);
                }
                const WeightWord &weights = narrow ? unpacked : held;
                for (int lane = 0; lane < COLUMNS; ++lane) {
                    COSIM_UNROLL
                    const int x = (column + lane) * item.stride + kernel_column - item.pad_left;
                    const bool inside =
                        y >= 0 && y < virtual_rows && x >= 0 && x < virtual_columns;
                    if (inside) {
                        const int place =
                            (y >> item.upsample) * item.in_columns + (x >> item.upsample);
                        multiply_accumulate(sum[lane], weights,
                                            input[lane][item.in_base + in_word * positions + place]);
                    } else if (ZERO_POINTS) {
                        multiply_accumulate(sum[lane], weights, padding);
                    }
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
// `two_a_byte`: its weights are narrow, which a design with NARROW_WEIGHTS alone can unpack.
inline void convolution(const ConvolutionArguments &item, bool two_a_byte,
                        const InputWord input[COLUMNS][INPUT_SIZE],
                        const WeightWord weight[WEIGHT_SIZE],
                        const Beat parameters[CONVOLUTION_PARAMETERS_SIZE],
                        AccumulatorWord accumulator[ACCUMULATOR_SIZE],
                        const OutputWord skip[OUTPUT_SIZE], OutputWord output[OUTPUT_SIZE]) {
    const bool narrow = NARROW_WEIGHTS && two_a_byte;
    const int positions = item.out_rows * item.out_columns;
    const int rows = item.out_rows >> item.pool;
    const int columns = item.out_columns >> item.pool;
    const int span = item.pool ? POOL_SPAN : COLUMNS;
    for (int out_word = 0; out_word < item.out_words; ++out_word) {
        Parameter parameter[TM];
        COSIM_PARTITION(parameter)
        for (int m = 0; m < TM; ++m) {
            COSIM_PIPELINE
            parameter[m] = parameter_of(parameters[item.parameter_base + out_word * TM + m]);
        }
        for (int row = 0; row < rows; ++row) {
            for (int group = 0; group < item.out_columns; group += span) {
                std::int32_t pooled[POOL_SPAN][TM];
                COSIM_PARTITION(pooled)
                for (int visit = 0; visit < (span / COLUMNS) << item.pool; ++visit) {
                    // Under a pool: two rows, and in each the columns of the group.
                    const int y = (row << item.pool) + visit / (span / COLUMNS);
                    const int begin = group + visit % (span / COLUMNS) * COLUMNS;
                    if (begin >= item.out_columns) {
                        continue;
                    }
                    std::int32_t sum[COLUMNS][TM];
                    COSIM_PARTITION(sum)
                    for (int lane = 0; lane < COLUMNS; ++lane) {
                        COSIM_UNROLL
                        const bool real = begin + lane < item.out_columns;
                        const int partial =
                            out_word * positions + y * item.out_columns + begin + lane;
                        for (int m = 0; m < TM; ++m) {
                            COSIM_UNROLL
                            sum[lane][m] = item.first ? parameter[m].offset
                                           : real     ? accumulator[partial].lane[m]
                                                      : 0;
                        }
                    }
                    reduce(item, narrow, out_word, y, begin, input, weight, sum);
                    for (int lane = 0; lane < COLUMNS; ++lane) {
                        COSIM_UNROLL
                        const int x = begin + lane;
                        if (x >= item.out_columns) {
                            continue;
                        }
                        if (!item.last) {
                            const int partial = out_word * positions + y * item.out_columns + x;
                            for (int m = 0; m < TM; ++m) {
                                COSIM_UNROLL
                                accumulator[partial].lane[m] = sum[lane][m];
                            }
                            continue;
                        }
                        const int place = item.out_base + (out_word * rows + row) * columns +
                                          (x >> item.pool);
                        const OutputWord value = finish(item, sum[lane], parameter, skip[place]);
                        const int square = (x - group) >> item.pool;
                        const bool starts = !item.pool || ((y & 1) == 0 && (x & 1) == 0);
                        const bool ends = !item.pool || ((y & 1) == 1 && (x & 1) == 1);
                        for (int m = 0; m < TM; ++m) {
                            COSIM_UNROLL
                            pooled[square][m] = value.lane[m] + (starts ? 0 : pooled[square][m]);
                        }
                        if (ends) {
                            for (int m = 0; m < TM; ++m) {
                                COSIM_UNROLL
                                const std::int64_t whole = pooled[square][m];
                                output[place].lane[m] = static_cast<std::int8_t>(
                                    item.pool ? round_shift(whole, 2) : whole);
                            }
                        }
                    }
                }
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_CONVOLUTION_HPP
