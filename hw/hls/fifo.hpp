// The FIFO between two processes, and how processes run side by side.
// It holds no overlay: widths and depths come from overlay.cpp.
#ifndef COSIM_FIFO_HPP
#define COSIM_FIFO_HPP

#include "pragmas.hpp"

#ifdef __SYNTHESIS__

#include <hls_stream.h>

namespace cosim {
template <class Item, int DEPTH> using Fifo = hls::stream<Item, DEPTH>;
}

#define COSIM_PROCESSES(name)
#define COSIM_PROCESS(name, call) call

#else

// On a workstation each process is a thread and a FIFO blocks, as in the fabric.
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace cosim {

template <class Item, int DEPTH> class Fifo {
  public:
    void write(const Item &item) {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [this] { return count < DEPTH; });
        entry[(first + count) % DEPTH] = item;
        ++count;
        changed.notify_all();
    }

    Item read() {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [this] { return count > 0; });
        const Item item = entry[first];
        first = (first + 1) % DEPTH;
        --count;
        changed.notify_all();
        return item;
    }

  private:
    std::mutex mutex;
    std::condition_variable changed;
    Item entry[DEPTH] = {};
    int first = 0;
    int count = 0;
};

class Processes {
  public:
    template <class Call> void start(Call call) { threads.emplace_back(call); }

    ~Processes() {
        for (std::thread &thread : threads) {
            thread.join();
        }
    }

  private:
    std::vector<std::thread> threads;
};

} // namespace cosim

#define COSIM_PROCESSES(name) cosim::Processes name
#define COSIM_PROCESS(name, call) name.start([&] { call; })

#endif

#endif // COSIM_FIFO_HPP
