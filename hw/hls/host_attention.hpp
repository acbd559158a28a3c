// Matrix products, transposition, group norm, the sampler's step and its inputs on the host.
// Nothing here is synthesized, and nothing here is in a hurry.
#ifndef COSIM_HOST_ATTENTION_HPP
#define COSIM_HOST_ATTENTION_HPP

#include "host_tensor.hpp"
#include "norm_arithmetic.hpp"

namespace cosim {

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

// The row of a table that a counter names; the counter may have gone round.
inline void row(const Record &layer, const Tensor &counter, Tensor &out) {
    const std::int32_t size = static_cast<std::int32_t>(out.value.size());
    const std::int32_t rows = layer.table.count / size;
    const std::int32_t chosen = (counter.value[0] % rows + rows) % rows;
    for (std::int32_t index = 0; index < size; ++index) {
        out.value[index] = words(layer.table)[chosen * size + index];
    }
}

// out[i] = in[places[i]], zero where the place is negative.
inline void gather(const Record &layer, const Tensor &in, Tensor &out) {
    const std::int32_t *places = words(layer.table);
    for (std::size_t index = 0; index < out.value.size(); ++index) {
        out.value[index] = places[index] < 0 ? layer.pad_value : in.value[places[index]];
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

// Two passes over each group; `gain` and `moved` modulate, if they have channels.
inline void group_norm(const Record &layer, const Tensor &in, const Tensor &gain,
                       const Tensor &moved, Tensor &out) {
    const int each = in.channels / layer.groups;
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    const std::int64_t epsilon = static_cast<std::int64_t>(
        static_cast<std::uint32_t>(layer.epsilon[0]) |
        static_cast<std::uint64_t>(static_cast<std::uint32_t>(layer.epsilon[1])) << 32);
    for (int first = 0; first < in.channels; first += each) {
        const Sums sums = sums_of(in, first, each);
        const std::int64_t root = group_root(sums, epsilon);
        for (int channel = first; channel < first + each; ++channel) {
            Scale scale = {words(layer.multiplier)[channel], words(layer.offset)[channel]};
            if (gain.channels > 0) {
                scale = modulate(scale, gain.value[channel], moved.value[channel],
                                 layer.scale[0], layer.scale[1]);
            }
            const Entry entry = norm_entry(sums, root, scale);
            for (std::size_t index = channel * positions; index < (channel + 1) * positions;
                 ++index) {
                out.value[index] = rectified(layer, normalized(entry, in.value[index]));
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_HOST_ATTENTION_HPP
