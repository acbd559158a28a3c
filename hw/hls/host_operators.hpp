// The operators of the animation decoder on the host, on tensors with channels in order.
// Nothing here is synthesized, and nothing here is in a hurry.
#ifndef COSIM_HOST_OPERATORS_HPP
#define COSIM_HOST_OPERATORS_HPP

#include "host_tensor.hpp"

namespace cosim {

constexpr int MAX_SHIFT_RECIPROCAL = 40;
constexpr int MASK_BITS = 7;
constexpr int KEYPOINT_BITS = 14;
constexpr int GAUSSIAN_BITS = 30;
constexpr int GAUSSIAN_ENTRIES = 1024;

inline void convolution(const Record &layer, const Tensor &in, Tensor &out) {
    const int groups = layer.groups;
    const int inner = in.channels / groups;
    const int per_group = out.channels / groups;
    const std::size_t kernel = static_cast<std::size_t>(layer.kernel_rows) * layer.kernel_columns;
    for (int channel = 0; channel < out.channels; ++channel) {
        const int first = channel / per_group * inner;
        const std::int8_t *weights = bytes(layer.weights) + channel * inner * kernel;
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                std::int64_t total = words(layer.bias)[channel];
                for (int tap = 0; tap < static_cast<int>(kernel); ++tap) {
                    const int y = row * layer.stride + tap / layer.kernel_columns - layer.padding;
                    const int x =
                        column * layer.stride + tap % layer.kernel_columns - layer.padding;
                    const bool inside = in.inside(y, x);
                    for (int index = 0; index < inner; ++index) {
                        total += weights[index * kernel + tap] *
                                 (inside ? in.at(first + index, y, x) : layer.pad_value);
                    }
                }
                out.at(channel, row, column) =
                    rectified(layer, narrowed(layer, round_shift(total * words(layer.multiplier)[channel],
                                                          words(layer.shifts)[channel])));
            }
        }
    }
}

// Average, low-pass and maximum over a window, one channel at a time.
inline void window(const Record &layer, const Tensor &in, Tensor &out) {
    for (int channel = 0; channel < out.channels; ++channel) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                std::int64_t total = 0;
                std::int32_t greatest = -128;
                for (int tap = 0; tap < layer.kernel_rows * layer.kernel_columns; ++tap) {
                    const int y = row * layer.stride + tap / layer.kernel_columns - layer.padding;
                    const int x =
                        column * layer.stride + tap % layer.kernel_columns - layer.padding;
                    const bool inside = in.inside(y, x);
                    if (!inside && layer.kind != AVERAGE_POOL) {
                        continue;
                    }
                    const std::int32_t value = inside ? in.at(channel, y, x) : layer.pad_value;
                    greatest = value > greatest ? value : greatest;
                    total += layer.kind == DOWNSAMPLE
                                 ? static_cast<std::int64_t>(words(layer.weights)[tap]) * value
                                 : value;
                }
                out.at(channel, row, column) =
                    layer.kind == MAX_POOL ? greatest
                                           : narrowed(layer, round_shift(total * layer.scale[0] +
                                                                             offset_of(layer),
                                                                         layer.shift));
            }
        }
    }
}

inline void upsample(const Tensor &in, Tensor &out) {
    for (int channel = 0; channel < out.channels; ++channel) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                out.at(channel, row, column) = in.at(channel, row >> 1, column >> 1);
            }
        }
    }
}

// 256 entries for int8; 257 for int16, linear between them; one table, or one a channel.
inline std::int32_t looked_up(const Record &layer, std::int64_t value, std::size_t channel) {
    const bool wide = layer.input[0].bits == 16;
    const std::int32_t entries = wide ? 257 : 256;
    const std::int32_t *table =
        words(layer.table) + (layer.table.count > entries ? channel * entries : 0);
    if (!wide) {
        return table[value + 128];
    }
    const std::int64_t index = (value >> 8) + 128, part = value & 255;
    return narrowed(
        layer, round_shift(table[index] * (256 - part) + table[index + 1] * part, 8));
}

// Add, multiply, affine, requantize and lookup: one output value from the same position.
inline void elementwise(const Record &layer, const Tensor &in, const Tensor &other, Tensor &out) {
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    for (std::size_t index = 0; index < out.value.size(); ++index) {
        const std::size_t channel = index / positions;
        const std::int64_t value = in.value[index];
        std::int32_t result = 0;
        if (layer.kind == ADD) {
            const std::int64_t both =
                value * layer.scale[0] + std::int64_t{other.value[index]} * layer.scale[1] +
                offset_of(layer);
            result = rectified(layer, narrowed(layer, round_shift(both, layer.shift)));
        } else if (layer.kind == MULTIPLY) {
            // The second operand may be one channel or one position, repeated.
            const std::size_t place = other.channels == 1               ? index % positions
                                      : other.rows * other.columns == 1 ? channel
                                                                        : index;
            const std::int64_t product =
                (value - layer.zeros[0]) * (other.value[place] - layer.zeros[1]);
            result = narrowed(layer, round_shift(product * layer.scale[0] + offset_of(layer),
                                                 layer.shift));
        } else if (layer.kind == AFFINE) {
            const std::int64_t total =
                value * words(layer.multiplier)[channel] + words(layer.offset)[channel];
            result =
                rectified(layer, narrowed(layer, round_shift(total, words(layer.shifts)[channel])));
        } else if (layer.kind == REQUANTIZE) {
            result = narrowed(layer, round_shift(value * layer.scale[0], layer.shift));
        } else {
            result = looked_up(layer, value, channel);
        }
        out.value[index] = result;
    }
}

