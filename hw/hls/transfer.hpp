// The read and write masters: a three-dimensional pattern of DRAM beats to or from a buffer.
// Bursts are left to the compiler's m_axi adapter; nothing here counts cycles.
#ifndef COSIM_TRANSFER_HPP
#define COSIM_TRANSFER_HPP

#include "types.hpp"

namespace cosim {

// Beat index in memory of run (plane, row). Addresses and strides are whole beats.
inline std::uint32_t run_beat(const Transfer &item, std::uint32_t plane, std::uint32_t row) {
    COSIM_INLINE
    const std::uint32_t address = item.address +
                                  plane * static_cast<std::uint32_t>(item.plane_stride) +
                                  row * static_cast<std::uint32_t>(item.row_stride);
    return address / BEAT_BYTES;
}

// A tile into INPUT, or a skip tile into SKIP, which has the words of OUTPUT.
inline void load_tile(const Transfer &item, const LoadArguments &place, const Beat *memory,
                      InputWord input[COLUMNS][INPUT_SIZE], OutputWord skip[OUTPUT_SIZE]) {
    const int beats = static_cast<int>(item.row_bytes / BEAT_BYTES);
    for (std::uint32_t plane = 0; plane < item.planes; ++plane) {
        int position = 0;
        for (std::uint32_t row = 0; row < item.rows; ++row) {
            const std::uint32_t first = run_beat(item, plane, row);
            for (int beat = 0; beat < beats; ++beat) {
                COSIM_PIPELINE
                const Beat value = memory[first + static_cast<std::uint32_t>(beat)];
                const int to = static_cast<int>(plane);
                const int positions = static_cast<int>(place.positions);
                if (place.buffer == static_cast<int>(Buffer::OUTPUT)) {
                    write_output(skip, place.base, positions, to, position, value);
                } else {
                    write_input(input, place.base, positions, to, position, value);
                }
                ++position;
            }
        }
    }
}

// Consecutive bytes into WEIGHT, a parameter buffer or TABLE, from word `base` on.
inline void load_block(const Transfer &item, const LoadArguments &place, const Beat *memory,
                       WeightWord weight[WEIGHT_SIZE], Beat parameters[PARAMETER_ENTRIES],
                       Beat vector_parameters[VECTOR_ENTRIES], Beat table[TABLE_BEATS]) {
    constexpr int weight_beats = TM * TN / BEAT_BYTES;
    const int beats = static_cast<int>(item.row_bytes / BEAT_BYTES);
    int word = place.base;
    int part = 0;
    for (std::uint32_t plane = 0; plane < item.planes; ++plane) {
        for (std::uint32_t row = 0; row < item.rows; ++row) {
            const std::uint32_t first = run_beat(item, plane, row);
            for (int beat = 0; beat < beats; ++beat) {
                COSIM_PIPELINE
                const Beat value = memory[first + static_cast<std::uint32_t>(beat)];
                if (place.buffer == static_cast<int>(Buffer::WEIGHT)) {
                    for (int lane = 0; lane < BEAT_BYTES; ++lane) {
                        COSIM_UNROLL
                        weight[word].lane[part * BEAT_BYTES + lane] = value.lane[lane];
                    }
                    ++part;
                    if (part == weight_beats) {
                        part = 0;
                        ++word;
                    }
                } else {
                    if (place.buffer == static_cast<int>(Buffer::CONVOLUTION_PARAMETERS)) {
                        parameters[word] = value;
                    } else if (place.buffer == static_cast<int>(Buffer::VECTOR_PARAMETERS)) {
                        vector_parameters[word] = value;
                    } else {
                        table[word] = value;
                    }
                    ++word;
                }
            }
        }
    }
}

inline void store_tile(const Transfer &item, const StoreArguments &place,
                       const OutputWord output[OUTPUT_SIZE], Beat *memory) {
    const int beats = static_cast<int>(item.row_bytes / BEAT_BYTES);
    for (std::uint32_t plane = 0; plane < item.planes; ++plane) {
        int position = 0;
        for (std::uint32_t row = 0; row < item.rows; ++row) {
            const std::uint32_t first = run_beat(item, plane, row);
            for (int beat = 0; beat < beats; ++beat) {
                COSIM_PIPELINE
                memory[first + static_cast<std::uint32_t>(beat)] =
                    read_output(output, place.base, static_cast<int>(place.positions),
                                static_cast<int>(plane), position);
                ++position;
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_TRANSFER_HPP
