// The pool, upsample and grid_sample engines: INPUT to OUTPUT, with neighbouring positions.
// They read no parameters.
#ifndef COSIM_SPATIAL_HPP
#define COSIM_SPATIAL_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace cosim {

// Sum of the window, divided by its size, a power of two. No padding.
inline void average_pool(const AveragePoolArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                         OutputWord output[OUTPUT_SIZE]) {
    const int positions = item.in_rows * item.in_columns;
    const int rows = (item.in_rows - item.kernel) / item.stride + 1;
    const int columns = (item.in_columns - item.kernel) / item.stride + 1;
    int shift = 0;
    for (int bit = 1; bit < 16; ++bit) {
        COSIM_UNROLL
        shift = (item.kernel * item.kernel) >> bit ? bit : shift;
    }
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int row = 0; row < rows; ++row) {
            for (int column = 0; column < columns; ++column) {
                std::int32_t sum[BEAT_BYTES] = {};
                COSIM_PARTITION(sum)
                for (int place = 0; place < item.kernel * item.kernel; ++place) {
                    COSIM_PIPELINE
                    const int y = row * item.stride + place / item.kernel;
                    const int x = column * item.stride + place % item.kernel;
                    const Beat one =
                        read_input(input, item.in_base, positions, plane, y * item.in_columns + x);
                    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                        COSIM_UNROLL
                        sum[lane] += one.lane[lane];
                    }
                }
                Beat result;
                for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                    COSIM_UNROLL
                    result.lane[lane] =
                        static_cast<std::int8_t>(saturate8(round_shift(sum[lane], shift)));
                }
                write_output(output, item.out_base, rows * columns, plane, row * columns + column,
                             result);
            }
        }
    }
}

// The greatest value of the window; padding (the same on every side of the tile) never wins.
inline void max_pool(const MaxPoolArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                     OutputWord output[OUTPUT_SIZE]) {
    const int positions = item.in_rows * item.in_columns;
    const int rows = (item.in_rows + 2 * item.padding - item.kernel) / item.stride + 1;
    const int columns = (item.in_columns + 2 * item.padding - item.kernel) / item.stride + 1;
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int row = 0; row < rows; ++row) {
            for (int column = 0; column < columns; ++column) {
                Beat result;
                for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                    COSIM_UNROLL
                    result.lane[lane] = -128;
                }
                for (int place = 0; place < item.kernel * item.kernel; ++place) {
                    COSIM_PIPELINE
                    const int y = row * item.stride + place / item.kernel - item.padding;
                    const int x = column * item.stride + place % item.kernel - item.padding;
                    if (y >= 0 && y < item.in_rows && x >= 0 && x < item.in_columns) {
                        const Beat one = read_input(input, item.in_base, positions, plane,
                                                    y * item.in_columns + x);
                        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                            COSIM_UNROLL
                            result.lane[lane] = one.lane[lane] > result.lane[lane]
                                                    ? one.lane[lane]
                                                    : result.lane[lane];
                        }
                    }
                }
                write_output(output, item.out_base, rows * columns, plane, row * columns + column,
                             result);
            }
        }
    }
}

// Nearest x2: out[r][c] = in[r >> 1][c >> 1].
inline void upsample(const UpsampleArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                     OutputWord output[OUTPUT_SIZE]) {
    const int columns = item.in_columns * 2;
    const int positions = item.in_rows * item.in_columns;
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int row = 0; row < item.in_rows * 2; ++row) {
            for (int column = 0; column < columns; ++column) {
                COSIM_PIPELINE
                const Beat one = read_input(input, item.in_base, positions, plane,
                                            (row >> 1) * item.in_columns + (column >> 1));
                write_output(output, item.out_base, positions * 4, plane, row * columns + column,
                             one);
            }
        }
    }
}

// Four neighbours of one sampled position: their places and weights, shared by all planes.
struct Neighbours {
    std::int32_t place[4];
    std::int32_t weight[4];
};

inline Neighbours neighbours_of(const Beat &grid, int rows, int columns, int fraction_bits) {
    COSIM_INLINE
    const std::int32_t one = 1 << fraction_bits;
    const std::int32_t x = int16_of(grid, 0);
    const std::int32_t y = int16_of(grid, 2);
    const std::int32_t right_part = x & (one - 1);
    const std::int32_t low_part = y & (one - 1);
    Neighbours found;
    for (int corner = 0; corner < 4; ++corner) {
        COSIM_UNROLL
        const int right = corner & 1;
        const int down = corner >> 1;
        const std::int32_t column = (x >> fraction_bits) + right;
        const std::int32_t row = (y >> fraction_bits) + down;
        const bool inside = column >= 0 && column < columns && row >= 0 && row < rows;
        const std::int32_t weight =
            (right ? right_part : one - right_part) * (down ? low_part : one - low_part);
        found.place[corner] = inside ? row * columns + column : 0;
        found.weight[corner] = inside ? weight : 0;
    }
    return found;
}

// Bilinear with zeros outside; the grid is one plane of 16-bit pairs x, y in pixels.
inline void grid_sample(const GridSampleArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                        OutputWord output[OUTPUT_SIZE]) {
    const int image = item.in_rows * item.in_columns;
    for (int position = 0; position < item.positions; ++position) {
        const Beat grid = read_input(input, item.grid_base, item.positions, 0, position);
        const Neighbours near =
            neighbours_of(grid, item.in_rows, item.in_columns, item.fraction_bits);
        for (int plane = 0; plane < item.planes; ++plane) {
            COSIM_PIPELINE
            std::int64_t sum[BEAT_BYTES] = {};
            COSIM_PARTITION(sum)
            for (int corner = 0; corner < 4; ++corner) {
                COSIM_UNROLL
                const Beat one = read_input(input, item.in_base, image, plane, near.place[corner]);
                for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                    COSIM_UNROLL
                    sum[lane] += static_cast<std::int64_t>(near.weight[corner]) * one.lane[lane];
                }
            }
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                result.lane[lane] = static_cast<std::int8_t>(
                    saturate8(round_shift(sum[lane], 2 * item.fraction_bits)));
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

} // namespace cosim

#endif // COSIM_SPATIAL_HPP