inline void softmax(const Record &layer, const Tensor &in, Tensor &out) {
    const int digits = MAX_SHIFT_RECIPROCAL - layer.scale[0];
    for (int row = 0; row < in.rows; ++row) {
        for (int column = 0; column < in.columns; ++column) {
            std::int32_t greatest = -128;
            for (int channel = 0; channel < in.channels; ++channel) {
                const std::int32_t value = in.at(channel, row, column);
                greatest = value > greatest ? value : greatest;
            }
            std::int64_t sum = 0;
            for (int channel = 0; channel < in.channels; ++channel) {
                sum += words(layer.table)[greatest - in.at(channel, row, column)];
            }
            const std::int64_t reciprocal = (std::int64_t{1} << MAX_SHIFT_RECIPROCAL) / sum;
            for (int channel = 0; channel < in.channels; ++channel) {
                const std::int64_t part =
                    words(layer.table)[greatest - in.at(channel, row, column)];
                out.at(channel, row, column) =
                    narrowed(layer, round_shift(part * reciprocal, digits));
            }
        }
    }
}

// Grid k (channels 2k and 2k + 1) makes the k-th group of the image's channels.
inline void grid_sample(const Record &layer, const Tensor &image, const Tensor &grids, Tensor &out) {
    const int digits = layer.fraction_bits;
    const std::int32_t one = 1 << digits;
    for (int grid = 0; grid < grids.channels / 2; ++grid) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                const std::int32_t x = grids.at(2 * grid, row, column);
                const std::int32_t y = grids.at(2 * grid + 1, row, column);
                const std::int32_t right_part = x & (one - 1), low_part = y & (one - 1);
                for (int channel = 0; channel < image.channels; ++channel) {
                    std::int64_t total = 0;
                    for (int corner = 0; corner < 4; ++corner) {
                        const int from_row = (y >> digits) + (corner >> 1);
                        const int from_column = (x >> digits) + (corner & 1);
                        if (image.inside(from_row, from_column)) {
                            const std::int64_t weight =
                                (corner & 1 ? right_part : one - right_part) *
                                (corner >> 1 ? low_part : one - low_part);
                            total += weight * image.at(channel, from_row, from_column);
                        }
                    }
                    out.at(grid * image.channels + channel, row, column) =
                        saturate8(round_shift(total, 2 * digits));
                }
            }
        }
    }
}

inline void concat(const Tensor &first, const Tensor &second, Tensor &out) {
    std::size_t to = 0;
    for (const Tensor *part : {&first, &second}) {
        for (const std::int32_t value : part->value) {
            out.value[to++] = value;
        }
    }
}

// The grid's rows and columns are the record's scalars; entry 0 stays zero.
inline void displacements(const Record &layer, const Tensor &source, const Tensor &driving, Tensor &out) {
    const std::int32_t size[2] = {layer.scale[1] - 1, layer.scale[0] - 1};
    const int digits = KEYPOINT_BITS + 1 - layer.fraction_bits;
    for (int axis = 0; axis < 2; ++axis) {
        for (int point = 0; point < source.rows; ++point) {
            const std::int64_t moved = source.at(axis, point, 0) - driving.at(axis, point, 0);
            out.at(axis, point + 1, 0) = saturate16(round_shift(moved * size[axis], digits));
        }
    }
}

inline std::int64_t profile(const Record &layer, std::int32_t coordinate, std::int32_t point) {
    const std::int32_t difference = coordinate - point;
    const std::int64_t entry = round_shift(difference < 0 ? -difference : difference, 3);
    return words(layer.table)[entry < GAUSSIAN_ENTRIES ? entry : GAUSSIAN_ENTRIES - 1];
}

inline void heat_maps(const Record &layer, const Tensor &source, const Tensor &driving, Tensor &out) {
    for (int point = 0; point < source.rows; ++point) {
        for (int row = 0; row < out.rows; ++row) {
            const std::int32_t y = words(layer.row_axis)[row];
            for (int column = 0; column < out.columns; ++column) {
                const std::int32_t x = words(layer.column_axis)[column];
                const std::int64_t here = profile(layer, y, driving.at(1, point, 0)) *
                                          profile(layer, x, driving.at(0, point, 0));
                const std::int64_t there = profile(layer, y, source.at(1, point, 0)) *
                                           profile(layer, x, source.at(0, point, 0));
                out.at(point + 1, row, column) =
                    saturate8(round_shift(here - there, GAUSSIAN_BITS - MASK_BITS));
            }
        }
    }
}

inline void sparse_flow(const Record &layer, const Tensor &shift, Tensor &out) {
    for (int channel = 0; channel < out.channels; ++channel) {
        const std::int32_t moved = shift.at(channel % 2, channel / 2, 0);
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                const std::int32_t here = (channel % 2 ? row : column) << layer.fraction_bits;
                out.at(channel, row, column) = saturate16(here + moved);
            }
        }
    }
}

inline void flow_sum(const Record &layer, const Tensor &masks, const Tensor &shift, Tensor &out) {
    for (int axis = 0; axis < 2; ++axis) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                std::int64_t total = 0;
                for (int channel = 0; channel < masks.channels; ++channel) {
                    total += std::int64_t{masks.at(channel, row, column)} *
                             shift.at(axis, channel, 0);
                }
                const std::int64_t here = (axis ? row : column) << layer.fraction_bits;
                out.at(axis, row, column) = saturate16(here + round_shift(total, MASK_BITS));
            }
        }
    }
}

} // namespace cosim

#endif // COSIM_HOST_OPERATORS_HPP
