#include "host.hpp"

#include <cstring>
#include <vector>

#include "arithmetic.hpp"

namespace cosim {
namespace {

constexpr std::int32_t MAGIC = 0x54534F48;
constexpr std::int32_t VERSION = 1;
constexpr int RECORD_WORDS = 64;
constexpr int MAX_SHIFT_RECIPROCAL = 40;
constexpr int MASK_BITS = 7;
constexpr int KEYPOINT_BITS = 14;
constexpr int GAUSSIAN_BITS = 30;
constexpr int GAUSSIAN_ENTRIES = 1024;

enum Operator : std::int32_t {
    NOTHING, CONVOLUTION, UPSAMPLE, AVERAGE_POOL, DOWNSAMPLE, MAX_POOL, ADD, MULTIPLY, AFFINE,
    LOOKUP, SOFTMAX, GRID_SAMPLE, CONCAT, DISPLACEMENTS, HEAT_MAPS, SPARSE_FLOW, FLOW_SUM
};

struct Array {
    std::int32_t offset, count;
};

struct Place {
    std::int32_t address, channels, rows, columns, bits, places, unused[2];
};

// One record of the table, word by word.
struct Record {
    std::int32_t layer, kind, relu, fraction_bits;
    std::int32_t kernel_rows, kernel_columns, stride, padding, groups;
    std::int32_t scale[2], shift;
    Array weights, bias, multiplier, offset, shifts, table, row_axis, column_axis;
    Place input[2], output;
    std::int32_t unused[12];
};
static_assert(sizeof(Record) == RECORD_WORDS * 4, "a record is 64 words");

const std::uint8_t *table_bytes = nullptr;
std::int32_t record_count = 0;

const std::int32_t *words(const Array &array) {
    return reinterpret_cast<const std::int32_t *>(table_bytes + array.offset);
}

const std::int8_t *bytes(const Array &array) {
    return reinterpret_cast<const std::int8_t *>(table_bytes + array.offset);
}

// A tensor with its channels in order, [channel][row][column].
struct Tensor {
    int channels, rows, columns;
    std::vector<std::int32_t> value;

    Tensor(int c, int r, int w)
        : channels(c), rows(r), columns(w), value(static_cast<std::size_t>(c) * r * w) {}

    std::int32_t &at(int channel, int row, int column) {
        return value[(static_cast<std::size_t>(channel) * rows + row) * columns + column];
    }
    std::int32_t at(int channel, int row, int column) const {
        return value[(static_cast<std::size_t>(channel) * rows + row) * columns + column];
    }
    bool inside(int row, int column) const {
        return row >= 0 && row < rows && column >= 0 && column < columns;
    }
};

std::size_t byte_of(const Place &place, int channel, int position) {
    const Array places = {place.places, place.channels};
    const int lanes = place.bits == 16 ? 4 : 8;
    const int lane = words(places)[channel];
    const std::size_t beat =
        static_cast<std::size_t>(lane / lanes) * place.rows * place.columns + position;
    return static_cast<std::size_t>(place.address) + beat * 8 + lane % lanes * (place.bits / 8);
}

Tensor read(const Place &place, const std::uint8_t *memory) {
    Tensor tensor(place.channels, place.rows, place.columns);
    const int positions = place.rows * place.columns;
    for (int channel = 0; channel < place.channels; ++channel) {
        for (int position = 0; position < positions; ++position) {
            const std::uint8_t *from = memory + byte_of(place, channel, position);
            const std::size_t to = static_cast<std::size_t>(channel) * positions + position;
            if (place.bits == 16) {
                std::int16_t value;
                std::memcpy(&value, from, 2);
                tensor.value[to] = value;
            } else {
                tensor.value[to] = static_cast<std::int8_t>(*from);
            }
        }
    }
    return tensor;
}

// Lanes that no channel has become zero, as every reader of a padded plane expects.
void write(const Place &place, const Tensor &tensor, std::uint8_t *memory) {
    const int positions = place.rows * place.columns;
    const int lanes = place.bits == 16 ? 4 : 8;
    const Array places = {place.places, place.channels};
    int planes = 0;
    for (int channel = 0; channel < place.channels; ++channel) {
        const int plane = words(places)[channel] / lanes + 1;
        planes = plane > planes ? plane : planes;
    }
    std::memset(memory + place.address, 0, static_cast<std::size_t>(planes) * positions * 8);
    for (int channel = 0; channel < place.channels; ++channel) {
        for (int position = 0; position < positions; ++position) {
            const std::int32_t value =
                tensor.value[static_cast<std::size_t>(channel) * positions + position];
            std::uint8_t *to = memory + byte_of(place, channel, position);
            if (place.bits == 16) {
                const std::int16_t narrow = static_cast<std::int16_t>(value);
                std::memcpy(to, &narrow, 2);
            } else {
                *to = static_cast<std::uint8_t>(value);
            }
        }
    }
}

std::int32_t rectified(const Record &layer, std::int32_t value) {
    return layer.relu && value < 0 ? 0 : value;
}

void convolution(const Record &layer, const Tensor &in, Tensor &out) {
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
                    if (!in.inside(y, x)) {
                        continue;
                    }
                    for (int index = 0; index < inner; ++index) {
                        total += weights[index * kernel + tap] * in.at(first + index, y, x);
                    }
                }
                out.at(channel, row, column) =
                    rectified(layer, requantize(total, words(layer.multiplier)[channel],
                                                words(layer.shifts)[channel]));
            }
        }
    }
}

