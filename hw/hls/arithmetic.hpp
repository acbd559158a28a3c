// The one rounding rule of the quantized network, for fabric and host alike.
// It knows no tensors.
#ifndef COSIM_ARITHMETIC_HPP
#define COSIM_ARITHMETIC_HPP

#include <cstdint>

namespace cosim {

// value / 2^shift, rounded half to even; shift from 0 to 47. Right shifts of negative values
// are arithmetic on every compiler these sources meet.
inline std::int64_t round_shift(std::int64_t value, int shift) {
    const std::int64_t floored = value >> shift;
    if (shift == 0) {
        return floored;
    }
    const std::int64_t half_less_one = (std::int64_t{1} << (shift - 1)) - 1;
    return (value + half_less_one + (floored & 1)) >> shift;
}

inline std::int32_t saturate(std::int64_t value, std::int32_t least, std::int32_t greatest) {
    if (value < least) {
        return least;
    }
    return value > greatest ? greatest : static_cast<std::int32_t>(value);
}

inline std::int32_t saturate8(std::int64_t value) { return saturate(value, -128, 127); }

inline std::int32_t saturate16(std::int64_t value) { return saturate(value, -32768, 32767); }

inline std::int32_t requantize(std::int64_t value, std::int32_t multiplier, int shift) {
    return saturate8(round_shift(value * multiplier, shift));
}

} // namespace cosim

#endif // COSIM_ARITHMETIC_HPP
