"""A server in a board's place: pynq's remote devices drive the compiled IP of an emitted project.

It interprets no register of the IP. It stands for a Zynq-7000 board: bitstream download, control
port, system registers, memory. Time passes while the IP's registers are accessed, and up to
`POLL_CYCLES` at each look at its interrupt, since the protocol has no other way to wait.
`cosim board serve PROJECT` runs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np

from arch_models.board import load_board
from arch_models.memory import memory_for
from arch_models.overlay import load_overlay
from hw.board.emitted import DriverError, Project
from hw.interface.descriptors import unpack
from hw.interface.registers import CONTROL_ADDRESS, CONTROL_BYTES, INTERRUPT_STATUS
from hw.pynq.files import prepare
from hw.pynq.protocol import handlers
from hw.rtl_sim.board import CYCLES_A_SECOND, RtlBoard
from hw.rtl_sim.cache import default_cache
from hw.rtl_sim.stand_in import Buffer

#: pynq appends the port to what `PYNQ_REMOTE_DEVICES` says, also to a `unix:` path.
PORT = 7967
LOCAL = f"127.0.0.1:{PORT}"
POLL_CYCLES = 20_000
CHUNK_BYTES = 1 << 20  # of a stream; gRPC refuses messages above 4 MiB
FIRMWARE = "/lib/firmware/"
MANAGER = "/sys/class/fpga_manager/fpga0/"


class SystemRegisters:
    """The Zynq-7000 registers (SLCR) that pynq and the driver touch: lock, PLL, clocks, reset.

    Written only while unlocked, as Linux leaves them.
    """

    ADDRESS, BYTES = 0xF8000000, 0x1000
    LOCK, UNLOCK, IO_PLL, FIRST_CLOCK, RESET = 0x004, 0x008, 0x108, 0x170, 0x240
    KEYS: ClassVar = {LOCK: 0x767B, UNLOCK: 0xDF0D}
    REFERENCE_HZ = 50_000_000

    def __init__(self) -> None:
        self.locked = False
        self._values = {self.IO_PLL: 20 << 12}  # 1 GHz

    def read(self, offset: int) -> int:
        """A register; those without a meaning here hold what was written."""
        return self._values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Write a register; does nothing while locked, but for the right key."""
        if offset in self.KEYS:
            if value == self.KEYS[offset]:
                self.locked = offset == self.LOCK
        elif not self.locked:
            self._values[offset] = value

    def clock_hz(self, number: int) -> float:
        """The rate of a clock of the fabric: PLL over two divisors; 0 if never set."""
        value = self.read(self.FIRST_CLOCK + 0x10 * number)
        divisors = (value >> 8 & 63) * (value >> 20 & 63)
        return self.REFERENCE_HZ * (self.read(self.IO_PLL) >> 12) / divisors if divisors else 0.0


