"""Where a beat that a master receives goes in a word of WEIGHT, as its order says.

It holds no memory. A beat holds weights of one output channel; a word is `tn` rows of `tm` bytes,
so that the memories of an input channel can be read at a time of their own. An activation's beat
also clears what is behind it in its rows, so that no padded channel multiplies what an older
block left.
"""

from __future__ import annotations

from itertools import product

from amaranth.hdl import Array, Cat, Module, Mux, Signal

from arch_models.overlay import Overlay
from cosim.program.table import Buffer, Opcode, WeightOrder
from hw.rtl.buffers import WritePort
from hw.rtl.pipeline import divide
from hw.rtl.transfers.masters import ReadMaster

BEAT_BYTES = 8
WORD_BITS = 16


def write_weights(m: Module, master: ReadMaster, port: WritePort, slot: int, overlay: Overlay
                  ) -> None:
    """Connect place `slot` of a master's beats to a port with a bit for each byte of the word.

    `base` counts words; `positions` is the number of input words of an output word. Of packed
    products, weights of even output channels have their sign bit inverted (see `array`).
    """
    tm, tn = overlay.tm, overlay.tn
    counter, (valid, beat) = master.counter, master.beats[slot]
    lanes = tn // BEAT_BYTES
    base, words, order = (master.shell.argument(Opcode.LOAD, name, WORD_BITS)
                          for name in ("base", "positions", "order"))
    rows, columns = order == WeightOrder.ROWS, order == WeightOrder.COLUMNS
    position = (counter.position + slot)[:24]
    stored_word, stored = divide(m, (counter.index + slot)[:24], tm * lanes)
    by_row, row = divide(m, position, tm)  # ROWS: positions are output channels
    plane_word, plane_lane = divide(m, counter.plane, lanes)
    by_column, eight = divide(m, counter.plane, tm // BEAT_BYTES)  # COLUMNS: channels are
    column_word, column = divide(m, position, tn)
    outer, inner = Mux(rows, by_row, by_column), Mux(rows, plane_word, column_word)
    m.d.comb += port.address.eq(
        base + Mux(rows | columns, outer[:WORD_BITS] * words + inner, stored_word))

    lane, byte = Signal(range(max(2, lanes))), Signal(3)  # where the new bytes of a row begin
    m.d.comb += [lane.eq(Mux(rows, plane_lane, column >> 3)),
                 byte.eq(Mux(columns, column[:3], 0))]
    loads = valid & (master.shell.argument(Opcode.LOAD, "buffer") == Buffer.WEIGHT)
    # Output channels that take the same byte of a beat share their data.
    shared = [Signal(8 * BEAT_BYTES, name=f"operand_{slot}_{index}")
              for index in range(BEAT_BYTES * lanes)]
    for index, value in enumerate(shared):
        mine = beat.word_select(index // lanes, 8)
        alone = Cat(Mux(byte == place, mine, 0) for place in range(BEAT_BYTES))
        behind = (rows | columns) & (lane != index % lanes)
        m.d.comb += value.eq(Mux(behind, 0, Mux(columns, alone, beat)))
    from_byte = Array((0xFF << index) & 0xFF for index in range(BEAT_BYTES))[byte]
    data, enables = {}, {}
    for out, index in product(range(tm), range(lanes)):
        taken = loads & Mux(rows, row == out, columns & (eight == out // BEAT_BYTES))
        plain = loads & ~(rows | columns) & (stored == out * lanes + index)
        whole = plain | (taken & (lane < index))
        enable = Mux(whole, 0xFF, Mux(taken & (lane == index), from_byte, 0))
        value = shared[(out % BEAT_BYTES) * lanes + index]
        for place in range(BEAT_BYTES):
            channel = index * BEAT_BYTES + place
            flips = 0x80 if overlay.dsp_packing and out % 2 == 0 else 0
            data[channel, out] = value.word_select(place, 8) ^ flips
            enables[channel, out] = enable[place]
    m.d.comb += [port.data.eq(Cat(data[where] for where in sorted(data))),
                 port.lanes.eq(Cat(enables[where] for where in sorted(enables)))]
