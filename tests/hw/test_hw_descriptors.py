"""Do descriptors hold a whole Program, exactly, and refuse what they cannot hold?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cosim.program.table import (
    ARGUMENT_COUNT,
    ARGUMENTS,
    Channel,
    Column,
    Opcode,
    Program,
    Segment,
    Unit,
    UnitKind,
)
from hw.interface.descriptors import (
    DESCRIPTOR_BYTES,
    HEADER,
    TIMING,
    TRANSFER,
    DescriptorError,
    argument_fields,
    encode,
    pack,
    shell_text,
    unpack,
)

UNITS = (Unit("input", UnitKind.READ, 0), Unit("output", UnitKind.WRITE, 1),
         Unit("engine", UnitKind.COMPUTE))
CHANNELS = (Channel("filled", 0, 2, 0, "input"), Channel("free", 2, 0, 2, "buffer"),
            Channel("done", 2, 1), Channel("empty", 1, 2, 1, "output"))
TRANSFERS = {0: (Opcode.LOAD, Opcode.FETCH), 1: (Opcode.STORE,)}
COMPUTE = tuple(item for item in Opcode
                if item not in (Opcode.LOAD, Opcode.STORE, Opcode.FETCH))


def random_program(seed: int, count: int = 200) -> Program:
    generator = np.random.default_rng(seed)
    table = np.zeros((count, len(Column)), np.int64)
    arguments = np.zeros((count, ARGUMENT_COUNT), np.int32)

    def draw(field):
        return int(generator.integers(max(field.lowest, -2**31), min(field.highest, 2**31 - 1),
                                      endpoint=True))

    for row in range(count):
        unit = int(generator.integers(3))
        opcode = Opcode(generator.choice(TRANSFERS.get(unit, COMPUTE)))
        table[row, [Column.UNIT, Column.KIND, Column.LAYER]] = unit, opcode, row % 7
        table[row, Column.FLAGS] = generator.integers(2)
        for bit, channel in enumerate(CHANNELS):
            table[row, Column.WAIT] |= (channel.target == unit) * generator.integers(2) << bit
            table[row, Column.SIGNAL] |= (channel.source == unit) * generator.integers(2) << bit
        for field in TIMING + (TRANSFER if unit < 2 else ()):
            table[row, Column[field.name.upper()]] = draw(field)
        for index, field in enumerate(argument_fields(opcode)):
            arguments[row, index] = draw(field)
    layers = tuple(f"layer {index}" for index in range(7))
    half = count // 2
    return Program("random", UNITS, CHANNELS, layers, table, arguments,
                   (Segment(0, half, 3), Segment(half, count)))


@pytest.mark.parametrize("seed", range(5))
def test_a_program_comes_back_equal(seed):
    program = random_program(seed)
    data = pack(program)
    again = unpack(data, shell_text(program))
    assert again.content_hash() == program.content_hash()
    assert again.name == program.name
    assert pack(again) == data
    assert len(encode(program)) == DESCRIPTOR_BYTES * len(program.operations)


@pytest.mark.parametrize("opcode", list(Opcode))
def test_fields_do_not_overlap(opcode):
    transfer = opcode in (Opcode.LOAD, Opcode.STORE, Opcode.FETCH)
    fields = HEADER + TIMING + (TRANSFER if transfer else ()) + argument_fields(opcode)
    used = [bit for field in fields for bit in range(field.offset, field.offset + field.width)]
    assert len(used) == len(set(used))
    assert max(used) < DESCRIPTOR_BYTES * 8
    assert [field.name for field in argument_fields(opcode)] == list(ARGUMENTS[opcode])


def changed(program: Program, row: int, column: Column, value: int) -> Program:
    table = program.operations.copy()
    table[row, column] = value
    return dataclasses.replace(program, operations=table)


def test_a_value_that_does_not_fit_is_refused_by_name():
    program = random_program(0)
    transfer = int(np.argmax(program.operations[:, Column.UNIT] == 0))
    compute = int(np.argmax(program.operations[:, Column.UNIT] == 2))
    with pytest.raises(DescriptorError, match=f"operation {transfer}: address is .*must be from"):
        encode(changed(program, transfer, Column.ADDRESS, 1 << 32))
    with pytest.raises(DescriptorError, match="ROWS of a compute operation is 4, must be 0"):
        encode(changed(program, compute, Column.ROWS, 4))
    with pytest.raises(DescriptorError, match="trips is -1"):
        encode(changed(program, compute, Column.TRIPS, -1))


def test_too_many_channels_at_a_unit_are_refused():
    channels = CHANNELS + tuple(Channel(f"extra {i}", i % 2, 2) for i in range(16))
    with pytest.raises(DescriptorError, match="18 channels end there, at most 16"):
        encode(dataclasses.replace(random_program(1), channels=channels))


@pytest.mark.parametrize("cut", [1, 64, 4096])
def test_a_truncated_file_is_refused(cut):
    program = random_program(2)
    with pytest.raises(DescriptorError, match="truncated"):
        unpack(pack(program)[:-cut], shell_text(program))
    with pytest.raises(DescriptorError, match="magic"):
        unpack(b"nothing", shell_text(program))