class PynqServer:
    """Answers pynq's calls with a board. Use as a context manager: it serves inside.

    `address`: 127.0.0.1:PORT, or `unix:PATH:PORT`, where nobody else listens. `system`: its
    system registers. `bitstream`: what pynq has sent to configure the fabric. Raises
    `DriverError` if the address cannot be had.
    """

    def __init__(self, board: RtlBoard, address: str = LOCAL) -> None:
        if not address.startswith(("127.0.0.1:", "unix:")):
            raise DriverError(f"address {address!r}: must be 127.0.0.1:PORT or unix:PATH:PORT, "
                              f"for example {LOCAL}")
        self.board, self.address = board, address
        self.system = SystemRegisters()
        self.bitstream = b""
        self._files = {"/proc/version": b"Linux armv7l",
                       "/proc/device-tree/chosen/pynq_board": board.source.encode(),
                       f"{MANAGER}state": b"operating", f"{MANAGER}flags": b"0"}
        self._windows: dict[str, tuple[int, int]] = {}
        self._buffers: dict[str, Buffer] = {}
        self._numbers = itertools.count(1)
        # One worker: the compiled model serves one call at a time.
        self._server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        for handler in handlers(self):
            self._server.add_generic_rpc_handlers((handler,))
        try:
            self._server.add_insecure_port(address)
        except RuntimeError:
            raise DriverError(f"{address}: cannot be listened on; is another server running "
                              "there?") from None

    def __enter__(self) -> PynqServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def wait(self) -> None:
        """Serve until interrupted."""
        self._server.wait_for_termination()

    def existsfile(self, request: Any) -> dict[str, Any]:
        """Is there such a file on the board?"""
        return {"exists": request.file_path in self._files}

    def readfile(self, request: Any) -> Iterator[dict[str, Any]]:
        """The bytes of a file."""
        if request.file_path not in self._files:
            raise ValueError(f"{request.file_path}: no such file on this board")
        yield {"data": self._files[request.file_path]}

    def writefile(self, requests: Iterable[Any]) -> dict[str, Any]:
        """Keep a file; its name, written to the FPGA manager, configures the fabric."""
        path, data = "", b""
        for request in requests:
            path, data = request.file_path, data + request.data
        if path == f"{MANAGER}firmware":
            self._configure(data.decode())
        else:
            self._files[path] = data
        return {}

    def _configure(self, name: str) -> None:
        # Forgotten here: pynq does not send a file again that the board has, even if it changed.
        data = self._files.pop(FIRMWARE + name, None)
        if data is None:
            raise ValueError(f"{FIRMWARE}{name}: no such bitstream on this board")
        self.bitstream = data
        self.board.download(name)
        self._write_system(SystemRegisters.RESET, 0)

    def set_bitstream_attrs(self, request: Any) -> dict[str, Any]:
        """Only whole bitstreams can be loaded."""
        return {"status": not request.partial}

    def get_mmio(self, request: Any) -> dict[str, Any]:
        """Open a window on the IP's control port or on the system registers."""
        for base, size in ((CONTROL_ADDRESS, CONTROL_BYTES),
                           (SystemRegisters.ADDRESS, SystemRegisters.BYTES)):
            if base <= request.base_addr and request.base_addr + request.length <= base + size:
                name = str(next(self._numbers))
                self._windows[name] = base, request.base_addr - base
                return {"status": True, "mmio_id": name}
        raise ValueError(f"addresses {request.base_addr:#x} and {request.length} bytes on: "
                         "nothing of this board lies there")

    def mmio_read(self, request: Any) -> dict[str, Any]:
        """A 32-bit register."""
        base, first = self._windows[request.mmio_id]
        offset = first + request.offset
        if request.length != 4:
            raise ValueError(f"a read of {request.length} bytes: registers have 4")
        if base == SystemRegisters.ADDRESS:
            return {"status": True, "data": self.system.read(offset)}
        if offset == INTERRUPT_STATUS and not self.board.stopped:
            self.board.wait_interrupt(POLL_CYCLES / CYCLES_A_SECOND)
        return {"status": True, "data": self.board.read(offset)}

    def mmio_write(self, request: Any) -> dict[str, Any]:
        """Write 32-bit registers that follow each other."""
        base, first = self._windows[request.mmio_id]
        for place, value in enumerate(np.frombuffer(request.data, "<u4")):
            offset = first + request.offset + 4 * place
            if base == SystemRegisters.ADDRESS:
                self._write_system(offset, int(value))
            else:
                self.board.write(offset, int(value))
        return {"status": True}

    def _write_system(self, offset: int, value: int) -> None:
        self.system.write(offset, value)
        if self.system.read(SystemRegisters.RESET):
            self.board.stop()

    def allocate(self, request: Any) -> dict[str, Any]:
        """Memory behind every port of the IP."""
        buffer = self.board.allocate(request.size)
        if buffer.size != request.size:
            raise RuntimeError(f"{request.size} bytes: the simulated board has no such memory left")
        name = str(next(self._numbers))
        self._buffers[name] = buffer
        return {"buffer_id": name}

    def buffer_write(self, requests: Iterable[Any]) -> dict[str, Any]:
        """Fill a buffer from its start on."""
        at = 0
        for request in requests:
            data = np.frombuffer(request.data, np.uint8)
            self._buffers[request.buffer_id][at : at + data.size] = data
            at += data.size
        return {}

    def buffer_read(self, request: Any) -> Iterator[dict[str, Any]]:
        """The bytes of a buffer."""
        buffer = self._buffers[request.buffer_id]
        for start in range(0, buffer.size, CHUNK_BYTES):
            yield {"data": buffer[start : start + CHUNK_BYTES].tobytes()}

    def flush(self, request: Any) -> dict[str, Any]:
        """Caches are not modelled."""
        return {}

    def invalidate(self, request: Any) -> dict[str, Any]:
        """Caches are not modelled."""
        return {}

    def physical_address(self, request: Any) -> dict[str, Any]:
        """Where a buffer lies for the IP."""
        return {"address": self._buffers[request.buffer_id].physical_address}

    def freebuffer(self, request: Any) -> dict[str, Any]:
        """Forget a buffer; the board takes its memory back when it is stopped."""
        self._buffers.pop(request.buffer_id, None)
        return {}


def open_board(folder: Path) -> RtlBoard:
    """Compile the IP of an emitted project, with the memory model `flat`."""
    project = Project(str(folder))
    program = unpack(project.data("data/descriptors.bin").tobytes(),
                     project.data("data/program.json").tobytes().decode())
    overlay = load_overlay(folder / "design.toml")
    board = load_board(project.manifest["board"])
    return RtlBoard(program, overlay, memory_for(board, overlay, model="flat"))


def serve(folder: Path, address: str, told: Callable[[str], None]) -> None:
    """Serve an emitted project until somebody ends it; `told` gets what a person needs to know.

    Raises `DriverError`, `EmissionError`, `DescriptorError`, `FieldError` or `RtlError` for a
    project that it cannot serve.
    """
    bitstream = prepare(folder)
    with PynqServer(open_board(folder), address) as server:
        told(f"compiled models are kept in {default_cache()}\n"
             f"serving {folder} at {server.address}, which only this machine reaches; "
             "with a Python that has pynq 4:\n"
             f"PYNQ_REMOTE_DEVICES={server.address.removesuffix(f':{PORT}')} python "
             f"{folder}/board/run.py --bitstream {bitstream}")
        server.wait()
