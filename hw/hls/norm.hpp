// The norm engine: sums of a block of whole groups and their entries, then the affine step.
// How a tensor is cut into blocks is the program's question.
#ifndef COSIM_NORM_HPP
#define COSIM_NORM_HPP

#include "norm_arithmetic.hpp"
#include "types.hpp"

namespace cosim {

// What the engine keeps of one channel between the operations of a block.
struct NormChannel {
    std::int32_t total;
    std::int64_t squares;
    Entry entry;
};

inline std::int64_t int64_of(const Beat &beat) {
    std::uint64_t value = 0;
    for (int index = 0; index < BEAT_BYTES; ++index) {
        COSIM_UNROLL
        value |= static_cast<std::uint64_t>(byte_of(beat, index)) << (8 * index);
    }
    return static_cast<std::int64_t>(value);
}

// The first or second int32 of an entry.
inline std::int64_t int32_of(const Beat &beat, int half) {
    return static_cast<std::int32_t>(int64_of(beat) >> (32 * half) & 0xffffffff);
}

inline void entries_of_block(const GroupSumsArguments &item, const Beat parameters[NORM_PARAMETERS_SIZE],
                             NormChannel channels[NORM_PARAMETERS_SIZE]) {
    const std::int64_t epsilon = int64_of(parameters[0]);
    for (int channel = item.channels; channel < item.planes * BEAT_BYTES; ++channel) {
        COSIM_PIPELINE
        channels[channel].entry = {0, 0, 0}; // padded channels become zero
    }
    for (int first = 0; first < item.channels; first += item.group_channels) {
        Sums sums = {std::int64_t{item.group_channels} * item.all_positions, 0, 0};
        for (int channel = first; channel < first + item.group_channels; ++channel) {
            COSIM_PIPELINE
            sums.total += channels[channel].total;
            sums.squares += channels[channel].squares;
        }
        const std::int64_t root = group_root(sums, epsilon);
        for (int channel = first; channel < first + item.group_channels; ++channel) {
            const Beat &given = parameters[item.parameter_base + channel];
            Scale scale = {int32_of(given, 0), int32_of(given, 1)};
            if (item.film) {
                const int plane = channel / BEAT_BYTES, lane = channel % BEAT_BYTES;
                scale = modulate(scale, parameters[item.gain_base + plane].lane[lane],
                                 parameters[item.offset_base + plane].lane[lane],
                                 int32_of(parameters[1], 0), int32_of(parameters[1], 1));
            }
            channels[channel].entry = norm_entry(sums, root, scale);
        }
    }
}

inline void group_sums(const GroupSumsArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                       const Beat parameters[NORM_PARAMETERS_SIZE], NormChannel channels[NORM_PARAMETERS_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        std::int32_t total[BEAT_BYTES];
        std::int64_t squares[BEAT_BYTES];
        COSIM_PARTITION(total)
        COSIM_PARTITION(squares)
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_PIPELINE
            const NormChannel &old = channels[plane * BEAT_BYTES + lane];
            total[lane] = item.first ? 0 : old.total;
            squares[lane] = item.first ? 0 : old.squares;
        }
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.positions, plane, position);
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                const std::int32_t value = one.lane[lane];
                total[lane] += value;
                squares[lane] += value * value;
            }
        }
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_PIPELINE
            channels[plane * BEAT_BYTES + lane].total = total[lane];
            channels[plane * BEAT_BYTES + lane].squares = squares[lane];
        }
    }
    if (item.last) {
        entries_of_block(item, parameters, channels);
    }
}

inline void group_norm(const GroupNormArguments &item, const InputWord input[COLUMNS][INPUT_SIZE],
                       const NormChannel channels[NORM_PARAMETERS_SIZE], OutputWord output[OUTPUT_SIZE]) {
    for (int plane = 0; plane < item.planes; ++plane) {
        Entry entry[BEAT_BYTES];
        COSIM_PARTITION(entry)
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_PIPELINE
            entry[lane] = channels[plane * BEAT_BYTES + lane].entry;
        }
        for (int position = 0; position < item.positions; ++position) {
            COSIM_PIPELINE
            const Beat one = read_input(input, item.in_base, item.in_positions, plane, position);
            Beat result;
            for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                COSIM_UNROLL
                std::int32_t value = normalized(entry[lane], one.lane[lane]);
                if (item.relu && value < 0) {
                    value = 0;
                }
                result.lane[lane] = static_cast<std::int8_t>(value);
            }
            write_output(output, item.out_base, item.positions, plane, position, result);
        }
    }
}

} // namespace cosim

#endif // COSIM_NORM_HPP