// Average, low-pass and maximum over a window, one channel at a time.
void window(const Record &layer, const Tensor &in, Tensor &out) {
    for (int channel = 0; channel < out.channels; ++channel) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                std::int64_t total = 0;
                std::int32_t greatest = -128;
                for (int tap = 0; tap < layer.kernel_rows * layer.kernel_columns; ++tap) {
                    const int y = row * layer.stride + tap / layer.kernel_columns - layer.padding;
                    const int x =
                        column * layer.stride + tap % layer.kernel_columns - layer.padding;
                    if (!in.inside(y, x)) {
                        continue;
                    }
                    const std::int32_t value = in.at(channel, y, x);
                    greatest = value > greatest ? value : greatest;
                    total += layer.kind == DOWNSAMPLE
                                 ? static_cast<std::int64_t>(words(layer.weights)[tap]) * value
                                 : value;
                }
                out.at(channel, row, column) =
                    layer.kind == MAX_POOL ? greatest
                                           : requantize(total, layer.scale[0], layer.shift);
            }
        }
    }
}

void upsample(const Tensor &in, Tensor &out) {
    for (int channel = 0; channel < out.channels; ++channel) {
        for (int row = 0; row < out.rows; ++row) {
            for (int column = 0; column < out.columns; ++column) {
                out.at(channel, row, column) = in.at(channel, row >> 1, column >> 1);
            }
        }
    }
}

// Add, multiply, affine and lookup: one output value from the same position.
void elementwise(const Record &layer, const Tensor &in, const Tensor &other, Tensor &out) {
    const std::size_t positions = static_cast<std::size_t>(in.rows) * in.columns;
    for (std::size_t index = 0; index < out.value.size(); ++index) {
        const std::size_t channel = index / positions;
        const std::int64_t value = in.value[index];
        std::int32_t result = 0;
        if (layer.kind == ADD) {
            const std::int64_t both =
                value * layer.scale[0] + std::int64_t{other.value[index]} * layer.scale[1];
            result = rectified(layer, saturate8(round_shift(both, layer.shift)));
        } else if (layer.kind == MULTIPLY) {
            const std::int32_t factor =
                other.value[other.channels == 1 ? index % positions : index];
            result = requantize(value * factor, layer.scale[0], layer.shift);
        } else if (layer.kind == AFFINE) {
            const std::int64_t total =
                value * words(layer.multiplier)[channel] + words(layer.offset)[channel];
            result =
                rectified(layer, saturate8(round_shift(total, words(layer.shifts)[channel])));
        } else {
            result = words(layer.table)[value + 128];
        }
        out.value[index] = result;
    }
}

void softmax(const Record &layer, const Tensor &in, Tensor &out) {
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
                out.at(channel, row, column) = saturate8(round_shift(part * reciprocal, digits));
            }
        }
    }
}

