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

// First beat of the tensor memory; DRAM lies below.
constexpr std::uint32_t WINDOW_BEAT = (std::uint32_t{1} << 31) / BEAT_BYTES;

// DRAM and, from WINDOW_BEAT on, the tensor memory, whose beats are counted modulo its size.
struct ReadSide {
    const Beat *memory;
    const Beat *tensors;
    Beat operator[](std::uint32_t beat) const {
        COSIM_INLINE
        return beat >= WINDOW_BEAT ? tensors[beat % TENSOR_SIZE] : memory[beat];
    }
};

struct WriteSide {
    Beat *memory;
    Beat *tensors;
};

inline void put(Beat *memory, std::uint32_t beat, const Beat &value) {
    COSIM_INLINE
    memory[beat] = value;
}

inline void put(const WriteSide &side, std::uint32_t beat, const Beat &value) {
    COSIM_INLINE
    if (beat >= WINDOW_BEAT) {
        side.tensors[beat % TENSOR_SIZE] = value;
    } else {
        side.memory[beat] = value;
    }
}

// A tile into INPUT, or a skip tile into SKIP, which has the words of OUTPUT.
template <class Source>
inline void load_tile(const Transfer &item, const LoadArguments &place, const Source &memory,
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

// An activation into WEIGHT: its positions (ROWS) or its channels (COLUMNS) are output channels.
// Beats come in ascending order, and each clears the input channels behind it, so what an older
// block left never multiplies.
inline void load_operand(const Transfer &item, const LoadArguments &place, const Beat *memory,
                         WeightWord weight[WEIGHT_SIZE]) {
    const bool by_rows = place.order == static_cast<int>(WeightOrder::ROWS);
    const int beats = static_cast<int>(item.row_bytes / BEAT_BYTES);
    for (std::uint32_t plane = 0; plane < item.planes; ++plane) {
        int position = 0;
        for (std::uint32_t row = 0; row < item.rows; ++row) {
            const std::uint32_t first = run_beat(item, plane, row);
            for (int beat = 0; beat < beats; ++beat) {
                COSIM_PIPELINE
                const Beat value = memory[first + static_cast<std::uint32_t>(beat)];
                const int channel = static_cast<int>(plane) * BEAT_BYTES;
                const int outer = by_rows ? position : channel;
                const int inner = by_rows ? channel : position;
                WeightWord &word =
                    weight[place.base + outer / TM * place.positions + inner / TN];
                for (int m = 0; m < TM; ++m) {
                    COSIM_UNROLL
                    const int lane = m - outer % TM;
                    const bool taken = lane >= 0 && lane < (by_rows ? 1 : BEAT_BYTES);
                    for (int n = 0; n < TN; ++n) {
                        COSIM_UNROLL
                        const int behind = n - inner % TN;
                        if (taken && behind >= 0) {
                            const bool real = behind < (by_rows ? BEAT_BYTES : 1);
                            word.lane[m * TN + n] = real ? value.lane[by_rows ? behind : lane] : 0;
                        }
                    }
                }
                ++position;
            }
        }
    }
}

#define COSIM_FILLED(name, buffer_name, size) , Beat name[size]
#define COSIM_FILL(name, buffer_name, size) \
    if (place.buffer == static_cast<int>(Buffer::buffer_name)) { \
        name[word] = value; \
    }

// Consecutive bytes into WEIGHT, a parameter buffer or TABLE, from word `base` on; or an operand.
inline void load_block(const Transfer &item, const LoadArguments &place, const Beat *memory,
                       WeightWord weight[WEIGHT_SIZE] COSIM_BEAT_MEMORIES(COSIM_FILLED)) {
    if (place.order != static_cast<int>(WeightOrder::STORED)) {
        load_operand(item, place, memory, weight);
        return;
    }
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
                    COSIM_BEAT_MEMORIES(COSIM_FILL)
                    ++word;
                }
            }
        }
    }
}

template <class Target>
inline void store_tile(const Transfer &item, const StoreArguments &place,
                       const OutputWord output[OUTPUT_SIZE], const Target &memory) {
    const int beats = static_cast<int>(item.row_bytes / BEAT_BYTES);
    for (std::uint32_t plane = 0; plane < item.planes; ++plane) {
        int position = 0;
        for (std::uint32_t row = 0; row < item.rows; ++row) {
            const std::uint32_t first = run_beat(item, plane, row);
            for (int beat = 0; beat < beats; ++beat) {
                COSIM_PIPELINE
                put(memory, first + static_cast<std::uint32_t>(beat),
                    read_output(output, place.base, static_cast<int>(place.positions),
                                static_cast<int>(plane), position));
                ++position;
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_TRANSFER_HPP
