// C simulation: the units of the overlay as a deterministic scheduler driven by tokens.
// It has no clock and is not synthesized; overlay.cpp is.
#ifndef COSIM_SCHEDULER_HPP
#define COSIM_SCHEDULER_HPP

#include <cstddef>
#include <cstdint>

#include "config.hpp"

namespace cosim {

// Operations [first, last) of the table, `repeats` times, counted from repeat `repeat_first`.
struct Range {
    std::uint32_t first;
    std::uint32_t last;
    std::uint32_t repeats;
    std::uint32_t repeat_first;
};

enum class Status : std::int32_t { DONE = 0, BAD_COMMAND = 1, DEADLOCK = 2, BAD_HOST = 3 };

// What ran. `message` says what went wrong, in one line.
struct Report {
    Status status;
    std::uint64_t operations[UNIT_COUNT];
    std::uint64_t macs;
    char message[512];
};

// Runs a layer on the host; false if it does not know the layer.
using HostFunction = bool (*)(std::uint32_t layer, std::uint8_t *memory, std::size_t bytes);

struct Simulation {
    const std::uint8_t *descriptors;
    std::size_t descriptor_count;
    std::uint8_t *memory;
    std::size_t memory_bytes;
    // 0: units take turns. Otherwise the seed of a random choice among units that may run.
    std::uint64_t order;
    // True: only units in fabric, as between two starts; waits on the host are dropped.
    bool fabric_only;
    HostFunction host;
};

// Tokens as after reset, buffers as they are.
void reset_fabric();

// Runs the ranges one behind the other until every operation is done or none can start.
Report run(const Simulation &simulation, const Range *ranges, std::size_t range_count);

} // namespace cosim

#endif // COSIM_SCHEDULER_HPP
