// The depthwise engine: INPUT to OUTPUT, every channel with a kernel of its own.
// It moves no weights; they lie in its memory, DEPTHWISE_TAPS columns of a kernel row a word.
#ifndef COSIM_DEPTHWISE_HPP
#define COSIM_DEPTHWISE_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace cosim {

// Columns of a kernel row that are multiplied in a cycle.
constexpr int DEPTHWISE_TAPS = DEPTHWISE_WEIGHTS_SIZE / DEPTHWISE_PARAMETERS_SIZE;

// A row of outputs goes down the input column by column. Each pixel is multiplied by
// DEPTHWISE_TAPS weights; product j belongs to the output j columns before the pixel's, so sums
// move on by one when a column begins.
inline void depthwise(const DepthwiseArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                      const Beat parameters[DEPTHWISE_PARAMETERS_SIZE],
                      const Beat weights[DEPTHWISE_WEIGHTS_SIZE], OutputWord output[OUTPUT_SIZE]) {
    const int positions = item.in_rows * item.in_columns;
    const int groups = (item.kernel_columns + DEPTHWISE_TAPS - 1) / DEPTHWISE_TAPS;
    const int trips = groups * item.kernel_rows;
    const int out_columns = (item.column_span - 1) / item.stride + 1;
    const int out_rows = (item.row_span - 1) / item.stride + 1;
    Beat padding;
    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
        COSIM_UNROLL
        padding.lane[lane] = static_cast<std::int8_t>(ZERO_POINTS ? item.pad_value : 0);
    }
    for (int plane = 0; plane < item.planes; ++plane) {
        Parameter parameter[BEAT_BYTES];
        COSIM_PARTITION(parameter)
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_PIPELINE
            parameter[lane] =
                parameter_of(parameters[item.parameter_base + plane * BEAT_BYTES + lane]);
        }
        for (int row = 0; row < out_rows; ++row) {
            std::int32_t sum[DEPTHWISE_TAPS][BEAT_BYTES] = {};
            COSIM_PARTITION(sum)
            int written = 0;
            int left = DEPTHWISE_TAPS - 1; // columns before the next output
            for (int column = 0; column < item.column_span + DEPTHWISE_TAPS - 1; ++column) {
                for (int trip = 0; trip < trips; ++trip) {
                    COSIM_PIPELINE
                    const int y = row * item.stride + trip % item.kernel_rows - item.pad_top;
                    const int x = column + trip / item.kernel_rows * DEPTHWISE_TAPS - item.pad_left;
                    const bool inside = y >= 0 && y < item.in_rows && x >= 0 && x < item.in_columns;
                    const Beat pixel =
                        inside ? read_input(input, item.in_base, positions, plane,
                                            y * item.in_columns + x)
                               : padding;
                    const int word = item.weight_base + plane * trips + trip;
                    for (int tap = DEPTHWISE_TAPS - 1; tap >= 0; --tap) {
                        COSIM_UNROLL
                        const Beat weight = weights[word * DEPTHWISE_TAPS + tap];
                        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                            COSIM_UNROLL
                            const std::int32_t before = tap > 0 ? sum[tap - 1][lane] : 0;
                            sum[tap][lane] = (trip == 0 ? before : sum[tap][lane]) +
                                             pixel.lane[lane] * weight.lane[lane];
                        }
                    }
                }
                if (left > 0) {
                    --left;
                    continue;
                }
                left = item.stride - 1;
                Beat result;
                for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                    COSIM_UNROLL
                    const Parameter &entry = parameter[lane];
                    const std::int64_t total =
                        std::int64_t{sum[DEPTHWISE_TAPS - 1][lane]} + entry.offset;
                    const std::int32_t value = requantize(total, entry.multiplier, entry.shift);
                    result.lane[lane] =
                        static_cast<std::int8_t>(item.relu && value < 0 ? 0 : value);
                }
                write_output(output, item.out_base, out_rows * out_columns, plane,
                             row * out_columns + written, result);
                ++written;
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_DEPTHWISE_HPP
