// The elementwise, lookup and softmax engines: INPUT to OUTPUT, one beat a trip.
// Nothing here looks at neighbouring positions.
#ifndef COSIM_VECTOR_HPP
#define COSIM_VECTOR_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace cosim {

constexpr int MASK_FRACTION_BITS = 7;
constexpr int RECIPROCAL_BITS = 40;

inline void add(const AddArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                OutputWord output[OUTPUT_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            const Beat other = read_input(input, item.other_base, item.positions, plane, position);
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const std::int64_t both =
                    static_cast<std::int64_t>(one.lane[lane]) * item.multiplier_in +
                    static_cast<std::int64_t>(other.lane[lane]) * item.multiplier_other +
                    (ZERO_POINTS ? item.offset : 0);
                result.lane[lane] =
                    static_cast<std::int8_t>(saturate8(round_shift(both, item.shift)));
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

// With `broadcast` the second operand is the first channel of a map, for all channels.
inline void multiply(const MultiplyArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                     OutputWord output[OUTPUT_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            const Beat other = read_input(input, item.other_base, item.positions,
                                          item.broadcast ? 0 : plane, position);
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const std::int32_t factor =
                    other.lane[item.broadcast ? 0 : lane] - (ZERO_POINTS ? item.zero_other : 0);
                const std::int32_t product =
                    (one.lane[lane] - (ZERO_POINTS ? item.zero_in : 0)) * factor;
                const std::int64_t total = static_cast<std::int64_t>(product) * item.multiplier +
                                           (ZERO_POINTS ? item.offset : 0);
                result.lane[lane] =
                    static_cast<std::int8_t>(saturate8(round_shift(total, item.shift)));
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

inline void affine(const AffineArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                   const Beat parameters[VECTOR_PARAMETERS_SIZE], OutputWord output[OUTPUT_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        Parameter parameter[BEAT_BYTES];
        COSIM_PARTITION(parameter)
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_PIPELINE
            parameter[lane] =
                parameter_of(parameters[item.parameter_base + plane * BEAT_BYTES + lane]);
        }
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const std::int64_t total =
                    static_cast<std::int64_t>(one.lane[lane]) * parameter[lane].multiplier +
                    parameter[lane].offset;
                std::int32_t value = saturate8(round_shift(total, parameter[lane].shift));
                if (item.relu && value < 0) {
                    value = 0;
                }
                result.lane[lane] = static_cast<std::int8_t>(value);
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

// Masks times displacements, added to the identity grid. The tile spans whole rows.
inline void flow_sum(const FlowSumArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                     const Beat parameters[VECTOR_PARAMETERS_SIZE], OutputWord output[OUTPUT_SIZE]) {
    int row = item.first_row;
    int column = 0;
    for (int position = 0; position < item.positions; ++position) {
        std::int32_t sum_x = 0;
        std::int32_t sum_y = 0;
        for (int channel = 0; channel < item.channels; ++channel) {
            COSIM_PIPELINE
            const Beat mask = read_input(input, item.in_base, item.positions,
                                         channel / BEAT_BYTES, position);
            const std::int32_t value = mask.lane[channel % BEAT_BYTES];
            const Beat &shift = parameters[item.parameter_base + channel];
            sum_x += value * int16_of(shift, 0);
            sum_y += value * int16_of(shift, 2);
        }
        const std::int64_t x = (static_cast<std::int64_t>(column) << item.fraction_bits) +
                               round_shift(sum_x, MASK_FRACTION_BITS);
        const std::int64_t y = (static_cast<std::int64_t>(row) << item.fraction_bits) +
                               round_shift(sum_y, MASK_FRACTION_BITS);
        Beat result = zero_beat();
        put_int16(result, 0, saturate16(x));
        put_int16(result, 2, saturate16(y));
        write_output(output, item.out_base, item.positions, 0, position, result);
        ++column;
        if (column == item.columns) {
            column = 0;
            ++row;
        }
    }
}

inline void lookup(const LookupArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                   const Beat table[TABLE_SIZE], OutputWord output[OUTPUT_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const int entry = one.lane[lane] + 128;
                result.lane[lane] = table[item.table_base + entry / BEAT_BYTES]
                                        .lane[entry % BEAT_BYTES];
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

// exp(d) of the difference d = maximum - value, as uint16.
inline std::int64_t exponential(const Beat table[TABLE_SIZE], int base, int difference) {
    COSIM_INLINE
    const Beat &beat = table[base + difference / 4];
    return byte_of(beat, difference % 4 * 2) | (byte_of(beat, difference % 4 * 2 + 1) << 8);
}

// Three passes over the channels of a position: maximum, sum, result. The first takes a beat a
// trip, the others half a beat, as the RTL does. Padded channels get zero.
inline void softmax(const SoftmaxArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                    const Beat table[TABLE_SIZE], OutputWord output[OUTPUT_SIZE]) {
    const int half_beat = BEAT_BYTES / 2;
    const int planes = (item.channels + BEAT_BYTES - 1) / BEAT_BYTES;
    for (int position = 0; position < item.positions; ++position) {
        int maximum = -128;
        for (int plane = 0; plane < planes; ++plane) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const bool there = plane * BEAT_BYTES + lane < item.channels;
                maximum = there && one.lane[lane] > maximum ? one.lane[lane] : maximum;
            }
        }
        std::int64_t sum = 0;
        for (int half = 0; half < 2 * planes; ++half) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, half / 2, position);
            for (int index = 0; index < half_beat; ++index) {
                COSIM_UNROLL
                const int lane = half % 2 * half_beat + index;
                if (half / 2 * BEAT_BYTES + lane < item.channels) {
                    sum += exponential(table, item.table_base, maximum - one.lane[lane]);
                }
            }
        }
        const std::int64_t reciprocal = sum > 0 ? (std::int64_t{1} << RECIPROCAL_BITS) / sum : 0;
        Beat result = zero_beat();
        for (int half = 0; half < 2 * planes; ++half) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, half / 2, position);
            for (int index = 0; index < half_beat; ++index) {
                COSIM_UNROLL
                const int lane = half % 2 * half_beat + index;
                std::int64_t value = 0;
                if (half / 2 * BEAT_BYTES + lane < item.channels) {
                    const std::int64_t part =
                        exponential(table, item.table_base, maximum - one.lane[lane]);
                    value = saturate8(
                        round_shift(part * reciprocal, RECIPROCAL_BITS - item.fraction_bits));
                }
                result.lane[lane] = static_cast<std::int8_t>(value);
            }
            if (half % 2 == 1) {
                write_output(output, item.out_base, item.positions, half / 2, position, result);
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_VECTOR_HPP
