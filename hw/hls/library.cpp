// The C simulation behind a C interface, for Python.
// It owns no memory: the caller passes the memory image and the descriptors.
#include <cstring>

#include "host.hpp"
#include "scheduler.hpp"

extern "C" {

int cosim_unit_count() { return cosim::UNIT_COUNT; }

void cosim_reset() { cosim::reset_fabric(); }

// `ranges`: first, last, repeats, repeat_first of each. `operations`: UNIT_COUNT entries.
int cosim_run(const std::uint8_t *descriptors, std::uint64_t descriptor_count,
              std::uint8_t *memory, std::uint64_t memory_bytes, const std::uint32_t *ranges,
              std::uint64_t range_count, std::uint64_t order, int fabric_only,
              std::uint64_t *operations, std::uint64_t *macs, char *message) {
    const cosim::Simulation simulation = {descriptors, descriptor_count,
                                          memory,      memory_bytes,
                                          order,       fabric_only != 0,
                                          cosim::run_host_layer};
    static_assert(sizeof(cosim::Range) == 4 * sizeof(std::uint32_t), "four words a range");
    const cosim::Report report =
        cosim::run(simulation, reinterpret_cast<const cosim::Range *>(ranges), range_count);
    std::memcpy(operations, report.operations, sizeof report.operations);
    *macs = report.macs;
    std::memcpy(message, report.message, sizeof report.message);
    return static_cast<int>(report.status);
}

} // extern "C"
