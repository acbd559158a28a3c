// Runs one frame of an emitted project and compares every value with the reference's.
// It is no part of the fabric; dynamic memory and files are used freely.
//
// usage: testbench DATA_FOLDER [ORDER_SEED]
// bench.txt, one item a line:
//   memory BYTES                       operations COUNT OFFSET_IN_FILE
//   segment FIRST LAST REPEATS         block FILE OFFSET BYTES ADDRESS
//   input|output FILE ADDRESS ROWS COLUMNS BITS CHANNELS PLACE...
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "host.hpp"
#include "scheduler.hpp"

namespace {

struct Tensor {
    std::string file;
    std::size_t address = 0, rows = 0, columns = 0, bits = 0, channels = 0;
    std::vector<std::size_t> places;

    // First byte of a value in memory.
    std::size_t byte_of(std::size_t channel, std::size_t position) const {
        const std::size_t lanes = bits == 16 ? 4 : 8;
        const std::size_t beat = places[channel] / lanes * rows * columns + position;
        return address + beat * 8 + places[channel] % lanes * (bits / 8);
    }
    std::size_t positions() const { return rows * columns; }
};

struct Bench {
    std::vector<std::uint8_t> memory;
    std::vector<cosim::Range> ranges;
    std::vector<Tensor> inputs, outputs;
    std::size_t operations = 0, offset = 0;
};

[[noreturn]] void stop(const std::string &message) {
    std::cerr << "testbench: " << message << "\n";
    std::exit(2);
}

std::vector<std::uint8_t> load(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        stop("cannot read " + path);
    }
    return std::vector<std::uint8_t>(std::istreambuf_iterator<char>(file),
                                     std::istreambuf_iterator<char>());
}

Tensor read_tensor(std::istringstream &line) {
    Tensor tensor;
    line >> tensor.file >> tensor.address >> tensor.rows >> tensor.columns >> tensor.bits >>
        tensor.channels;
    tensor.places.resize(tensor.channels);
    for (std::size_t &place : tensor.places) {
        line >> place;
    }
    return tensor;
}

void place_block(Bench &bench, const std::string &folder, std::istringstream &line) {
    std::string name;
    std::size_t offset = 0, bytes = 0, address = 0;
    line >> name >> offset >> bytes >> address;
    const std::vector<std::uint8_t> data = load(folder + "/" + name);
    if (offset + bytes > data.size()) {
        stop(name + " is truncated");
    }
    if (address + bytes > bench.memory.size()) {
        stop(name + " does not fit the memory");
    }
    std::memcpy(bench.memory.data() + address, data.data() + offset, bytes);
}

Bench read_bench(const std::string &folder) {
    std::ifstream file(folder + "/bench.txt");
    if (!file) {
        stop("cannot read " + folder + "/bench.txt");
    }
    Bench bench;
    std::string text;
    while (std::getline(file, text)) {
        std::istringstream line(text);
        std::string kind;
        line >> kind;
        if (kind == "memory") {
            std::size_t bytes = 0;
            line >> bytes;
            bench.memory.resize(bytes);
        } else if (kind == "operations") {
            line >> bench.operations >> bench.offset;
        } else if (kind == "segment") {
            cosim::Range range = {};
            line >> range.first >> range.last >> range.repeats;
            bench.ranges.push_back(range);
        } else if (kind == "block") {
            place_block(bench, folder, line);
        } else if (kind == "input") {
            bench.inputs.push_back(read_tensor(line));
        } else if (kind == "output") {
            bench.outputs.push_back(read_tensor(line));
        }
        if (!line && !line.eof()) {
            stop("bench.txt: cannot understand: " + text);
        }
    }
    return bench;
}

// Moves a tensor into memory, or counts the values in memory that differ from it.
std::size_t visit(const Tensor &tensor, const std::string &folder, std::uint8_t *memory,
                  std::size_t memory_bytes, bool compare) {
    const std::vector<std::uint8_t> data = load(folder + "/" + tensor.file);
    const std::size_t size = tensor.bits / 8;
    if (data.size() != tensor.channels * tensor.positions() * size) {
        stop(tensor.file + " is truncated");
    }
    std::size_t differing = 0, from = 0;
    for (std::size_t channel = 0; channel < tensor.channels; ++channel) {
        for (std::size_t position = 0; position < tensor.positions(); ++position) {
            const std::size_t byte = tensor.byte_of(channel, position);
            if (byte + size > memory_bytes) {
                stop(tensor.file + " does not fit the memory");
            }
            if (!compare) {
                std::memcpy(memory + byte, data.data() + from, size);
            } else if (std::memcmp(memory + byte, data.data() + from, size) != 0) {
                ++differing;
            }
            from += size;
        }
    }
    return differing;
}

} // namespace

int main(int count, char **arguments) {
    if (count < 2) {
        stop("usage: testbench DATA_FOLDER [ORDER_SEED]");
    }
    const std::string folder = arguments[1];
    const std::uint64_t order = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
    Bench bench = read_bench(folder);
    const std::vector<std::uint8_t> descriptors = load(folder + "/descriptors.bin");
    const std::vector<std::uint8_t> host = load(folder + "/host.bin");
    if (descriptors.size() != bench.offset + bench.operations * 64) {
        stop("descriptors.bin is truncated");
    }
    if (!cosim::load_host_layers(host.data(), host.size())) {
        stop("host.bin is no table of host layers");
    }
    for (const Tensor &tensor : bench.inputs) {
        visit(tensor, folder, bench.memory.data(), bench.memory.size(), false);
    }
    cosim::reset_fabric();
    const cosim::Simulation simulation = {descriptors.data() + bench.offset,
                                          bench.operations,
                                          bench.memory.data(),
                                          bench.memory.size(),
                                          order,
                                          false,
                                          cosim::run_host_layer};
    const auto begin = std::chrono::steady_clock::now();
    const cosim::Report report = cosim::run(simulation, bench.ranges.data(), bench.ranges.size());
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    if (report.status != cosim::Status::DONE) {
        stop(report.message);
    }
    std::size_t compared = 0, differing = 0;
    for (const Tensor &tensor : bench.outputs) {
        const std::size_t wrong =
            visit(tensor, folder, bench.memory.data(), bench.memory.size(), true);
        compared += tensor.channels * tensor.positions();
        differing += wrong;
        std::cout << tensor.file << ": " << wrong << " of "
                  << tensor.channels * tensor.positions() << " values differ\n";
    }
    std::printf("values_compared %zu\nvalues_differing %zu\nseconds %.6f\nmacs %llu\n", compared,
                differing, spent.count(), static_cast<unsigned long long>(report.macs));
    return differing == 0 ? 0 : 1;
}
