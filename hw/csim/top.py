"""The synthesized top: one process for each memory side and one for the engines, as C++ text.

It generates wiring only (FIFOs, ports, waits and signals); the work is in the sources it calls.

Processes: `fetch` dispatches commands in table order; `load` runs all input masters, `weight`
the weight master, `compute` all engines, `store` all output masters. Engines share a process
because they share buffers and never work at the same time (a layer's loads wait for the stores
of the layer before it). Channels between units of one process need no FIFO: their order is the
table's. Waits on the host are dropped: the driver starts the fabric once for each stretch of
operations between host layers.
"""

from __future__ import annotations

from cosim.program.table import BEAT_MEMORIES, Program
from hw.interface.configuration import COMMAND_DEPTH, Configuration, UnitRole
from hw.interface.descriptors import local_channels
from hw.interface.ports import memory_ports

TOKEN_DEPTH = 64
_PROCESS = {UnitRole.INPUT: "load", UnitRole.WEIGHT: "weight", UnitRole.ENGINE: "compute",
            UnitRole.OUTPUT: "store"}
_CALLS = {
    UnitRole.INPUT: "load_tile(decode_transfer(command), decode_load_arguments(command), "
                    "memory_{unit}, input, skip);",
    UnitRole.WEIGHT: "load_block(decode_transfer(command), decode_load_arguments(command), "
                     "memory_{unit}, weight, COSIM_BEAT_ARGUMENTS);",
    UnitRole.ENGINE: "execute_engine(command, input, weight, COSIM_BEAT_ARGUMENTS, "
                     "norm_channels, accumulator, skip, output);",
    UnitRole.OUTPUT: "store_tile(decode_transfer(command), decode_store_arguments(command), "
                     "output, memory_{unit});",
}
#: The same with a tensor memory, which the load process reads and the store process writes.
_CALLS_WITH_TENSORS = {
    **_CALLS,
    UnitRole.INPUT: _CALLS[UnitRole.INPUT].replace(
        "memory_{unit}", "ReadSide{{memory_{unit}, tensors}}"),
    UnitRole.OUTPUT: _CALLS[UnitRole.OUTPUT].replace(
        "memory_{unit}", "WriteSide{{memory_{unit}, tensors}}"),
}
_BEATS = {buffer.name.lower(): buffer.name for buffer in BEAT_MEMORIES}
_BUFFERS = {
    "load": ("input", "skip"),
    "weight": ("weight", *_BEATS),
    "compute": ("input", "weight", *_BEATS, "skip", "output"),
    "store": ("output",),
}
_BUFFER_TYPES = {
    "input": "InputWord input[COLUMNS][INPUT_SIZE]", "skip": "OutputWord skip[OUTPUT_SIZE]",
    "weight": "WeightWord weight[WEIGHT_SIZE]",
    **{name: f"Beat {name}[{buffer}_SIZE]" for name, buffer in _BEATS.items()},
    "output": "OutputWord output[OUTPUT_SIZE]", "tensors": "Beat tensors[TENSOR_SIZE]",
}
_HEAD = """\
// The synthesized overlay: processes, FIFOs and memories. Generated; do not edit.
// It computes nothing itself; see engines.hpp and transfer.hpp.
#include "engines.hpp"
#include "fifo.hpp"

namespace cosim {
namespace {

using Token = bool;
using CommandFifo = Fifo<Command, COMMAND_DEPTH>;
using TokenFifo = Fifo<Token, %d>;

// Ends a process's queue; no opcode of a program.
constexpr std::uint32_t END = 255;

inline Command end_command() {
    Command command;
    for (int word = 0; word < DESCRIPTOR_WORDS; ++word) {
        COSIM_UNROLL
        command.word[word] = word == 0 ? END : 0;
    }
    return command;
}

"""


def top_source(program: Program, configuration: Configuration) -> str:
    """The text of `overlay.cpp`."""
    wiring = _Wiring(program, configuration)
    parts = [_HEAD % TOKEN_DEPTH, wiring.fetch()]
    parts += [wiring.process(name) for name in wiring.processes]
    parts += ["} // namespace\n} // namespace cosim\n", wiring.top()]
    return "\n".join(parts)


