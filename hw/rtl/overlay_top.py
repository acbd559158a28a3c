"""The whole accelerator: masters, buffers, engines and token channels of one overlay.

It maps no layer: every program with these units and channels runs on it. The host is a timed
unit that stands for the ARM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value

from arch_models.memory import tensor_bytes, tensor_misfit, tensor_word_bytes
from arch_models.overlay import Engine, Fusion, Overlay, Role
from cosim.program.table import Buffer as Target
from cosim.program.table import Channel, Opcode, Program, Unit, UnitKind
from hw.interface.configuration import EmissionError
from hw.interface.descriptors import local_channels
from hw.rtl.buffers import BEAT_BITS, MOST_WRITERS, Buffer
from hw.rtl.engines import BUILT
from hw.rtl.engines.array import lag
from hw.rtl.engines.convolution import ConvolutionEngine
from hw.rtl.engines.stream import StreamPorts
from hw.rtl.operands import write_weights
from hw.rtl.pipeline import delay, register
from hw.rtl.ports import Ports, connect_units
from hw.rtl.timed import TimedUnit
from hw.rtl.tokens import TokenBank
from hw.rtl.transfers import bursts
from hw.rtl.transfers.bursts import MasterConfig
from hw.rtl.transfers.masters import PORT_BITS, ReadMaster, WriteMaster
from hw.rtl.transfers.places import Place, entry_places, tile_places
from hw.rtl.transfers.tensor_memory import TensorMemory

BEAT_BYTES = 8
#: Cycles from the place of a beat in OUTPUT to the beat: read, then chosen from its word.
STORE_CYCLES = 2
#: Of every master: its bursts, and the first beat that it stores, are there by then; the last
#: beat that it loads is written by the end.
LEAST_SETUP = max(bursts.LEAST_SETUP, WriteMaster.least_setup(STORE_CYCLES))
LEAST_TAIL = max(bursts.LEAST_TAIL, 2)


def check_buildable(units: Sequence[Unit], overlay: Overlay) -> None:
    """Refuse an overlay that this generator does not build; `EmissionError` names the field."""
    for name, value, legal in (("data_bits", overlay.data_bits, 8),
                               ("weight_bits", overlay.weight_bits, 8),
                               ("channel_block", overlay.channel_block, BEAT_BYTES)):
        if value != legal:
            raise EmissionError(f"{name} is {value}, must be {legal} in RTL")
    refused = tensor_misfit(overlay)
    if refused is not None:
        raise EmissionError(str(refused))
    for master in overlay.masters:
        if master.width_bits not in PORT_BITS:
            near = min(PORT_BITS, key=lambda bits: abs(bits - master.width_bits))
            raise EmissionError(f"masters.{master.name}.width_bits is {master.width_bits}, must "
                                f"be one of {PORT_BITS} in RTL; nearest {near}")
    if len(overlay.masters_of(Role.INPUT)) > MOST_WRITERS:
        raise EmissionError(f"masters: {len(overlay.masters_of(Role.INPUT))} with role 'input', "
                            f"at most {MOST_WRITERS} in RTL: a block RAM has two ports")
    for unit in units:
        if unit.kind is UnitKind.COMPUTE:
            continue
        for name, least in (("setup_cycles", LEAST_SETUP), ("tail_cycles", LEAST_TAIL)):
            if getattr(unit, name) < least:
                raise EmissionError(f"masters.{unit.name}.{name} is {getattr(unit, name)}, must "
                                    f"be at least {least} in RTL")


def _of_running(values: Sequence[tuple[Any, Value]]) -> Value:
    """The value of the engine that runs; the layer barrier keeps engines of different layers
    apart. 0 if none runs."""
    found: Value = Value.cast(0)
    for engine, value in values:
        found = found | (value & engine.shell.running.replicate(len(value)))
    return found


class OverlayTop(Elaboratable):
    """Units in the program's order; `ports.config` is empty, every number is a constant."""

    def __init__(self, units: tuple[Unit, ...], channels: tuple[Channel, ...],
                 overlay: Overlay) -> None:
        check_buildable(units, overlay)
        self.overlay = overlay
        self.channels = channels
        wiring = Program("wiring", units, channels, (), np.zeros((0, 0), np.int64),
                         np.zeros((0, 0), np.int32), ())
        self.local = [local_channels(wiring, unit) for unit in range(len(units))]
        self.in_lanes, self.out_lanes = overlay.tn // BEAT_BYTES, overlay.tm // BEAT_BYTES
        self.engines: dict[Engine, Any] = {}
        self.tensors = (TensorMemory(tensor_bytes(overlay), tensor_word_bytes(overlay) * 8)
                        if overlay.tensor_memory_kib else None)
        self.masters: dict[str, ReadMaster | WriteMaster] = {}
        self.units = [self._unit(unit, *map(len, self.local[index]))
                      for index, unit in enumerate(units)]
        for made in self.units:
            made.shell.gated = overlay.clock_gating and not isinstance(made, TimedUnit)
        self.ports = Ports(self.units, {})
        self.keep = Signal()  # tokens stay as they are while `go` is low

    def _unit(self, unit: Unit, waits: int, signals: int) -> Any:
        if unit.kind is UnitKind.COMPUTE:
            if unit.name not in list(BUILT):
                return TimedUnit(waits, signals)
            engine = Engine(unit.name)
            self.engines[engine] = BUILT[engine](self.overlay, waits, signals)
            return self.engines[engine]
        master = next(item for item in self.overlay.masters if item.name == unit.name)
        width, sides = master.width_bits, {}
        if self.tensors is not None:
            sides = {Role.INPUT: self.tensors.read, Role.OUTPUT: self.tensors.write}
        side = sides.get(master.role)
        config = MasterConfig(unit.setup_cycles, unit.tail_cycles, unit.outstanding,
                              unit.max_burst_beats * width // 8, (width // 8).bit_length() - 1,
                              int(unit.overlap_runs), unit.run_setup_cycles)
        self.masters[unit.name] = (
            WriteMaster(config, waits, signals, port_bits=width, latency=STORE_CYCLES,
                        tensors=side)
            if unit.kind is UnitKind.WRITE else ReadMaster(config, waits, signals, width, side))
        return self.masters[unit.name]

    def _masters(self, role: Role) -> list[Any]:
        return [self.masters[master.name] for master in self.overlay.masters_of(role)]

    def elaborate(self, platform: object) -> Module:
        """Connect units, channels and buffers."""
        m = Module()
        m.submodules.bank = bank = TokenBank(len(self.channels))
        connect_units(m, self.ports)
        m.d.comb += [bank.go.eq(self.ports.go), bank.keep.eq(self.keep),
                     self.ports.overflow.eq(bank.overflow)]
        for number, channel in enumerate(self.channels):
            giver, taker = self.units[channel.source].shell, self.units[channel.target].shell
            give_bit = self.local[channel.source][1].index(number)
            take_bit = self.local[channel.target][0].index(number)
            m.d.comb += [bank.initial[number].eq(channel.initial),
                         bank.give[number].eq(giver.give[give_bit]),
                         bank.take[number].eq(taker.take[take_bit]),
                         taker.available[take_bit].eq(bank.available[number]),
                         taker.coming[take_bit].eq(bank.coming[number])]
        if self.tensors is not None:
            m.submodules.tensor_memory = self.tensors
        self._inputs(m)
        self._outputs(m)
        self._constants(m)
        return m

    def _buffer(self, m: Module, name: str, depth: int, lanes: int,
                writers: Sequence[ReadMaster] = (), **more: Any) -> Buffer:
        slots = tuple(len(master.beats) for master in writers) or (1,)
        made = Buffer(name, depth, lanes, slots, **more)
        m.submodules[name] = made
        return made

    def _load(self, m: Module, master: ReadMaster, target: Target, buffer: Buffer,
              places: Sequence[Place], writer: int = 0) -> None:
        """Write the beats that `master` receives, if its operation loads this buffer.

        `places`: of the beats. They are written a cycle after they came.
        """
        loads = register(m, master.shell.argument(Opcode.LOAD, "buffer") == target)
        ports = zip(buffer.writes[writer], master.beats, places, strict=True)
        for port, (valid, data), place in ports:
            word = Cat([data] * buffer.lanes)
            m.d.sync += [port.address.eq(place.word), port.data.eq(word),
                         port.lanes.eq(Mux(loads & valid, 1 << place.lane, 0))]

    def _inputs(self, m: Module) -> None:
        """INPUT and SKIP: filled by the input masters, INPUT read by the engine that runs.

        INPUT has a copy for each column of the convolution; other engines read the first one.
        """
        overlay, masters = self.overlay, self._masters(Role.INPUT)
        places = [tile_places(m, master, Opcode.LOAD, self.in_lanes) for master in masters]
        for column in range(overlay.columns):
            tiles = self._buffer(m, f"input_buffer_{column}",
                                 overlay.input_words * overlay.input_banks, self.in_lanes, masters,
                                 banks=overlay.input_banks)
            for writer, master in enumerate(masters):
                self._load(m, master, Target.INPUT, tiles, places[writer], writer)
            readers = []
            for engine in self.engines.values():
                array = isinstance(engine, ConvolutionEngine)
                if not array and column:
                    continue
                readers.append((engine, engine.in_address[column] if array else engine.in_address))
                data = engine.in_data[column] if array else engine.in_data
                m.d.comb += data.eq(tiles.read_data)
            m.d.sync += tiles.read_address.eq(_of_running(readers))
        if Engine.CONVOLUTION in self.engines and Fusion.ADD in overlay.fusions:
            skip = self._buffer(m, "skip_buffer", overlay.output_words * overlay.output_banks,
                                self.out_lanes, masters[:1])  # only the first loads skip tiles
            self._load(m, masters[0], Target.OUTPUT, skip,
                       places[0] if self.in_lanes == self.out_lanes else
                       tile_places(m, masters[0], Opcode.LOAD, self.out_lanes))
            convolution = self.engines[Engine.CONVOLUTION]
            m.d.comb += [skip.read_address.eq(convolution.skip_address),
                         convolution.skip_data.eq(skip.read_data)]

    def _outputs(self, m: Module) -> None:
        """OUTPUT: written by the engine that runs, one copy for each output master to read.

        What an engine writes is there a cycle later: before a store that it lets start reads.
        """
        addresses, words, enables = [], [], []
        for engine in self.engines.values():
            streams = isinstance(engine, StreamPorts)
            addresses.append((engine, engine.out_address))
            words.append((engine, Cat([engine.out_data] * self.out_lanes) if streams
                          else engine.out_data))
            enables.append((engine, engine.out_write if streams
                            else engine.out_write.replicate(self.out_lanes)))
        write = (register(m, _of_running(addresses)), register(m, _of_running(words)),
                 delay(m, _of_running(enables), 1))
        for index, master in enumerate(self._masters(Role.OUTPUT)):
            self._output(m, master, f"output_buffer_{index}" if index else "output_buffer", write)

    def _output(self, m: Module, master: WriteMaster, name: str,
                write: tuple[Value, Value, Value]) -> None:
        """The copy of OUTPUT that a master reads."""
        overlay, pairs = self.overlay, len(master.w_strobe) > 1
        results = self._buffer(m, name, overlay.output_words * overlay.output_banks,
                               self.out_lanes, pairs=pairs)
        address, data, lanes = write
        m.d.comb += [results.write_address.eq(address), results.write_data.eq(data),
                     results.write_lanes.eq(lanes)]
        place = tile_places(m, master, Opcode.STORE, self.out_lanes)[0]
        lane = delay(m, place.lane, STORE_CYCLES - 1)
        found = [results.read_data, *([results.next_data] if pairs else [])]
        m.d.comb += results.read_address.eq(place.word)
        m.d.sync += master.data.eq(Cat(item.word_select(lane, BEAT_BITS) for item in found))

    def _constants(self, m: Module) -> None:
        """WEIGHT, parameters, tables and accumulators."""
        (master,) = self._masters(Role.WEIGHT)
        if Engine.CONVOLUTION in self.engines:
            self._convolution_constants(m, master)
        for engine in self.engines.values():
            for item in engine.constants if isinstance(engine, StreamPorts) else ():
                held = self._buffer(m, item.name, -(-item.entries // item.lanes), item.lanes,
                                    [master])
                self._load(m, master, item.target, held, entry_places(m, master, item.lanes))
                m.d.comb += [held.read_address.eq(item.address), item.data.eq(held.read_data)]
        self._tables(m, master)

    def _convolution_constants(self, m: Module, master: ReadMaster) -> None:
        overlay, engine = self.overlay, self.engines[Engine.CONVOLUTION]
        weight_lanes = overlay.tm * overlay.tn // BEAT_BYTES
        weights = self._buffer(m, "weight_buffer", overlay.weight_words * overlay.weight_banks,
                               weight_lanes, [master], by_bytes=True,
                               lags=[lag(index * BEAT_BYTES // overlay.tm, overlay.dsp_packing)
                                     for index in range(weight_lanes)])
        write_weights(m, master, weights.writes[0], overlay)
        lanes = overlay.requantizers
        parameters = self._buffer(m, "convolution_parameters",
                                  -(-overlay.parameter_entries // lanes), lanes,
                                  [master])
        self._load(m, master, Target.CONVOLUTION_PARAMETERS, parameters,
                   entry_places(m, master, lanes))
        m.d.comb += [
            weights.read_address.eq(engine.weight_address),
            engine.weight_data.eq(weights.read_data),
            parameters.read_address.eq(engine.parameter_address),
            engine.parameter_data.eq(parameters.read_data),
        ]
        for column in range(overlay.columns):
            sums = self._buffer(m, f"accumulators_{column}",
                                -(-overlay.accumulator_words // overlay.columns),
                                overlay.tm // 2)
            m.d.comb += [
                sums.read_address.eq(engine.partial_read_address),
                engine.partial_read_data[column].eq(sums.read_data),
                sums.write_address.eq(engine.partial_write_address),
                sums.write_data.eq(engine.partial_write_data[column]),
                sums.write_lanes.eq(engine.partial_write.replicate(sums.lanes)),
            ]

    def _tables(self, m: Module, master: ReadMaster) -> None:
        """A copy of TABLE for each lookup lane; the softmax reads the first, or has its own."""
        lookup = self.engines.get(Engine.LOOKUP)
        softmax = self.engines.get(Engine.SOFTMAX)
        copies = max((len(engine.table_addresses) for engine in (lookup, softmax) if engine),
                     default=0)
        places = entry_places(m, master, 1) if copies else []
        for index in range(copies):
            table = self._buffer(m, f"table_{index}",
                                 -(-self.overlay.table_bytes // BEAT_BYTES), 1, [master])
            self._load(m, master, Target.TABLE, table, places)
            address: Value = Value.cast(0)
            if lookup is not None:
                address = lookup.table_addresses[index]
                m.d.comb += lookup.table_data[index].eq(table.read_data)
            if softmax is not None and index < len(softmax.table_addresses):
                address = Mux(softmax.shell.running, softmax.table_addresses[index], address)
                m.d.comb += softmax.table_data[index].eq(table.read_data)
            m.d.comb += table.read_address.eq(address)
