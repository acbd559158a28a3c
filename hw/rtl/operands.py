"""Where a beat that a master receives goes in a word of WEIGHT, as its order says.

It holds no memory. A beat holds weights of one output channel; a word is `tn` rows of `tm` bytes,
so that the memories of an input channel can be read at a time of their own. An activation's beat
also clears what is behind it in its rows, so that no padded channel multiplies what an older
block left. Places are counted, not divided, and a beat is written four cycles after it came: the
array reads it later than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from arch_models.overlay import Overlay
from cosim.program.table import Buffer, Opcode, WeightOrder
from hw.rtl.buffers import WritePort
from hw.rtl.pipeline import delay, late, register
from hw.rtl.transfers.masters import ReadMaster

BEAT_BYTES = 8
WORD_BITS = 16


class _Place(NamedTuple):
    """A word, and where the beat lies in it: a beat of all (STORED), an output channel (ROWS), an
    input channel (COLUMNS)."""

    word: Value
    inner: Value


def write_weights(m: Module, master: ReadMaster, ports: Sequence[WritePort], overlay: Overlay
                  ) -> None:
    """Connect a master's beats to ports with a bit for each byte of the word.

    `base` counts words; `positions` is the number of input words of an output word. Of packed
    products, weights of even output channels have their sign bit inverted (see `array`).
    """
    order = master.shell.argument(Opcode.LOAD, "order", WORD_BITS)
    rows, columns = (register(m, order == one) for one in (WeightOrder.ROWS, WeightOrder.COLUMNS))
    ordered = register(m, order != WeightOrder.STORED)
    loads = register(m, master.shell.argument(Opcode.LOAD, "buffer") == Buffer.WEIGHT)
    places, part = _places(m, master, (rows, columns, ordered), overlay)
    for port, (valid, beat), place in zip(ports, master.beats, places, strict=True):
        m.d.sync += port.address.eq(late(m, place.word, 2))
        _write(m, port, delay(m, valid & loads, 2), late(m, beat, 2), register(m, place.inner),
               register(m, part), (rows, columns), overlay)


def _places(m: Module, master: ReadMaster, order: tuple[Value, Value, Value], overlay: Overlay
            ) -> tuple[list[_Place], Signal]:
    """The place of each beat that the master moves, and of its plane among those of a word: a
    cycle after the beat."""
    shell, counter, (rows, columns, ordered) = master.shell, master.counter, order
    lanes = overlay.tn // BEAT_BYTES
    base, words = (shell.argument(Opcode.LOAD, name, WORD_BITS) for name in ("base", "positions"))
    size = register(m, Mux(rows, overlay.tm, Mux(columns, overlay.tn, overlay.tm * lanes)))
    step = register(m, Mux(rows, words, 1))
    parts = register(m, Mux(rows, lanes, overlay.tm // BEAT_BYTES))
    part_step = register(m, Mux(rows, 1, words))
    word, opens, behind = (Signal(WORD_BITS, name=f"operand_{name}", reset_less=True)
                           for name in ("word", "opens", "behind"))
    inner, left = (Signal.like(size, name=f"operand_{name}", reset_less=True)
                   for name in ("inner", "left"))  # beats of a word before this one, and to come
    part, parts_left = (Signal(8, name=f"operand_{name}", reset_less=True)
                        for name in ("part", "parts_left"))
    one, two, part_last = Signal(), Signal(), Signal()  # that many beats, or one plane, to come
    begins, moves = delay(m, shell.begins, 1), delay(m, counter.moves, 1)
    pair, ends = (delay(m, counter.moved == 2, 1),
                  delay(m, counter.plane_moves & ordered, 1))
    moved = Mux(pair, 2, 1)
    with m.If(begins | ends):
        m.d.sync += [inner.eq(0), left.eq(size), one.eq(0), two.eq(0)]  # a word holds eight
    with m.Elif(moves):
        wraps = one | (two & pair)
        m.d.sync += [inner.eq(Mux(wraps, one & pair, inner + moved)),
                     left.eq(Mux(wraps, size - (one & pair), left - moved)),
                     one.eq(~wraps & (left == Mux(pair, 3, 2))),
                     two.eq(~wraps & (left == Mux(pair, 4, 3)))]
    with m.If(begins):
        m.d.sync += [word.eq(base), opens.eq(base), behind.eq(base + part_step), part.eq(0),
                     parts_left.eq(parts), part_last.eq(parts == 1)]
    with m.Elif(ends):
        m.d.sync += [word.eq(Mux(part_last, behind, opens)),
                     part.eq(Mux(part_last, 0, part + 1)),
                     parts_left.eq(Mux(part_last, parts, parts_left - 1)),
                     part_last.eq(Mux(part_last, parts == 1, parts_left == 2))]
        with m.If(part_last):
            m.d.sync += [opens.eq(behind), behind.eq(behind + part_step)]
    with m.Elif(moves & (one | (two & pair))):
        m.d.sync += word.eq(word + step)
    found = [_Place(word, inner)]
    if counter.slots > 1:
        found.append(_Place(Mux(one, word + step, word)[:WORD_BITS],
                            Mux(one, 0, inner + 1)[:len(inner)]))
    return found, part


def _write(m: Module, port: WritePort, valid: Value, beat: Value, inner: Value, part: Value,
           order: tuple[Value, Value], overlay: Overlay) -> None:
    """Data and enables of a port, two cycles after a beat and its place."""
    (rows, columns), tm, lanes = order, overlay.tm, overlay.tn // BEAT_BYTES
    plain = [register(m, valid & ~(rows | columns) & (inner == index))
             for index in range(tm * lanes)]
    taken = [register(m, valid & Mux(rows, inner == out, columns & (part == out // BEAT_BYTES)))
             for out in range(tm)]
    lane = Mux(rows, part, inner >> 3)  # where the new bytes of a row begin
    byte = Mux(columns, inner[:3], 0)
    here = [register(m, lane == index) for index in range(lanes)]
    later = [register(m, lane < index) for index in range(lanes)]
    clears = [register(m, (rows | columns) & (lane != index)) for index in range(lanes)]
    alone = [register(m, columns & (byte != place)) for place in range(BEAT_BYTES)]
    begins = [register(m, byte <= place) for place in range(BEAT_BYTES)]
    beat, single = register(m, beat), register(m, columns)
    data, enables = {}, {}
    for out, index, place in product(range(tm), range(lanes), range(BEAT_BYTES)):
        channel = index * BEAT_BYTES + place
        mine = beat.word_select(Mux(single, Const(out % BEAT_BYTES, 3), Const(place, 3)), 8)
        value = Mux(clears[index] | alone[place], 0, mine)
        flips = 0x80 if overlay.dsp_packing and out % 2 == 0 else 0
        data[channel, out] = value ^ flips
        enables[channel, out] = plain[out * lanes + index] | (
            taken[out] & (later[index] | (here[index] & begins[place])))
    m.d.sync += [port.data.eq(Cat(data[where] for where in sorted(data))),
                 port.lanes.eq(Cat(enables[where] for where in sorted(enables)))]
