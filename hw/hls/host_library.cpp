// The host layers behind a C interface, for the driver on the board and for the simulation.
// It links no engine of the fabric.
#include "host.hpp"

extern "C" {

int cosim_load_host(const std::uint8_t *records, std::uint64_t bytes) {
    return cosim::load_host_layers(records, bytes) ? 0 : 1;
}

int cosim_run_host(std::uint32_t layer, std::uint8_t *memory, std::uint64_t bytes) {
    return cosim::run_host_layer(layer, memory, bytes) ? 0 : 1;
}

} // extern "C"
