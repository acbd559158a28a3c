"""What the C++ sources are compiled for: buffer sizes, units and channels, as one header.

It checks that an overlay can be emitted; it writes no descriptors and no sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from arch_models.fields import FieldError, identifier
from arch_models.memory import tensor_bytes
from arch_models.overlay import Overlay
from arch_models.overlay import Role as MasterRole
from cosim.program.table import (
    ARGUMENTS,
    BEAT_MEMORIES,
    Buffer,
    Column,
    Opcode,
    Program,
    UnitKind,
    beats_of,
)
from hw.interface.descriptors import MAX_LOCAL_CHANNELS, local_channels

BEAT_BYTES = 8
#: The port of the fabric that reads descriptors; no master may have its name.
DESCRIPTORS = "descriptors"
_CHANNEL_NAME = re.compile("[A-Za-z0-9_ -]+", re.ASCII)
#: Commands that wait in front of a unit. 64 keeps every unit of the shipped designs fed.
COMMAND_DEPTH = 64


class EmissionError(ValueError):
    """A design cannot be emitted. The message names the field, the value and the rule."""


class UnitRole(StrEnum):
    """What the hardware makes of a program's unit; `Role` in engines.hpp."""

    INPUT = "INPUT"  # loads tiles into INPUT and skip tiles
    WEIGHT = "WEIGHT"  # loads weights, parameters and tables
    OUTPUT = "OUTPUT"  # stores tiles
    ENGINE = "ENGINE"
    HOST = "HOST"  # the ARM: between two starts of the fabric
    FETCH = "FETCH"  # reads descriptors; its order is that of the command queues


@dataclass(frozen=True)
class Configuration:
    """Sizes in words of the buffers (all banks), and the roles of the units in order."""

    tm: int
    tn: int
    columns: int
    dsp_packing: bool
    narrow_weights: bool
    zero_points: bool
    input_size: int
    weight_size: int
    output_size: int
    accumulator_size: int
    tensor_beats: int
    beats: tuple[tuple[Buffer, int], ...]
    roles: tuple[UnitRole, ...]


def configure(program: Program, overlay: Overlay) -> Configuration:
    """The configuration of an overlay, or `EmissionError` if it cannot be emitted.

    Emitted are int8 overlays with blocks of 8 channels, `tm` and `tn` multiples of 8, and
    programs whose read units load either tiles or weights, not both.
    """
    _check_names(program)
    for name, value in (("data_bits", overlay.data_bits), ("weight_bits", overlay.weight_bits)):
        if value != 8:
            raise EmissionError(f"{name} is {value}, must be 8 to be emitted")
    for name, value in (("tm", overlay.tm), ("tn", overlay.tn)):
        if value % BEAT_BYTES:
            near = max(1, round(value / BEAT_BYTES)) * BEAT_BYTES
            raise EmissionError(f"{name} is {value}, must be a multiple of {BEAT_BYTES} to be "
                                f"emitted; nearest {near}")
    if overlay.channel_block != BEAT_BYTES:
        raise EmissionError(f"channel_block is {overlay.channel_block}, must be {BEAT_BYTES} "
                            "to be emitted")
    return Configuration(
        overlay.tm, overlay.tn, overlay.columns, overlay.dsp_packing, overlay.narrow_weights,
        overlay.zero_points,
        overlay.input_words * overlay.input_banks,
        overlay.weight_words * overlay.weight_banks, overlay.output_words * overlay.output_banks,
        overlay.accumulator_words, tensor_bytes(overlay) // BEAT_BYTES,
        # C++ has no arrays of length zero.
        tuple((buffer, max(1, beats_of(buffer, overlay))) for buffer in BEAT_MEMORIES),
        tuple(_role(program, unit, overlay) for unit in range(len(program.units))))


