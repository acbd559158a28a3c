"""What the driver drives on a board: the fabric through pynq, the host layers, the board's lock.

It knows no frame and no tensor; `driver` does. Needs only numpy, and pynq (imported when first
used). Written for Python 3.8, that of the board's image.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import stat
import time
from typing import Any

import numpy as np

try:
    from hw.board.emitted import DriverError
except ImportError:  # beside this file in an emitted project
    from emitted import DriverError  # type: ignore[no-redef, import-not-found]


class HostLibrary:
    """Host layers from `libhost.so`, which the project's Makefile builds from host.cpp."""

    def __init__(self, library: str, table: np.ndarray) -> None:
        if not os.path.exists(library):
            raise DriverError(f"{library}: not built; run `make host` in the project")
        try:
            self._library = ctypes.CDLL(os.path.abspath(library))
        except OSError as error:
            raise DriverError(f"{library}: cannot be loaded ({error}); run `make clean host` on "
                              "this machine") from None
        self._table = table
        if self._library.cosim_load_host(table.ctypes.data_as(ctypes.c_void_p),
                                         ctypes.c_uint64(table.size)):
            raise DriverError("host.bin: not understood by libhost.so; build it again")

    def run_host(self, layer: int, memory: np.ndarray) -> None:
        """Run a layer on the shared memory (uint8)."""
        if self._library.cosim_run_host(ctypes.c_uint32(layer),
                                        memory.ctypes.data_as(ctypes.c_void_p),
                                        ctypes.c_uint64(memory.size)):
            raise DriverError(f"host layer {layer}: has no program in host.bin")


class PynqHardware:
    """The board through pynq: control port, contiguous memory and the interrupt.

    A board behind pynq's remote protocol (`PYNQ_REMOTE_DEVICES`) too. `source`: a simulation
    that stands in a board's place says so in its name.
    """

    PROCESSOR = "processing_system7"  # of the Zynq-7000; `stop` writes registers that only it has
    RESET_CONTROL, UNLOCK = 0x240, (0x008, 0xDF0D)  # its SLCR
    INTERRUPT_STATUS = 0x00C  # of the overlay's control port

    def __init__(self, name: str = "overlay_0", wait: str = "sleep") -> None:
        """`wait`: "sleep" until the interrupt, or "poll" the status register (the design's choice,
        `wait` in the manifest: a poll sees the end sooner, and the processor never rests)."""
        if wait not in ("sleep", "poll"):
            raise DriverError(f"wait is {wait!r}, must be 'sleep' or 'poll'")
        self.source = "board"
        self._name, self._polls = name, wait == "poll"
        self._overlay: Any = None
        self._port: Any = None

    def download(self, bitstream: str) -> None:
        """Configure the fabric; the .hwh file lies beside the bitstream.

        `DriverError` if the file describes another family of chips than the Zynq-7000.
        """
        try:
            import pynq
        except ImportError as error:
            raise DriverError(f"pynq cannot be imported ({error}); run this on the board, with the "
                              "Python of its image") from None

        overlay = pynq.Overlay(bitstream, download=False)
        processor = overlay.ip_dict.get(overlay.parser.ps_name, {})
        kind = str(processor.get("type", self.PROCESSOR))
        if self.PROCESSOR not in kind:
            raise DriverError(f"{bitstream}: its processor is {kind}, must be {self.PROCESSOR}: "
                              "this driver knows the registers of the Zynq-7000 only")
        for number, clock in overlay.clock_dict.items():
            # pynq 4.0.0 looks for the name that UltraScale+ gives it, and divides by None. Others
            # have no such entry.
            if clock.get("enable") and clock.get("frequency", 0) is None:
                parameters = processor["parameters"]
                clock["frequency"] = float(parameters[f"PCW_ACT_FPGA{number}_PERIPHERAL_FREQMHZ"])
        overlay.download()
        self._overlay = overlay
        device = str(getattr(overlay.device, "name", ""))
        self.source = device if device.endswith(" simulation") else "board"
        self._port = getattr(overlay, self._name).mmio

    def clock_hz(self) -> int:
        """The rate that the processor makes for the fabric now, read back from its dividers."""
        import pynq

        return round(1e6 * float(pynq.Clocks.fclk0_mhz))

    def read(self, offset: int) -> int:
        """A 32-bit register."""
        return int(self._port.read(offset))

    def write(self, offset: int, value: int) -> None:
        """Write a 32-bit register."""
        self._port.write(offset, value)

    def allocate(self, size: int) -> Any:
        """Contiguous memory of `size` bytes: a uint8 array with `physical_address`."""
        import pynq

        return pynq.allocate(shape=(size,), dtype=np.uint8)

    def wait_interrupt(self, timeout_s: float) -> bool:
        """Wait for the overlay's interrupt; False if none came in time.

        Where the design polls, or pynq's interrupts cannot be waited for, the status register is
        asked instead: over the remote protocol, which has none, and under an event loop that runs
        already, as in the cell of a notebook.
        """
        if self._polls:
            return self._poll_interrupt(timeout_s)
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            running = False
        else:
            running = True
        if running or self._overlay.device.has_capability("REMOTE"):
            return self._poll_interrupt(timeout_s)
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:  # since Python 3.12 nobody makes one unasked
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        waiter = getattr(self._overlay, self._name).interrupt.wait()
        try:
            loop.run_until_complete(asyncio.wait_for(waiter, timeout_s))
        except asyncio.TimeoutError:  # noqa: UP041  (another class before Python 3.11)
            return False
        return True

    def _poll_interrupt(self, timeout_s: float) -> bool:
        """Not the done bit: reading that clears it."""
        end = time.monotonic() + timeout_s
        while not self.read(self.INTERRUPT_STATUS) & 1:
            if time.monotonic() > end:
                return False
        return True

    def stop(self) -> None:
        """Hold the fabric in reset: the only way to stop a start that does not end."""
        if self._overlay is None:
            return
        import pynq

        control = pynq.MMIO(0xF8000000, 0x1000)
        # Left unlocked, as Linux has it: the next download must end the reset and set clocks.
        control.write(*self.UNLOCK)
        control.write(self.RESET_CONTROL, 0xF)
        self._overlay = None


