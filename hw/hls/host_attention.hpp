// Matrix products, transposition, group norm and the sampler's step on the host.
// Nothing here is synthesized, and nothing here is in a hurry.
#ifndef COSIM_HOST_ATTENTION_HPP
#define COSIM_HOST_ATTENTION_HPP

#include "host_tensor.hpp"

namespace cosim {

constexpr int NORM_BITS = 12;
constexpr int FILM_BITS = 24; // of a modulating gain
constexpr int COEFFICIENT_BITS = 14;

// out[c][p] = sum over i of right[c][i] * left[i][p], scaled; positions count in row order.
inline void matmul(const Record &layer, const Tensor &left, const Tensor &right, Tensor &out) {
    const std::size_t inner = static_cast<std::size_t>(left.channels);
    const std::size_t positions = static_cast<std::size_t>(left.rows) * left.columns;
    for (std::size_t channel = 0; channel < static_cast<std::size_t>(out.channels); ++channel) {
        for (std::size_t position = 0; position < positions; ++position) {
            std::int64_t total = 0;
            for (std::size_t index = 0; index < inner; ++index) {
                total += std::int64_t{right.value[channel * inner + index]} *
                         left.value[index * positions + position];
            }
            out.value[channel * positions + position] =
                narrowed(layer, round_shift(total * layer.scale[0], layer.shift));
        }
    }
}

// out[p][0][c] = in[c][p].
inline void transpose(const Tensor &in, Tensor &out) {
    const std::size_t channels = static_cast<std::size_t>(in.channels);
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    for (std::size_t channel = 0; channel < channels; ++channel) {
        for (std::size_t position = 0; position < positions; ++position) {
            out.value[position * channels + channel] = in.value[channel * positions + position];
        }
    }
}

// c0 * latent + c1 * velocity, the velocity brought to the latent's step first.
inline void sampler(const Record &layer, const Tensor &latent, const Tensor &velocity,
                    const Tensor &factors, Tensor &out) {
    for (std::size_t index = 0; index < out.value.size(); ++index) {
        const std::int64_t step =
            std::int64_t{velocity.value[index]} * factors.value[1] * layer.scale[0];
        const std::int64_t total = std::int64_t{latent.value[index]} * factors.value[0] +
                                   round_shift(step, layer.shift);
        out.value[index] = narrowed(layer, round_shift(total, COEFFICIENT_BITS));
    }
}

// The greatest integer whose square is at most `value`, which is not negative.
inline std::int64_t square_root(std::int64_t value) {
    std::int64_t root = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const std::int64_t tried = root | (std::int64_t{1} << bit);
        if (tried <= value / tried) {
            root = tried;
        }
    }
    return root;
}

inline std::int64_t floor_divide(std::int64_t value, std::int64_t divisor) {
    const std::int64_t quotient = value / divisor;
    return quotient - (value % divisor != 0 && (value < 0) != (divisor < 0) ? 1 : 0);
}

// Bits of the absolute value.
inline int bit_length(std::int64_t value) {
    const std::int64_t size = value < 0 ? -value : value;
    int length = 0;
    while (length < 62 && size >> length != 0) {
        ++length;
    }
    return length;
}

struct Sums {
    std::int64_t count, total, squares;
};

inline Sums sums_of(const Tensor &in, int first, int count) {
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    Sums found = {static_cast<std::int64_t>(positions) * count, 0, 0};
    for (std::size_t index = first * positions; index < (first + count) * positions; ++index) {
        const std::int64_t value = in.value[index];
        found.total += value;
        found.squares += value * value;
    }
    return found;
}

// Entries of the affine step of one channel, from the sums of its group.
inline void norm_channel(const Record &layer, const Tensor &in, const Sums &sums, int channel,
                         std::int64_t scale, std::int64_t offset, Tensor &out) {
    const std::int64_t epsilon = static_cast<std::int64_t>(
        static_cast<std::uint32_t>(layer.epsilon[0]) |
        static_cast<std::uint64_t>(static_cast<std::uint32_t>(layer.epsilon[1])) << 32);
    const std::int64_t spread = sums.count * sums.squares - sums.total * sums.total + epsilon;
    const std::int64_t root = square_root((spread > 1 ? spread : 1) * 256);
    const std::int64_t slope = floor_divide(scale * sums.count * (1 << (NORM_BITS + 4)), root);
    const std::int64_t start =
        offset * (1 << NORM_BITS) - floor_divide(slope * sums.total, sums.count);
    const int slope_excess = bit_length(slope) - 15;
    const int start_excess = bit_length(start) - 31;
    int drop = slope_excess > start_excess ? slope_excess : start_excess;
    drop = drop < 0 ? 0 : drop;
    drop = drop > 2 * NORM_BITS ? 2 * NORM_BITS : drop;
    const std::int64_t multiplier = saturate16(round_shift(slope, drop));
    const std::int64_t begin = saturate(round_shift(start, drop), INT32_MIN, INT32_MAX);
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    for (std::size_t index = channel * positions; index < (channel + 1) * positions; ++index) {
        out.value[index] = rectified(
            layer, saturate8(round_shift(in.value[index] * multiplier + begin,
                                         2 * NORM_BITS - drop)));
    }
}

// Two passes over each group; `gain` and `moved` modulate, if they have channels.
inline void group_norm(const Record &layer, const Tensor &in, const Tensor &gain,
                       const Tensor &moved, Tensor &out) {
    const int each = in.channels / layer.groups;
    for (int first = 0; first < in.channels; first += each) {
        const Sums sums = sums_of(in, first, each);
        for (int channel = first; channel < first + each; ++channel) {
            std::int64_t scale = words(layer.multiplier)[channel];
            std::int64_t offset = words(layer.offset)[channel];
            if (gain.channels > 0) {
                const std::int64_t factor = std::int64_t{gain.value[channel]} * layer.scale[0];
                scale = round_shift(scale * factor, FILM_BITS);
                offset = round_shift(offset * factor, FILM_BITS) +
                         std::int64_t{moved.value[channel]} * layer.scale[1];
            }
            norm_channel(layer, in, sums, channel, scale, offset, out);
        }
    }
}

} // namespace cosim

#endif // COSIM_HOST_ATTENTION_HPP
