// Runs a compiled top module against an AXI memory and notes when operations start and end.
// It knows no layer and no engine; Python loads commands, parameters and the memory image.
#include "units.hpp"
#include "verilated.h"

#include <cstdint>
#include <cstring>
#include <memory>

namespace {

class Bench {
  public:
    Bench() : context_(new VerilatedContext), top_(new Vtop(context_.get())), memory_(64) {
        std::vector<Pins> pins;
        bind(*top_, pins, config_, lite_);
        units_.resize(pins.size());
        for (std::size_t i = 0; i < pins.size(); ++i) units_[i].pins = pins[i];
    }

    void reset() {
        memory_ = FlatMemory(64);
        external_ = nullptr;
        wake_ = FAR;
        status_ = FINISHED;
        cycle_ = 0;
        for (Unit &unit : units_) {
            const Pins pins = unit.pins;
            unit = Unit();
            unit.pins = pins;
            if (pins.command_valid) *pins.command_valid = 0;
        }
        for (IData *value : config_) *value = 0;
        set_go(*top_, 0);
        quiet();
        set_reset(*top_, 1);
        for (int i = 0; i < 2; ++i) edge();
        set_reset(*top_, 0);
    }

    // Fill the queues and load the tokens before the first cycle; units see `go` a cycle late.
    void prepare() {
        for (int i = 0; i < 7; ++i, edge()) {
            set_go(*top_, i == 6);
            feed();
        }
    }

    // One access to the IP's registers, while time goes on; the value read, or -1.
    std::int64_t access(bool write, std::uint32_t address, std::uint32_t data) {
        *lite_.write_address = *lite_.read_address = address;
        *lite_.write_data = data;
        *lite_.write_address_valid = *lite_.write_valid = write;
        *lite_.read_valid = !write;
        *lite_.write_taken = *lite_.data_taken = 1;
        for (int i = 0; i < 16; ++i) {
            set_clock(*top_, 0);
            top_->eval();
            const bool taken = write ? *lite_.write_ready : *lite_.read_ready;
            if (cycle() != FINISHED) return -1;
            if (taken) *lite_.write_address_valid = *lite_.write_valid = *lite_.read_valid = 0;
            top_->eval();
            if (write ? *lite_.written : *lite_.data_valid) {
                const std::uint32_t found = *lite_.read_data;
                return cycle() == FINISHED ? found : -1;
            }
        }
        return -1;
    }

    int wait_interrupt(std::int64_t limit) {
        for (; limit > 0 && !*lite_.interrupt; --limit) {
            const int status = cycle();
            if (status != FINISHED) return status;
        }
        return *lite_.interrupt ? FINISHED : OUT_OF_CYCLES;
    }

    int cycle() {
        quiet();
        int status = serve();
        if (status != FINISHED) return status;
        set_clock(*top_, 0);
        top_->eval();
        status = write_data();
        set_clock(*top_, 1);
        top_->eval();
        ++cycle_;
        return status;
    }

    int run(std::int64_t limit) {
        for (; cycle_ < limit; ++cycle_) {
            bool finished = true;
            for (const Unit &unit : units_) finished &= unit.ended == unit.count;
            if (finished) {
                settle();
                return FINISHED;
            }
            quiet();
            feed();
            int status = serve();
            if (status != FINISHED) return status;
            set_clock(*top_, 0);
            top_->eval();
            status = write_data();
            if (status != FINISHED) return status;
            const bool pause = note();
            set_clock(*top_, 1);
            top_->eval();
            if (pause) {
                ++cycle_;
                return PAUSED;
            }
        }
        return OUT_OF_CYCLES;
    }

    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    FlatMemory memory_;
    std::vector<Unit> units_;
    std::vector<IData *> config_;
    Lite lite_;
    std::uint8_t *image_ = nullptr;
    std::uint64_t image_bytes_ = 0;
    std::int64_t cycle_ = 0, wake_ = FAR;
    External external_ = nullptr;
    int status_ = FINISHED;

    // The external memory accepts the unit's request in this cycle or a later one.
    void grant(Unit &unit, std::int64_t cycle) {
        unit.granted = cycle;
        if (cycle == cycle_) accept(unit);
    }

    // The next burst of the unit without an end is done, half-open; read beats come just before.
    void done(Unit &unit, std::int64_t cycle) {
        for (Burst &burst : unit.bursts) {
            if (burst.grant.done != FAR) continue;
            burst.grant.done = cycle;
            if (unit.pins.kind == READ) burst.grant.first = cycle - burst.beats;
            return;
        }
        status_ = BAD_BURST;
    }

    // The write accepted last moves its beats from this cycle on.
    void write(Unit &unit, std::int64_t first) { unit.lead = first; }

