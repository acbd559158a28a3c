"""A board made of the compiled IP: the driver's hardware is the Verilated register file and buses.

It interprets no register and no descriptor; the IP does. Time passes only during an access or a
wait, and its times are no measurement of a board (`source`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arch_models.memory import Memory
from arch_models.overlay import Overlay
from cosim.program.table import Program, UnitKind
from hw.rtl.ip.axi_shell import AxiShell
from hw.rtl.shell import COUNTER_LAG
from hw.rtl.verilog import ip_verilog
from hw.rtl_sim.model import BIND, MasterTiming, RtlModel, compiled
from hw.rtl_sim.stand_in import Buffer
from hw.rtl_sim.timed import master_timing

PAGE_BYTES = 4096
MEMORY_BYTES = 1 << 26
DESCRIPTOR_CHANNEL = 63  # of the flat memory, used by nobody else
DESCRIPTOR_LATENCY_CYCLES = 20
CYCLES_A_SECOND = 20_000_000  # of the time that the driver waits: so long is its patience


class RtlBoard:
    """The methods are those of `hw.board.hardware.PynqHardware`.

    `late`: never run a start to its end.
    """

    source = "rtl simulation"

    def __init__(self, program: Program, overlay: Overlay, memory: Memory, late: bool = False,
                 cache: Path | None = None) -> None:
        self.shell = shell = AxiShell(program, overlay)
        self._program, self._memory, self._late = program, memory, late
        self._masters = shell.masters
        self._model = RtlModel(compiled(ip_verilog(shell, "top"), _glue(shell), cache))
        self._image = np.zeros(MEMORY_BYTES, np.uint8)
        self._used = PAGE_BYTES
        self.stopped = True

    def download(self, bitstream: str) -> None:
        """Reset the IP and connect its memory."""
        self._model.reset()
        self._model.memory(self._image)
        self._model.master(0, MasterTiming(DESCRIPTOR_CHANNEL, 0, 8, DESCRIPTOR_LATENCY_CYCLES, 0))
        index = {unit.name: number for number, unit in enumerate(self._program.units)
                 if unit.kind is not UnitKind.COMPUTE}
        for place, name in enumerate(self._masters, 1):
            self._model.master(place, master_timing(self._program, self._memory, index[name]))
        self.stopped = False

    def read(self, offset: int) -> int:
        """A register."""
        return self._model.register(offset)

    def write(self, offset: int, value: int) -> None:
        """Write a register."""
        if self.stopped:
            raise RuntimeError("the board is stopped or has no bitstream")
        self._model.register(offset, value)

    def allocate(self, size: int) -> Buffer:
        """Pages of the one memory behind every port."""
        start = self._used
        self._used += -(-size // PAGE_BYTES) * PAGE_BYTES
        buffer = self._image[start : start + size].view(Buffer)
        buffer.physical_address = start
        return buffer

    def wait_interrupt(self, timeout_s: float) -> bool:
        """Let time pass until the interrupt."""
        return self._model.interrupt(0 if self._late else int(timeout_s * CYCLES_A_SECOND))

    def stop(self) -> None:
        """Hold the IP in reset."""
        if not self.stopped:
            self._model.reset()
        self._used, self.stopped = PAGE_BYTES, True


def _glue(shell: AxiShell) -> str:
    """C++ that finds the signals of the IP in the compiled model; its masters in port order."""
    lines = ["static void set_clock(Vtop &top, int value) { top.ap_clk = value; }",
             "static void set_reset(Vtop &top, int value) { top.ap_rst_n = !value; }",
             "static void set_go(Vtop &, int) {}",
             "static std::uint64_t get_started(Vtop &) { return 0; }",
             "static std::uint64_t get_ended(Vtop &) { return 0; }",
             "static int get_overflow(Vtop &) { return 0; }",
             "static std::uint64_t get_counter(Vtop &, int) { return 0; }",
             f"constexpr int COUNTER_LAG = {COUNTER_LAG};", BIND, "{"]
    control = {"write_address": "AWADDR", "read_address": "ARADDR", "write_data": "WDATA",
               "read_data": "RDATA", "write_address_valid": "AWVALID", "write_valid": "WVALID",
               "written": "BVALID", "write_taken": "BREADY", "read_valid": "ARVALID",
               "data_valid": "RVALID", "data_taken": "RREADY", "write_ready": "AWREADY",
               "read_ready": "ARREADY"}
    lines += [f"    lite.{pin} = &top.s_axi_control_{name};" for pin, name in control.items()]
    lines.append("    lite.interrupt = &top.__SYM__interrupt;  // Verilator renames C++ words")
    for name in ("descriptors", *shell.masters):
        lead = f"m_axi_port_{name}"
        reads = f"{lead}_ARADDR" in shell.ports
        side, data = ("AR", "RDATA") if reads else ("AW", "WDATA")
        pins = {"request": f"{side}VALID", "request_ready": f"{side}READY",
                "address": f"{side}ADDR", "length": f"{side}LEN", "data": data}
        pins |= ({"data_valid": "RVALID", "last": "RLAST"} if reads else
                 {"data_valid": "WVALID", "data_ready": "WREADY", "response": "BVALID",
                  "strobe": "WSTRB"})
        lines.append(f"    {{ Pins p; p.kind = {'READ' if reads else 'WRITE'}; "
                     "p.strobe_bytes = 1;")
        for pin, signal in pins.items():
            wide = ".data()" if len(shell.p(f"{lead}_{signal}")) > 64 else ""
            lines.append(f"      p.{pin} = {'' if wide else '&'}top.{lead}_{signal}{wide};")
        lines.append("      pins.push_back(p); }")
    return "\n".join([*lines, "}", ""])
