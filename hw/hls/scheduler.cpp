#include "scheduler.hpp"

#include <cstdio>
#include <cstring>

#include "check.hpp"
#include "engines.hpp"

namespace cosim {
namespace {

// The on-chip memories.
InputWord input[COLUMNS][INPUT_SIZE];
WeightWord weight[WEIGHT_SIZE];
#define COSIM_MEMORY(name, buffer, size) Beat name[size];
COSIM_BEAT_MEMORIES(COSIM_MEMORY)
NormChannel norm_channels[NORM_PARAMETERS_SIZE];
AccumulatorWord accumulator[ACCUMULATOR_SIZE];
OutputWord skip[OUTPUT_SIZE];
OutputWord output[OUTPUT_SIZE];
Beat tensors[TENSOR_SIZE];
int tokens[CHANNEL_COUNT + 1];

struct Queue {
    Command entry[COMMAND_DEPTH];
    std::uint32_t index[COMMAND_DEPTH];
    int first;
    int count;
};

Queue queues[UNIT_COUNT];

// The place of the dispatcher in the ranges.
struct Place {
    std::size_t range;
    std::uint32_t repeat;
    std::uint32_t row;
};

Command command_at(const Simulation &simulation, std::uint32_t row, std::uint32_t repeat) {
    Command command;
    std::memcpy(command.word, simulation.descriptors + std::size_t{row} * DESCRIPTOR_BYTES,
                DESCRIPTOR_BYTES);
    const Opcode opcode = static_cast<Opcode>(decode_header(command).opcode);
    if (opcode == Opcode::LOAD || opcode == Opcode::STORE) {
        const Transfer item = decode_transfer(command);
        command.word[TRANSFER_ADDRESS_WORD] =
            item.address + repeat * static_cast<std::uint32_t>(item.advance);
    }
    return command;
}

// The dispatcher is the fetch unit itself; the host's turn comes between two starts.
bool runs(const Simulation &simulation, int unit) {
    return UNIT_ROLE[unit] != Role::FETCH &&
           (UNIT_ROLE[unit] != Role::HOST || !simulation.fabric_only);
}

// Puts commands into the queues in table order until one is full. True if any moved.
bool dispatch(const Simulation &simulation, const Range *ranges, std::size_t range_count,
              Place &place) {
    bool moved = false;
    while (place.range < range_count) {
        const Range &range = ranges[place.range];
        if (place.row >= range.last) {
            place.row = range.first;
            ++place.repeat;
        }
        if (place.repeat >= range.repeats || range.first >= range.last) {
            ++place.range;
            place.repeat = 0;
            place.row = place.range < range_count ? ranges[place.range].first : 0;
            continue;
        }
        const Command command =
            command_at(simulation, place.row, range.repeat_first + place.repeat);
        const int unit = decode_header(command).unit;
        if (unit >= UNIT_COUNT) {
            return moved;
        }
        if (runs(simulation, unit)) {
            Queue &queue = queues[unit];
            if (queue.count == COMMAND_DEPTH) {
                return moved;
            }
            const int slot = (queue.first + queue.count) % COMMAND_DEPTH;
            queue.entry[slot] = command;
            queue.index[slot] = place.row;
            ++queue.count;
        }
        ++place.row;
        moved = true;
    }
    return moved;
}

std::uint32_t wait_mask(const Simulation &simulation, int unit, const Command &command) {
    const std::uint32_t mask = static_cast<std::uint32_t>(decode_header(command).wait);
    return mask & (simulation.fabric_only ? FABRIC_WAIT[unit] : PROGRAM_WAIT[unit]);
}

bool may_start(const Simulation &simulation, int unit) {
    const Queue &queue = queues[unit];
    if (queue.count == 0) {
        return false;
    }
    const std::uint32_t mask = wait_mask(simulation, unit, queue.entry[queue.first]);
    for (int bit = 0; bit < MAX_LOCAL_CHANNELS; ++bit) {
        if ((mask >> bit & 1) && (INCOMING[unit][bit] < 0 || tokens[INCOMING[unit][bit]] == 0)) {
            return false;
        }
    }
    return true;
}

bool execute(const Simulation &simulation, int unit, const Command &command, Report &report) {
    Beat *memory = reinterpret_cast<Beat *>(simulation.memory);
    switch (UNIT_ROLE[unit]) {
    case Role::INPUT:
        load_tile(decode_transfer(command), decode_load_arguments(command),
                  ReadSide{memory, tensors}, input, skip);
        return true;
    case Role::WEIGHT:
        load_block(decode_transfer(command), decode_load_arguments(command), memory, weight,
                   COSIM_BEAT_ARGUMENTS);
        return true;
    case Role::OUTPUT:
        store_tile(decode_transfer(command), decode_store_arguments(command), output,
                   WriteSide{memory, tensors});
        return true;
    case Role::ENGINE:
        execute_engine(command, input, weight, COSIM_BEAT_ARGUMENTS, norm_channels, accumulator,
                       skip, output);
        return true;
    case Role::FETCH:
    case Role::HOST:
        break;
    }
    const std::uint32_t layer = static_cast<std::uint32_t>(decode_host_arguments(command).layer);
    if (simulation.host != nullptr &&
        simulation.host(layer, simulation.memory, simulation.memory_bytes)) {
        return true;
    }
    report.status = Status::BAD_HOST;
    std::snprintf(report.message, sizeof report.message,
                  "the host has no program for layer %u", layer);
    return false;
}

bool step(const Simulation &simulation, int unit, Report &report) {
    Queue &queue = queues[unit];
    const Command command = queue.entry[queue.first];
    const std::uint32_t row = queue.index[queue.first];
    queue.first = (queue.first + 1) % COMMAND_DEPTH;
    --queue.count;
    const char *rule = broken_rule(command, simulation.memory_bytes);
    if (rule[0] != '\0') {
        report.status = Status::BAD_COMMAND;
        std::snprintf(report.message, sizeof report.message, "operation %u of unit %s: %s", row,
                      UNIT_NAME[unit], rule);
        return false;
    }
    const std::uint32_t wait = wait_mask(simulation, unit, command);
    const std::uint32_t signal = static_cast<std::uint32_t>(decode_header(command).signal) &
                                 (simulation.fabric_only ? FABRIC_SIGNAL : PROGRAM_SIGNAL)[unit];
    for (int bit = 0; bit < MAX_LOCAL_CHANNELS; ++bit) {
        if (wait >> bit & 1) {
            --tokens[INCOMING[unit][bit]];
        }
    }
    if (!execute(simulation, unit, command, report)) {
        return false;
    }
    for (int bit = 0; bit < MAX_LOCAL_CHANNELS; ++bit) {
        if ((signal >> bit & 1) && OUTGOING[unit][bit] >= 0) {
            ++tokens[OUTGOING[unit][bit]];
        }
    }
    ++report.operations[unit];
    report.macs += bits<MACS_OFFSET, 32>(command);
    return true;
}

std::uint64_t next_random(std::uint64_t &state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

void explain_deadlock(const Simulation &simulation, Report &report) {
    report.status = Status::DEADLOCK;
    std::size_t used = static_cast<std::size_t>(
        std::snprintf(report.message, sizeof report.message, "no operation can start:"));
    for (int unit = 0; unit < UNIT_COUNT && used < sizeof report.message; ++unit) {
        const Queue &queue = queues[unit];
        if (queue.count == 0) {
            continue;
        }
        const std::uint32_t mask = wait_mask(simulation, unit, queue.entry[queue.first]);
        for (int bit = 0; bit < MAX_LOCAL_CHANNELS && used < sizeof report.message; ++bit) {
            const int channel = INCOMING[unit][bit];
            if ((mask >> bit & 1) && (channel < 0 || tokens[channel] == 0)) {
                const int wrote = std::snprintf(
                    report.message + used, sizeof report.message - used,
                    " operation %u of unit %s waits for channel %s;", queue.index[queue.first],
                    UNIT_NAME[unit], channel < 0 ? "(none)" : CHANNEL_NAME[channel]);
                used += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
            }
        }
    }
}

} // namespace

void reset_fabric() {
    for (int channel = 0; channel < CHANNEL_COUNT; ++channel) {
        tokens[channel] = CHANNEL_INITIAL[channel];
    }
    for (int unit = 0; unit < UNIT_COUNT; ++unit) {
        queues[unit].first = 0;
        queues[unit].count = 0;
    }
}

Report run(const Simulation &simulation, const Range *ranges, std::size_t range_count) {
    Report report = {};
    Place place = {0, 0, range_count > 0 ? ranges[0].first : 0};
    std::uint64_t random = simulation.order;
    bool moved = true;
    while (moved) {
        moved = dispatch(simulation, ranges, range_count, place);
        const int turn =
            random ? static_cast<int>(next_random(random) % static_cast<unsigned>(UNIT_COUNT)) : 0;
        for (int offset = 0; offset < UNIT_COUNT; ++offset) {
            const int unit = (turn + offset) % UNIT_COUNT;
            // In a random order one operation runs between two draws; in turns, all that may.
            while (may_start(simulation, unit)) {
                if (!step(simulation, unit, report)) {
                    return report;
                }
                moved = true;
                if (random != 0) {
                    offset = UNIT_COUNT;
                    break;
                }
            }
        }
    }
    bool waiting = place.range < range_count;
    for (int unit = 0; unit < UNIT_COUNT; ++unit) {
        waiting = waiting || queues[unit].count > 0;
    }
    if (waiting) {
        explain_deadlock(simulation, report);
    }
    return report;
}

} // namespace cosim