  private:
    void edge() {
        set_clock(*top_, 0);
        top_->eval();
        set_clock(*top_, 1);
        top_->eval();
    }

    // Counters look at a cycle COUNTER_LAG cycles late, at nothing after `go` fell, and count later.
    void settle() {
        quiet();
        feed();
        for (int i = 1; i < COUNTER_LAG; ++i) edge();
        set_go(*top_, 0);
        for (int i = 0; i < 2; ++i) edge();
    }

    void quiet() {
        for (Unit &unit : units_) {
            const Pins &pins = unit.pins;
            if (pins.kind == COMPUTE) continue;
            *pins.request_ready = 0;
            if (pins.kind == READ) *pins.data_valid = *pins.last = 0;
            if (pins.kind == WRITE) *pins.data_ready = *pins.response = 0;
        }
    }

    void feed() {
        for (Unit &unit : units_) {
            const Pins &pins = unit.pins;
            const bool send = unit.sent < unit.count && *pins.command_ready;
            *pins.command_valid = send;
            if (!send) continue;
            std::memcpy(pins.command, unit.commands + COMMAND_BYTES * unit.sent, COMMAND_BYTES);
            ++unit.sent;
        }
    }

    // Let the external memory act, then accept what it granted for this cycle.
    int ask() {
        int units[64], count = 0;
        std::uint32_t addresses[64];
        std::int64_t beats[64];
        for (std::size_t i = 0; i < units_.size(); ++i) {
            Unit &unit = units_[i];
            if (unit.granted == cycle_) accept(unit);
            if (unit.pins.kind == COMPUTE || !*unit.pins.request || unit.requested >= 0
                || *unit.pins.request_ready)
                continue;
            unit.requested = cycle_;
            units[count] = static_cast<int>(i);
            addresses[count] = *unit.pins.address;
            beats[count++] = beats_of(unit.pins);
        }
        if (count || cycle_ >= wake_) wake_ = external_(cycle_, count, units, addresses, beats);
        return status_;
    }

    void accept(Unit &unit) {
        const int status = take(unit);
        if (status != FINISHED) status_ = status;
        unit.granted = -1;
    }

    // Accept requests (earlier request first, then lower order), then move the beats of this cycle.
    int serve() {
        if (external_) {
            const int status = ask();
            if (status != FINISHED) return status;
        } else for (;;) {
            Unit *best = nullptr;
            for (Unit &unit : units_) {
                const Pins &pins = unit.pins;
                if (pins.kind == COMPUTE || !*pins.request || *pins.request_ready) continue;
                if (unit.requested < 0) unit.requested = cycle_;
                if (!memory_.accepts(unit.channel, cycle_)) continue;
                if (!best || unit.requested < best->requested
                    || (unit.requested == best->requested && unit.order < best->order))
                    best = &unit;
            }
            if (!best) break;
            const int status = take(*best);
            if (status != FINISHED) return status;
        }
        for (Unit &unit : units_) {
            if (unit.bursts.empty()) continue;
            const Pins &pins = unit.pins;
            for (Burst &burst : unit.bursts) {
                if (burst.moved == burst.beats || cycle_ < burst.grant.first) continue;
                if (pins.kind == READ) {
                    *pins.data_valid = 1;
                    *pins.last = burst.moved + 1 == burst.beats;
                    load(pins.data, beat(unit, burst), unit.width);
                    ++burst.moved;
                } else {
                    *pins.data_ready = 1;
                }
                break;
            }
            Burst &oldest = unit.bursts.front();
            if (pins.kind == WRITE) *pins.response = cycle_ + 1 == oldest.grant.done;
            else if (oldest.moved == oldest.beats) unit.bursts.pop_front();
        }
        return FINISHED;
    }

    int take(Unit &unit) {
        const Pins &pins = unit.pins;
        const std::uint32_t address = *pins.address;
        const std::int64_t beats = beats_of(pins);
        const std::uint64_t first = address / unit.width * unit.width;
        if (beats < 1 || first / 4096 != (first + beats * unit.width - 1) / 4096)
            return BAD_BURST;
        const std::uint64_t end = first + beats * unit.width;
        if (image_ && (address % 8 % unit.width || end > (image_bytes_ + 15) / 16 * 16))
            return BAD_ADDRESS;
        *pins.request_ready = 1;
        unit.requested = -1;
        const Grant grant = external_ ? Grant{pins.kind == WRITE ? unit.lead : FAR, FAR}
                                      : memory_.accept(unit.channel, cycle_, beats, unit.lead,
                                                       unit.trail);
        unit.bursts.push_back({address, beats, 0, grant});
        return FINISHED;
    }

