#include "host.hpp"

#include <cstring>

#include "host_attention.hpp"
#include "host_operators.hpp"

namespace cosim {
namespace {

constexpr std::int32_t MAGIC = 0x54534F48;
constexpr std::int32_t VERSION = 4;

const std::uint8_t *table_bytes = nullptr;
std::int32_t record_count = 0;

} // namespace

const std::int32_t *words(const Array &array) {
    return reinterpret_cast<const std::int32_t *>(table_bytes + array.offset);
}

const std::int8_t *bytes(const Array &array) {
    return reinterpret_cast<const std::int8_t *>(table_bytes + array.offset);
}

namespace {

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

void compute(const Record &layer, const Tensor &first, const Tensor &second, const Tensor &third,
             Tensor &out) {
    switch (layer.kind) {
    case CONVOLUTION:
        return convolution(layer, first, out);
    case UPSAMPLE:
        return upsample(first, out);
    case AVERAGE_POOL:
    case DOWNSAMPLE:
    case MAX_POOL:
        return window(layer, first, out);
    case ADD:
    case MULTIPLY:
    case AFFINE:
    case LOOKUP:
    case REQUANTIZE:
        return elementwise(layer, first, second, out);
    case SOFTMAX:
        return softmax(layer, first, out);
    case GRID_SAMPLE:
        return grid_sample(layer, first, second, out);
    case CONCAT:
        return concat(first, second, out);
    case DISPLACEMENTS:
        return displacements(layer, first, second, out);
    case HEAT_MAPS:
        return heat_maps(layer, first, second, out);
    case SPARSE_FLOW:
        return sparse_flow(layer, first, out);
    case FLOW_SUM:
        return flow_sum(layer, first, second, out);
    case MATMUL:
        return matmul(layer, first, second, out);
    case TRANSPOSE:
        return transpose(first, out);
    case GATHER:
        return gather(layer, first, out);
    case RESHAPE:
        out.value = first.value;
        return;
    case SAMPLER:
        return sampler(layer, first, second, third, out);
    case ROW:
        return row(layer, first, out);
    default:
        return group_norm(layer, first, second, third, out);
    }
}

void run(const Record &layer, std::uint8_t *memory) {
    const Tensor first = read(layer.input[0], memory);
    const Tensor second = read(layer.input[1], memory);
    const Tensor third = read(layer.input[2], memory);
    Tensor out(layer.output.channels, layer.output.rows, layer.output.columns);
    compute(layer, first, second, third, out);
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
            !fits(record.input[2], size) || !fits(record.output, size)) {
            return false;
        }
        run(record, memory);
        return true;
    }
    return false;
}

} // namespace cosim
