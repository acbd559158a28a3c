"""The C++ header of descriptor fields, generated from the tables in `hw.interface.descriptors`.

It does not define a field of its own; editing its output by hand would be an error.
"""

from __future__ import annotations

from cosim.program.table import ARGUMENTS, Buffer, Opcode, WeightOrder
from hw.interface.descriptors import (
    DESCRIPTOR_BYTES,
    FILE_HEADER_BYTES,
    HEADER,
    SEGMENT_BYTES,
    TIMING,
    TRANSFER,
    Field,
    argument_fields,
)

_PREAMBLE = """\
// Descriptor fields as C++ structures. Generated from hw/interface/descriptors.py; do not edit.
// It does not fetch or execute descriptors.
#ifndef COSIM_DESCRIPTOR_HPP
#define COSIM_DESCRIPTOR_HPP

#include <cstdint>

namespace cosim {

constexpr int DESCRIPTOR_BYTES = %d;
constexpr int DESCRIPTOR_WORDS = DESCRIPTOR_BYTES / 4;
constexpr int SEGMENT_BYTES = %d;
constexpr int FILE_HEADER_BYTES = %d;

// One descriptor as it lies in memory, in 32-bit little-endian words.
struct Command {
    std::uint32_t word[DESCRIPTOR_WORDS];
};

// WIDTH bits from bit OFFSET, not sign-extended.
template <int OFFSET, int WIDTH> inline std::uint32_t bits(const Command &command) {
    constexpr int word = OFFSET / 32;
    constexpr int shift = OFFSET %% 32;
    std::uint64_t pair = command.word[word];
    if (shift + WIDTH > 32) {
        pair |= static_cast<std::uint64_t>(command.word[word + 1]) << 32;
    }
    return static_cast<std::uint32_t>((pair >> shift) & ((std::uint64_t{1} << WIDTH) - 1));
}

template <int OFFSET, int WIDTH> inline std::int32_t unsigned_bits(const Command &command) {
    return static_cast<std::int32_t>(bits<OFFSET, WIDTH>(command));
}

template <int OFFSET, int WIDTH> inline std::int32_t signed_bits(const Command &command) {
    constexpr std::uint32_t top = std::uint32_t{1} << (WIDTH - 1);
    return static_cast<std::int32_t>((bits<OFFSET, WIDTH>(command) ^ top) - top);
}
"""


def descriptor_header() -> str:
    """The text of `descriptor.hpp`: opcodes, buffers, and one structure with a decoder each."""
    parts = [_PREAMBLE % (DESCRIPTOR_BYTES, SEGMENT_BYTES, FILE_HEADER_BYTES)]
    parts.append(_enumeration("Opcode", [(item.name, item.value) for item in Opcode]))
    parts.append(_enumeration("Buffer", [(item.name, item.value) for item in Buffer]))
    parts.append(_enumeration("WeightOrder", [(item.name, item.value) for item in WeightOrder]))
    address, macs = TRANSFER[0], TIMING[-1]
    parts.append(f"constexpr int TRANSFER_ADDRESS_WORD = {address.offset // 32};\n"
                 f"constexpr int MACS_OFFSET = {macs.offset};\n")
    parts.append(_structure("Header", HEADER))
    parts.append(_structure("Transfer", TRANSFER))
    for opcode in Opcode:
        if ARGUMENTS[opcode]:
            name = "".join(word.capitalize() for word in opcode.name.split("_"))
            parts.append(_structure(f"{name}Arguments", argument_fields(opcode)))
    parts.append("} // namespace cosim\n\n#endif // COSIM_DESCRIPTOR_HPP\n")
    return "\n".join(parts)


def _enumeration(name: str, values: list[tuple[str, int]]) -> str:
    lines = [f"    {item} = {value}," for item, value in values]
    return "\n".join([f"enum class {name} : std::uint8_t {{", *lines, "};\n"])


def _structure(name: str, fields: tuple[Field, ...]) -> str:
    lines = [f"struct {name} {{"]
    lines += [f"    {_type(item)} {item.name};" for item in fields]
    lines += ["};", "", f"inline {name} decode_{_snake(name)}(const Command &command) {{",
              f"    {name} value;"]
    lines += [f"    value.{item.name} = {_read(item)};" for item in fields]
    return "\n".join([*lines, "    return value;", "}\n"])


def _type(item: Field) -> str:
    wide = item.width == 32 and not item.signed
    return "std::uint32_t" if wide else "std::int32_t"


def _read(item: Field) -> str:
    if item.width == 32 and not item.signed:
        return f"bits<{item.offset}, 32>(command)"
    kind = "signed_bits" if item.signed else "unsigned_bits"
    return f"{kind}<{item.offset}, {item.width}>(command)"


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