def _check_names(program: Program) -> None:
    """Names go into C++, Verilog and Tcl as they stand, so they must mean nothing there."""
    for unit in program.units:
        try:
            identifier(unit.name, "unit")
        except FieldError as error:
            raise EmissionError(str(error)) from None
        if unit.name == DESCRIPTORS:
            raise EmissionError(f"unit {unit.name!r}: so is called the port that descriptors come "
                                f"through; nearest {unit.name + '_in'!r}")
    for channel in program.channels:
        if not _CHANNEL_NAME.fullmatch(channel.name):
            raise EmissionError(f"channel {channel.name!r}: must be letters, digits, '_', '-' and "
                                "spaces")


_MASTER_ROLES = {MasterRole.INPUT: UnitRole.INPUT, MasterRole.WEIGHT: UnitRole.WEIGHT}


def _role(program: Program, unit: int, overlay: Overlay) -> UnitRole:
    what = program.units[unit]
    mine = program.operations[:, Column.UNIT] == unit
    opcodes = {Opcode(value) for value in set(program.operations[mine, Column.KIND].tolist())}
    if Opcode.OTHER in opcodes:
        raise EmissionError(f"unit {what.name!r} runs {Opcode.OTHER.name} operations, which are "
                            "timed only and cannot be emitted")
    if what.kind is UnitKind.WRITE:
        return _only(what.name, opcodes, {Opcode.STORE}, UnitRole.OUTPUT)
    if what.kind is UnitKind.COMPUTE:
        if Opcode.HOST in opcodes or what.name == "host":
            return _only(what.name, opcodes, {Opcode.HOST}, UnitRole.HOST)
        engine = set(Opcode) - {Opcode.HOST, Opcode.LOAD, Opcode.STORE, Opcode.FETCH}
        return _only(what.name, opcodes, engine, UnitRole.ENGINE)
    if Opcode.FETCH in opcodes or what.name == "fetch":
        return _only(what.name, opcodes, {Opcode.FETCH}, UnitRole.FETCH)
    loads = mine & (program.operations[:, Column.KIND] == Opcode.LOAD)
    column = ARGUMENTS[Opcode.LOAD].index("buffer")
    buffers = {Buffer(value) for value in set(program.arguments[loads, column].tolist())}
    tiles = buffers & {Buffer.INPUT, Buffer.OUTPUT}
    if tiles and buffers - tiles:
        raise EmissionError(f"unit {what.name!r} loads {sorted(item.name for item in buffers)}, "
                            "must load tiles or weights, not both")
    if not buffers:
        named = [master.role for master in overlay.masters if master.name == what.name]
        return _MASTER_ROLES.get(named[0], UnitRole.INPUT) if named else UnitRole.INPUT
    return UnitRole.INPUT if tiles else UnitRole.WEIGHT


def _only(name: str, found: set[Opcode], legal: set[Opcode], role: UnitRole) -> UnitRole:
    if found - legal:
        raise EmissionError(f"unit {name!r} runs {sorted(item.name for item in found - legal)}, "
                            f"which its role {role.value} does not have")
    return role


