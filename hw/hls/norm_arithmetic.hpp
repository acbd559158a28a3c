// The entries of a group norm's affine step, for fabric and host alike: exact, in 64 bits.
// It reads no tensors and no buffers.
#ifndef COSIM_NORM_ARITHMETIC_HPP
#define COSIM_NORM_ARITHMETIC_HPP

#include "arithmetic.hpp"
#include "pragmas.hpp"

namespace cosim {

constexpr int NORM_BITS = 12; // fraction of scales and offsets
constexpr int FILM_BITS = 24; // fraction of a modulating gain

// Of one group's values.
struct Sums {
    std::int64_t count, total, squares;
};

// Scale and offset of a channel before the sums are known.
struct Scale {
    std::int64_t scale, offset;
};

// y = saturate(round_shift(x * multiplier + offset, shift)).
struct Entry {
    std::int32_t multiplier, offset, shift;
};

// The greatest integer whose square is at most `value`: one bit of it a step.
inline std::int64_t square_root(std::uint64_t value) {
    std::uint64_t root = 0;
    std::uint64_t rest = 0;
    for (int pair = 31; pair >= 0; --pair) {
        COSIM_PIPELINE
        rest = rest << 2 | (value >> (2 * pair) & 3);
        const std::uint64_t tried = root << 2 | 1;
        root <<= 1;
        if (rest >= tried) {
            rest -= tried;
            root |= 1;
        }
    }
    return static_cast<std::int64_t>(root);
}

inline std::int64_t floor_divide(std::int64_t value, std::int64_t divisor) {
    const std::int64_t quotient = value / divisor;
    return quotient - (value % divisor != 0 && (value < 0) != (divisor < 0) ? 1 : 0);
}

// Bits of the absolute value.
inline int bit_length(std::int64_t value) {
    const std::int64_t size = value < 0 ? -value : value;
    int length = 0;
    for (int bit = 0; bit < 62; ++bit) {
        if (size >> bit != 0) {
            length = bit + 1;
        }
    }
    return length;
}

// 16 n times the deviation of a group of n values.
inline std::int64_t group_root(const Sums &sums, std::int64_t epsilon) {
    const std::int64_t spread = sums.count * sums.squares - sums.total * sums.total + epsilon;
    return square_root(static_cast<std::uint64_t>(spread > 1 ? spread : 1) * 256);
}

// A channel's scale and offset under a gain and an offset that modulate it.
inline Scale modulate(const Scale &given, std::int64_t gain, std::int64_t moved,
                      std::int64_t gain_factor, std::int64_t moved_factor) {
    return {round_shift(given.scale * gain * gain_factor, FILM_BITS),
            round_shift(given.offset * gain * gain_factor, FILM_BITS) + moved * moved_factor};
}

inline Entry norm_entry(const Sums &sums, std::int64_t root, const Scale &given) {
    const std::int64_t slope =
        floor_divide(given.scale * sums.count * (1 << (NORM_BITS + 4)), root);
    const std::int64_t start =
        given.offset * (1 << NORM_BITS) - floor_divide(slope * sums.total, sums.count);
    const int slope_excess = bit_length(slope) - 15;
    const int start_excess = bit_length(start) - 31;
    int drop = slope_excess > start_excess ? slope_excess : start_excess;
    drop = drop < 0 ? 0 : drop;
    drop = drop > 2 * NORM_BITS ? 2 * NORM_BITS : drop;
    return {saturate16(round_shift(slope, drop)),
            saturate(round_shift(start, drop), INT32_MIN, INT32_MAX), 2 * NORM_BITS - drop};
}

// The affine step of one value.
inline std::int32_t normalized(const Entry &entry, std::int64_t value) {
    return saturate8(round_shift(value * entry.multiplier + entry.offset, entry.shift));
}

} // namespace cosim

#endif // COSIM_NORM_ARITHMETIC_HPP