// Grid k (channels 2k and 2k + 1) makes the k-th group of the image's channels.
void grid_sample(const Record &layer, const Tensor &image, const Tensor &grids, Tensor &out) {
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

void concat(const Tensor &first, const Tensor &second, Tensor &out) {
    std::size_t to = 0;
    for (const Tensor *part : {&first, &second}) {
        for (const std::int32_t value : part->value) {
            out.value[to++] = value;
        }
    }
}

// The grid's rows and columns are the record's scalars; entry 0 stays zero.
void displacements(const Record &layer, const Tensor &source, const Tensor &driving, Tensor &out) {
    const std::int32_t size[2] = {layer.scale[1] - 1, layer.scale[0] - 1};
    const int digits = KEYPOINT_BITS + 1 - layer.fraction_bits;
    for (int axis = 0; axis < 2; ++axis) {
        for (int point = 0; point < source.rows; ++point) {
            const std::int64_t moved = source.at(axis, point, 0) - driving.at(axis, point, 0);
            out.at(axis, point + 1, 0) = saturate16(round_shift(moved * size[axis], digits));
        }
    }
}

std::int64_t profile(const Record &layer, std::int32_t coordinate, std::int32_t point) {
    const std::int32_t difference = coordinate - point;
    const std::int64_t entry = round_shift(difference < 0 ? -difference : difference, 3);
    return words(layer.table)[entry < GAUSSIAN_ENTRIES ? entry : GAUSSIAN_ENTRIES - 1];
}

void heat_maps(const Record &layer, const Tensor &source, const Tensor &driving, Tensor &out) {
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

void sparse_flow(const Record &layer, const Tensor &shift, Tensor &out) {
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

void flow_sum(const Record &layer, const Tensor &masks, const Tensor &shift, Tensor &out) {
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

void run(const Record &layer, std::uint8_t *memory) {
    const Tensor first = read(layer.input[0], memory);
    const Tensor second =
        layer.input[1].channels > 0 ? read(layer.input[1], memory) : Tensor(0, 0, 0);
    Tensor out(layer.output.channels, layer.output.rows, layer.output.columns);
    switch (layer.kind) {
    case CONVOLUTION:
        convolution(layer, first, out);
        break;
    case UPSAMPLE:
        upsample(first, out);
        break;
    case AVERAGE_POOL:
    case DOWNSAMPLE:
    case MAX_POOL:
        window(layer, first, out);
        break;
    case ADD:
    case MULTIPLY:
    case AFFINE:
    case LOOKUP:
        elementwise(layer, first, second, out);
        break;
    case SOFTMAX:
        softmax(layer, first, out);
        break;
    case GRID_SAMPLE:
        grid_sample(layer, first, second, out);
        break;
    case CONCAT:
        concat(first, second, out);
        break;
    case DISPLACEMENTS:
        displacements(layer, first, second, out);
        break;
    case HEAT_MAPS:
        heat_maps(layer, first, second, out);
        break;
    case SPARSE_FLOW:
        sparse_flow(layer, first, out);
        break;
    default:
        flow_sum(layer, first, second, out);
        break;
    }
    write(layer.output, out, memory);
}

bool fits(const Place &place, std::size_t memory_bytes) {
    if (place.channels == 0) {
        return true;
    }
    for (const int channel : {0, place.channels - 1}) {
        if (byte_of(place, channel, place.rows * place.columns - 1) + 8 > memory_bytes + 7) {
            return false;
        }
    }
    return true;
}

} // namespace

bool load_host_layers(const std::uint8_t *records, std::size_t size) {
    std::int32_t header[4];
    if (size < sizeof header) {
        return false;
    }
    std::memcpy(header, records, sizeof header);
    if (header[0] != MAGIC || header[1] != VERSION || header[2] < 0 ||
        size < sizeof header + static_cast<std::size_t>(header[2]) * sizeof(Record)) {
        return false;
    }
    table_bytes = records;
    record_count = header[2];
    return true;
}

bool run_host_layer(std::uint32_t layer, std::uint8_t *memory, std::size_t size) {
    for (std::int32_t index = 0; index < record_count; ++index) {
        Record record;
        std::memcpy(&record, table_bytes + 16 + index * sizeof(Record), sizeof record);
        if (record.layer != static_cast<std::int32_t>(layer)) {
            continue;
        }
        if (record.kind == NOTHING) {
            return true;
        }
        if (!fits(record.input[0], size) || !fits(record.input[1], size) ||
            !fits(record.output, size)) {
            return false;
        }
        run(record, memory);
        return true;
    }
    return false;
}

} // namespace cosim
