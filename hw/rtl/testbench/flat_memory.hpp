// The flat memory of cosim/memory_rules.py, seen from the AXI side, cycle by cycle.
// It holds no data and no unit; it says when a burst is accepted and when its beats move.
#ifndef FLAT_MEMORY_HPP
#define FLAT_MEMORY_HPP

#include <algorithm>
#include <cstdint>
#include <vector>

struct Grant {
    std::int64_t first; // cycle of the first beat
    std::int64_t done;  // half-open: the last beat or the response is in done - 1
};

class FlatMemory {
  public:
    explicit FlatMemory(std::size_t channels) : last_accept_(channels, -1), free_(channels, 0) {}

    // May the channel accept a burst in this cycle? One a cycle.
    bool accepts(std::size_t channel, std::int64_t cycle) const {
        return last_accept_[channel] < cycle;
    }

    Grant accept(std::size_t channel, std::int64_t cycle, std::int64_t beats, std::int64_t lead,
                 std::int64_t trail) {
        const std::int64_t first = std::max(cycle + lead, free_[channel]);
        last_accept_[channel] = cycle;
        free_[channel] = first + beats;
        return {first, first + beats + trail};
    }

  private:
    std::vector<std::int64_t> last_accept_;
    std::vector<std::int64_t> free_;
};

#endif
