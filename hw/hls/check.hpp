// Does a command stay inside its buffers and the memory? For simulation; not synthesized.
// It does not execute commands and does not look at data.
#ifndef COSIM_CHECK_HPP
#define COSIM_CHECK_HPP

#include <cstddef>

#include "descriptor.hpp"

namespace cosim {

// An empty string, or which rule the command breaks. The text lives until the next call.
const char *broken_rule(const Command &command, std::size_t memory_bytes);

} // namespace cosim

#endif // COSIM_CHECK_HPP
