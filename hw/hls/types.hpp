// Beats, buffer words and the places of a beat in INPUT and OUTPUT.
// It does no arithmetic on values.
#ifndef COSIM_TYPES_HPP
#define COSIM_TYPES_HPP

#include <cstdint>

#include "config.hpp"
#include "descriptor.hpp"
#include "pragmas.hpp"

namespace cosim {

constexpr int BEAT_BYTES = 8;
constexpr int IN_LANES = TN / BEAT_BYTES;
constexpr int OUT_LANES = TM / BEAT_BYTES;
static_assert(TN % BEAT_BYTES == 0 && TM % BEAT_BYTES == 0, "words are whole beats");

// One position of one plane: 8 channels, or 4 16-bit values.
struct Beat {
    std::int8_t lane[BEAT_BYTES];
};

struct InputWord {
    std::int8_t lane[TN];
};

struct OutputWord {
    std::int8_t lane[TM];
};

// One cycle's weights: byte m * TN + n multiplies input channel n into output channel m.
struct WeightWord {
    std::int8_t lane[TM * TN];
};

// One output channel: bias or offset, multiplier, shift.
struct Parameter {
    std::int32_t offset;
    std::int32_t multiplier;
    std::int32_t shift;
};

inline std::int32_t byte_of(const Beat &beat, int index) {
    return static_cast<std::uint8_t>(beat.lane[index]);
}

// A signed 16-bit value from two bytes, low byte first.
inline std::int32_t int16_of(const Beat &beat, int index) {
    const std::int32_t value = byte_of(beat, index) | (byte_of(beat, index + 1) << 8);
    return (value ^ 0x8000) - 0x8000;
}

inline void put_int16(Beat &beat, int index, std::int32_t value) {
    beat.lane[index] = static_cast<std::int8_t>(value & 255);
    beat.lane[index + 1] = static_cast<std::int8_t>((value >> 8) & 255);
}

inline Parameter parameter_of(const Beat &beat) {
    Parameter found;
    std::uint32_t offset = 0;
    for (int index = 0; index < 4; ++index) {
        COSIM_UNROLL
        offset |= static_cast<std::uint32_t>(byte_of(beat, index)) << (8 * index);
    }
    found.offset = static_cast<std::int32_t>(offset);
    found.multiplier = int16_of(beat, 4);
    found.shift = byte_of(beat, 6);
    return found;
}

inline Beat zero_beat() {
    Beat beat;
    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
        COSIM_UNROLL
        beat.lane[lane] = 0;
    }
    return beat;
}

// Beat (plane, position) of a tile of `positions` positions at word `base` of INPUT. INPUT has a
// copy for each of the COLUMNS positions that the convolution works on at once.
inline Beat read_input(const InputWord input[COLUMNS][INPUT_SIZE], int base, int positions, int plane,
                       int position) {
    COSIM_INLINE
    const InputWord &word = input[0][base + plane / IN_LANES * positions + position];
    const int first = plane % IN_LANES * BEAT_BYTES;
    Beat beat;
    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
        COSIM_UNROLL
        beat.lane[lane] = word.lane[first + lane];
    }
    return beat;
}

inline void write_input(InputWord input[COLUMNS][INPUT_SIZE], int base, int positions, int plane,
                        int position, const Beat &beat) {
    COSIM_INLINE
    const int first = plane % IN_LANES * BEAT_BYTES;
    for (int copy = 0; copy < COLUMNS; ++copy) {
        COSIM_UNROLL
        InputWord &word = input[copy][base + plane / IN_LANES * positions + position];
        for (int lane = 0; lane < BEAT_BYTES; ++lane) {
            COSIM_UNROLL
            word.lane[first + lane] = beat.lane[lane];
        }
    }
}

inline Beat read_output(const OutputWord output[OUTPUT_SIZE], int base, int positions, int plane,
                        int position) {
    COSIM_INLINE
    const OutputWord &word = output[base + plane / OUT_LANES * positions + position];
    const int first = plane % OUT_LANES * BEAT_BYTES;
    Beat beat;
    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
        COSIM_UNROLL
        beat.lane[lane] = word.lane[first + lane];
    }
    return beat;
}

inline void write_output(OutputWord output[OUTPUT_SIZE], int base, int positions, int plane,
                         int position, const Beat &beat) {
    COSIM_INLINE
    OutputWord &word = output[base + plane / OUT_LANES * positions + position];
    const int first = plane % OUT_LANES * BEAT_BYTES;
    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
        COSIM_UNROLL
        word.lane[first + lane] = beat.lane[lane];
    }
}

} // namespace cosim

#endif // COSIM_TYPES_HPP