def configuration_header(program: Program, configuration: Configuration) -> str:
    """The text of `config.hpp`: sizes, roles of the units, ends of the channels."""
    item = configuration
    sizes = {
        "TM": item.tm, "TN": item.tn, "COLUMNS": item.columns,
        "DSP_PACKING": int(item.dsp_packing), "NARROW_WEIGHTS": int(item.narrow_weights),
        "ZERO_POINTS": int(item.zero_points),
        "INPUT_SIZE": item.input_size,
        "WEIGHT_SIZE": item.weight_size, "OUTPUT_SIZE": item.output_size,
        "ACCUMULATOR_SIZE": item.accumulator_size,
        "TENSOR_SIZE": max(1, item.tensor_beats), "TENSOR_MEMORY": int(item.tensor_beats > 0),
        **{f"{buffer.name}_SIZE": beats for buffer, beats in item.beats},
        "COMMAND_DEPTH": COMMAND_DEPTH, "MAX_LOCAL_CHANNELS": MAX_LOCAL_CHANNELS,
        "UNIT_COUNT": len(program.units), "CHANNEL_COUNT": len(program.channels),
    }
    lines = [
        "// Sizes, units and channels of one overlay. Generated; do not edit.",
        "// It says nothing about layers: every program of the overlay runs on it.",
        "#ifndef COSIM_CONFIG_HPP", "#define COSIM_CONFIG_HPP", "", "#include <cstdint>", "",
        "namespace cosim {", "",
        "enum class Role : std::uint8_t { INPUT, WEIGHT, OUTPUT, ENGINE, HOST, FETCH };", "",
    ]
    lines += [f"constexpr int {name} = {value};" for name, value in sizes.items()]
    held = [(buffer.name.lower(), buffer.name) for buffer, _ in item.beats]
    lines += [
        "", "// Memories of the weight master in which a word is a beat: name, buffer and size.",
        "#define COSIM_BEAT_MEMORIES(use) "
        + " ".join(f"use({name}, {buffer}, {buffer}_SIZE)" for name, buffer in held),
        f"#define COSIM_BEAT_ARGUMENTS {', '.join(name for name, _ in held)}"]
    roles = ", ".join(f"Role::{role.value}" for role in item.roles)
    names = ", ".join(f'"{unit.name}"' for unit in program.units)
    # One entry more than there are channels: C++ has no arrays of length zero.
    channels = ", ".join([*(f'"{channel.name}"' for channel in program.channels), '""'])
    initial = ", ".join([*(str(channel.initial) for channel in program.channels), "0"])
    lines += ["", f"constexpr Role UNIT_ROLE[UNIT_COUNT] = {{{roles}}};",
              f"constexpr const char *UNIT_NAME[UNIT_COUNT] = {{{names}}};",
              f"constexpr const char *CHANNEL_NAME[CHANNEL_COUNT + 1] = {{{channels}}};",
              f"constexpr int CHANNEL_INITIAL[CHANNEL_COUNT + 1] = {{{initial}}};",
              "", "// Channel of each bit of a unit's local wait and signal masks, -1 if none."]
    for title, which in (("INCOMING", 0), ("OUTGOING", 1)):
        rows = []
        for unit in range(len(program.units)):
            found = list(local_channels(program, unit)[which])
            found += [-1] * (MAX_LOCAL_CHANNELS - len(found))
            rows.append("    {" + ", ".join(map(str, found)) + "},")
        lines += [f"constexpr int {title}[UNIT_COUNT][MAX_LOCAL_CHANNELS] = {{", *rows, "};"]
    lines += ["", "// Bits of the masks that mean something: in the whole program all but those of",
              "// the fetch unit, whose order is that of the command queues; between two starts of",
              "// the fabric also not those of the host."]
    outside = {"PROGRAM": {UnitRole.FETCH}, "FABRIC": {UnitRole.FETCH, UnitRole.HOST}}
    for title, roles_outside in outside.items():
        for name, which in (("WAIT", 0), ("SIGNAL", 1)):
            masks = [str(local_mask(program, unit, which, item.roles, roles_outside))
                     for unit in range(len(program.units))]
            lines.append(f"constexpr std::uint32_t {title}_{name}[UNIT_COUNT] = "
                         f"{{{', '.join(masks)}}};")
    lines += ["", "} // namespace cosim", "", "#endif // COSIM_CONFIG_HPP", ""]
    return "\n".join(lines)


def local_mask(program: Program, unit: int, which: int, roles: tuple[UnitRole, ...],
          outside: set[UnitRole]) -> int:
    """Local mask of the incoming (0) or outgoing (1) channels with no end outside."""
    mask = 0
    for bit, index in enumerate(local_channels(program, unit)[which]):
        channel = program.channels[index]
        inside = roles[channel.source] not in outside and roles[channel.target] not in outside
        mask |= inside << bit
    return mask
