// The operators that a design leaves on the ARM, bit-exact to the network's integer arithmetic.
// Plain code for the processor: it is not synthesized and knows no buffers of the fabric.
#ifndef COSIM_HOST_HPP
#define COSIM_HOST_HPP

#include <cstddef>
#include <cstdint>

namespace cosim {

// Takes the table of host layers (hw/host_table.py writes it); false if it is no such table.
// The caller keeps the bytes alive.
bool load_host_layers(const std::uint8_t *records, std::size_t bytes);

// Runs one layer on tensors in memory; false if the table does not have it.
bool run_host_layer(std::uint32_t layer, std::uint8_t *memory, std::size_t bytes);

} // namespace cosim

#endif // COSIM_HOST_HPP