    // A write beat must be there in the cycle in which the memory takes it.
    int write_data() {
        for (Unit &unit : units_) {
            const Pins &pins = unit.pins;
            if (pins.kind != WRITE) continue;
            if (*pins.data_ready) {
                if (!*pins.data_valid) return STARVED;
                for (Burst &burst : unit.bursts) {
                    if (burst.moved == burst.beats) continue;
                    if (image_ && !store(beat(unit, burst), pins, unit.width)) return BAD_ADDRESS;
                    ++burst.moved;
                    break;
                }
            }
            if (*pins.response) unit.bursts.pop_front();
        }
        return FINISHED;
    }

    static std::int64_t beats_of(const Pins &pins) {
        return *pins.length + 1;
    }

    static std::uint64_t beat(const Unit &unit, const Burst &burst) {
        return burst.address / unit.width * unit.width + unit.width * burst.moved;
    }

    void load(void *data, std::uint64_t address, std::size_t width) const {
        if (!image_) return;
        std::memset(data, 0, width);
        if (address < image_bytes_)
            std::memcpy(data, image_ + address, std::min<std::size_t>(width, image_bytes_ - address));
    }

    bool store(std::uint64_t address, const Pins &pins, std::size_t width) const {
        const std::size_t part = std::min<std::size_t>(width, pins.strobe_bytes);
        std::uint32_t strobe = *static_cast<const CData *>(pins.strobe);
        if (width / part > 8) strobe = *static_cast<const SData *>(pins.strobe);
        for (std::size_t at = 0; at < width; at += part) {
            if (!(strobe >> at / part & 1)) continue;
            if (address + at + part > image_bytes_) return false;
            std::memcpy(image_ + address + at, static_cast<const char *>(pins.data) + at, part);
        }
        return true;
    }

    bool note() {
        bool pause = false;
        std::uint64_t started = get_started(*top_), ended = get_ended(*top_);
        for (; started; started &= started - 1) {
            Unit &unit = units_[__builtin_ctzll(started)];
            if (unit.started < unit.count) unit.start[unit.started] = cycle_;
            ++unit.started;
            pause |= unit.pauses;
        }
        for (; ended; ended &= ended - 1) {
            Unit &unit = units_[__builtin_ctzll(ended)];
            if (unit.ended < unit.count) unit.end[unit.ended] = cycle_ + 1;
            ++unit.ended;
        }
        return pause;
    }
};

} // namespace

extern "C" {

Bench *bench_create() { return new Bench; }
void bench_destroy(Bench *bench) { delete bench; }
void bench_reset(Bench *bench) { bench->reset(); }
void bench_config(Bench *bench, int index, std::uint32_t value) { *bench->config_[index] = value; }

void bench_commands(Bench *bench, int unit, const std::uint8_t *bytes, std::int64_t count,
                    std::int64_t *start, std::int64_t *end, int pauses) {
    Unit &one = bench->units_[unit];
    one.commands = bytes;
    one.count = count;
    one.start = start;
    one.end = end;
    one.pauses = pauses;
}

void bench_master(Bench *bench, int unit, int channel, int order, int width, std::int64_t lead,
                  std::int64_t trail) {
    Unit &one = bench->units_[unit];
    one.channel = channel;
    one.order = order;
    one.width = width;
    one.lead = lead;
    one.trail = trail;
}

void bench_memory(Bench *bench, std::uint8_t *image, std::uint64_t bytes) {
    bench->image_ = image;
    bench->image_bytes_ = bytes;
}

void bench_external(Bench *bench, External external) { bench->external_ = external; }
void bench_grant(Bench *bench, int unit, std::int64_t cycle) {
    bench->grant(bench->units_[unit], cycle);
}
void bench_write(Bench *bench, int unit, std::int64_t first) {
    bench->write(bench->units_[unit], first);
}
void bench_done(Bench *bench, int unit, std::int64_t cycle) {
    bench->done(bench->units_[unit], cycle);
}

void bench_prepare(Bench *bench) { bench->prepare(); }
int bench_run(Bench *bench, std::int64_t limit) { return bench->run(limit); }
std::int64_t bench_cycle(Bench *bench) { return bench->cycle_; }
int bench_overflow(Bench *bench) { return get_overflow(*bench->top_); }
std::int64_t bench_write_register(Bench *bench, std::uint32_t address, std::uint32_t data) {
    return bench->access(true, address, data);
}
std::int64_t bench_read_register(Bench *bench, std::uint32_t address) {
    return bench->access(false, address, 0);
}
int bench_interrupt(Bench *bench, std::int64_t limit) { return bench->wait_interrupt(limit); }

std::uint64_t bench_counter(Bench *bench, int index) {
    return get_counter(*bench->top_, index);
}
}
