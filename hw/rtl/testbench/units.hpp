// What the test bench knows of a unit: its signals in the compiled model, commands and bursts.
// It moves nothing; harness.cpp does.
#pragma once
#include "Vtop.h"
#include "flat_memory.hpp"

#include <cstdint>
#include <deque>
#include <vector>

namespace {

constexpr std::size_t COMMAND_BYTES = 64;
enum Status { FINISHED = 0, PAUSED = 1, OUT_OF_CYCLES = 2, STARVED = 3, BAD_ADDRESS = 4,
              BAD_BURST = 5 };
enum Kind { COMPUTE = 0, READ = 1, WRITE = 2 };

struct Pins { // one unit's signals in the compiled model
    int kind = COMPUTE;
    WData *command = nullptr;
    CData *command_valid = nullptr, *command_ready = nullptr;
    CData *request = nullptr, *request_ready = nullptr;
    IData *address = nullptr;
    CData *data_valid = nullptr; // r_valid out of the memory, or w_valid into it
    CData *last = nullptr;       // r_last
    CData *data_ready = nullptr; // w_ready
    CData *response = nullptr;   // b_valid
    CData *length = nullptr;     // beats - 1
    void *strobe = nullptr;      // a bit for each `strobe_bytes` of the port
    int strobe_bytes = 8;
    void *data = nullptr;        // 4, 8 or 16 bytes
};

struct Lite { // the AXI-Lite slave of a whole IP; null in a bare overlay
    SData *write_address = nullptr, *read_address = nullptr;
    IData *write_data = nullptr, *read_data = nullptr;
    CData *write_address_valid = nullptr, *write_valid = nullptr, *written = nullptr;
    CData *write_taken = nullptr, *read_valid = nullptr, *data_valid = nullptr;
    CData *write_ready = nullptr, *read_ready = nullptr;
    CData *data_taken = nullptr, *interrupt = nullptr;
};

// bind(Vtop &, pins, config, lite), and clock, reset, go, started, ended, overflow, counter.
#include "glue.hpp"

constexpr std::int64_t FAR = std::int64_t{1} << 62; // later than any cycle

struct Burst {
    std::uint32_t address;
    std::int64_t beats, moved;
    Grant grant;
};

struct Unit {
    Pins pins;
    const std::uint8_t *commands = nullptr;
    std::int64_t count = 0, sent = 0, started = 0, ended = 0;
    std::int64_t *start = nullptr, *end = nullptr;
    int channel = 0, order = 0, width = 8;
    std::int64_t lead = 1, trail = 0, requested = -1, granted = -1;
    bool pauses = false;
    std::deque<Burst> bursts;
};

// A memory outside this file. It is called at the end of a cycle in which requests appear, and
// in the cycles that it asked for; it answers with bench_grant, bench_write and bench_done, and
// returns the next cycle in which it wants to be called.
using External = std::int64_t (*)(std::int64_t cycle, int count, const int *unit,
                                  const std::uint32_t *address, const std::int64_t *beats);

} // namespace