class _Wiring:
    """The text of one overlay's top, part by part."""

    def __init__(self, program: Program, configuration: Configuration) -> None:
        self.program = program
        self.ports = memory_ports(program, configuration)
        self.roles = configuration.roles
        self.process_of = [_PROCESS.get(role) for role in self.roles]
        self.calls = _CALLS_WITH_TENSORS if configuration.tensor_beats else _CALLS
        also = ("tensors",) if configuration.tensor_beats else ()
        self.buffers = {name: (*found, *also) if name in ("load", "store") else found
                        for name, found in _BUFFERS.items()}
        self.processes = [name for name in _BUFFERS if name in self.process_of]

    def _crosses(self, channel: int) -> bool:
        """Does a channel need a FIFO: both ends in fabric, in different processes."""
        ends = self.program.channels[channel]
        source, target = self.process_of[ends.source], self.process_of[ends.target]
        return source is not None and target is not None and source != target

    def _channels(self, process: str) -> list[int]:
        return [index for index, item in enumerate(self.program.channels)
                if self._crosses(index)
                and process in (self.process_of[item.source], self.process_of[item.target])]

    def fetch(self) -> str:
        queues = "".join(f",\n           CommandFifo &queue_{name}" for name in self.processes)
        lines = [
            "// Reads descriptors and puts each into the queue of its process.",
            "void fetch(const std::uint64_t *descriptors, std::uint32_t first, "
            "std::uint32_t count,",
            "           std::uint32_t repeats, std::uint32_t repeat_first" + queues + ") {",
            "    for (std::uint32_t repeat = 0; repeat < repeats; ++repeat) {",
            "        for (std::uint32_t row = 0; row < count; ++row) {",
            "            Command command;",
            "            for (int beat = 0; beat < DESCRIPTOR_BYTES / 8; ++beat) {",
            "                COSIM_PIPELINE",
            "                const std::uint64_t two =",
            "                    descriptors[(first + row) * (DESCRIPTOR_BYTES / 8u) +",
            "                                static_cast<std::uint32_t>(beat)];",
            "                command.word[2 * beat] = static_cast<std::uint32_t>(two);",
            "                command.word[2 * beat + 1] = static_cast<std::uint32_t>(two >> 32);",
            "            }",
            "            const Transfer item = decode_transfer(command);",
            "            const std::uint32_t moved =",
            "                item.address + (repeat_first + repeat) * "
            "static_cast<std::uint32_t>(item.advance);",
            "            switch (decode_header(command).unit) {"]
        for unit, process in enumerate(self.process_of):
            if process is None:
                continue
            lines.append(f"            case {unit}: // {self.program.units[unit].name}")
            if self.roles[unit] is not UnitRole.ENGINE:
                lines.append("                command.word[TRANSFER_ADDRESS_WORD] = moved;")
            lines += [f"                queue_{process}.write(command);",
                      "                break;"]
        lines += ["            default: // the host's operations and the fetch unit's own",
                  "                break;", "            }", "        }", "    }"]
        lines += [f"    queue_{name}.write(end_command());" for name in self.processes]
        return "\n".join([*lines, "}\n"])

    def process(self, name: str) -> str:
        units = [index for index, process in enumerate(self.process_of) if process == name]
        channels = self._channels(name)
        parameters = ["std::uint32_t limit", "bool initialize", "CommandFifo &commands"]
        parameters += [f"TokenFifo &channel_{index}" for index in channels]
        parameters += [f"{'' if port.writes else 'const '}Beat *memory_{port.name}"
                       for port in self.ports if port.unit in units]
        parameters += [_BUFFER_TYPES[buffer] for buffer in self.buffers[name]]
        indent = " " * len(f"void process_{name}(")
        lines = [f"void process_{name}(" + f",\n{indent}".join(parameters) + ") {"]
        if name == "compute":
            lines += ["    static AccumulatorWord accumulator[ACCUMULATOR_SIZE];",
                      "    COSIM_BLOCK_RAM(accumulator)",
                      "    static NormChannel norm_channels[NORM_PARAMETERS_SIZE];",
                      "    COSIM_BLOCK_RAM(norm_channels)"]
        first = [(index, self.program.channels[index].initial) for index in channels
                 if self.process_of[self.program.channels[index].source] == name
                 and self.program.channels[index].initial]
        if first:
            lines.append("    if (initialize) {")
            lines += [f"        channel_{index}.write(true);" for index, count in first
                      for _ in range(count)]
            lines.append("    }")
        else:
            lines.append("    (void)initialize;")
        lines += ["    for (std::uint32_t done = 0; done <= limit; ++done) {",
                  "        const Command command = commands.read();",
                  "        const Header header = decode_header(command);",
                  "        if (header.opcode == static_cast<std::int32_t>(END)) {",
                  "            break;", "        }", "        switch (header.unit) {"]
        for unit in units:
            lines += self._case(unit)
        lines += ["        default:", "            break;", "        }", "    }", "}\n"]
        return "\n".join(lines)

    def _case(self, unit: int) -> list[str]:
        name = self.program.units[unit].name
        incoming, outgoing = local_channels(self.program, unit)
        lines = [f"        case {unit}: // {name}"]
        for bit, index in enumerate(incoming):
            if self._crosses(index):
                lines += [f"            if (header.wait >> {bit} & 1) {{",
                          f"                channel_{index}.read(); "
                          f"// {self.program.channels[index].name}", "            }"]
        lines.append("            " + self.calls[self.roles[unit]].format(unit=name))
        for bit, index in enumerate(outgoing):
            if self._crosses(index):
                lines += [f"            if (header.signal >> {bit} & 1) {{",
                          f"                channel_{index}.write(true); "
                          f"// {self.program.channels[index].name}", "            }"]
        return [*lines, "            break;"]

    def top(self) -> str:
        arguments = ["const std::uint64_t *descriptors"]
        arguments += [f"{'' if port.writes else 'const '}cosim::Beat *memory_{port.name}"
                      for port in self.ports]
        arguments += [f"std::uint32_t {name}"
                      for name in ("first", "count", "repeats", "repeat_first", "initialize")]
        lines = ["using namespace cosim;", "",
                 'extern "C" void overlay(' + ",\n                        ".join(arguments) + ") {",
                 "    COSIM_AXI(descriptors, port_descriptors, 1)"]
        lines += [f"    COSIM_AXI(memory_{port.name}, port_{port.name}, 1)" for port in self.ports]
        scalars = ("first", "count", "repeats", "repeat_first", "initialize", "return")
        lines += [f"    COSIM_REGISTER({name})"
                  for name in ("descriptors", *(f"memory_{port.name}" for port in self.ports),
                               *scalars)]
        lines += ["    COSIM_DATAFLOW"]
        used = [name for name in _BUFFER_TYPES
                if any(name in self.buffers[process] for process in self.processes)]
        for name in used:
            lines += [f"    static {_BUFFER_TYPES[name]};", f"    COSIM_BLOCK_RAM({name})",
                      f"    COSIM_SHARED({name})"]
            if name == "input":
                lines.append("    COSIM_COPIES(input)")
        for name in self.processes:
            lines += [f"    static CommandFifo queue_{name};",
                      f"    COSIM_DEPTH(queue_{name}, {COMMAND_DEPTH})"]
        for index in range(len(self.program.channels)):
            if self._crosses(index):
                lines += [f"    static TokenFifo channel_{index}; "
                          f"// {self.program.channels[index].name}",
                          f"    COSIM_DEPTH(channel_{index}, {TOKEN_DEPTH})"]
        queues = ", ".join(f"queue_{name}" for name in self.processes)
        lines += ["    const std::uint32_t limit = count * repeats;",
                  "    COSIM_PROCESSES(processes);",
                  "    COSIM_PROCESS(processes, fetch(descriptors, first, count, repeats, "
                  f"repeat_first, {queues}));"]
        for name in self.processes:
            units = [index for index, process in enumerate(self.process_of) if process == name]
            call = ["limit", "initialize != 0", f"queue_{name}"]
            call += [f"channel_{index}" for index in self._channels(name)]
            call += [f"memory_{port.name}" for port in self.ports if port.unit in units]
            call += self.buffers[name]
            lines.append(f"    COSIM_PROCESS(processes, process_{name}({', '.join(call)}));")
        return "\n".join([*lines, "}\n"])