def lock_path() -> str:
    """Where the board's lock lies: in a folder that only its user can write.

    `/run` for root, whom pynq needs on a board; else the user's own runtime or cache folder. A
    board behind the remote protocol has a lock of its own.
    """
    remote = os.environ.get("PYNQ_REMOTE_DEVICES", "")
    name = "cosim-overlay" + (f"-{hashlib.sha256(remote.encode()).hexdigest()[:16]}" if remote
                              else "") + ".lock"
    if os.geteuid() == 0:
        return f"/run/{name}"
    folder = os.environ.get("XDG_RUNTIME_DIR") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(folder, name)


class Lock:
    """One process a board: a file lock that ends with the process.

    The file is a plain one of this user's with a process's number in it, or it is refused: a link
    in its place is not followed, and nothing else is overwritten.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path or lock_path()
        self._file: Any = None

    def take(self) -> None:
        """Take it or raise `DriverError` with the process that has it."""
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise DriverError(f"the board is used by another process (number {owner}); "
                              "wait for it or stop it") from None
        before = os.read(handle, 32)
        if before.strip() and not before.strip().isdigit():
            os.close(handle)
            raise DriverError(f"{self._path}: holds something else than a process's number; "
                              "move it away")
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._file = handle

    def _open(self) -> int:
        # Without waiting: the other end of a pipe may never come.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise DriverError(f"{self._path}: the board's lock cannot be opened "
                              f"({error.strerror}); a link is not followed") from None
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            os.close(handle)
            raise DriverError(f"{self._path}: the board's lock must be a plain file of this user "
                              "without a second name; move it away")
        return handle

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
