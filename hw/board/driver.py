"""The driver of an emitted overlay: loads it, runs frames, times them, reads counters.

It predicts nothing and needs only numpy, and pynq on the board (imported when first used).
Written in the syntax of Python 3.8, that of the board's image. Whatever goes wrong, the fabric
is left stopped.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import tempfile
import time
from typing import Any

import numpy as np

try:
    from hw.board.emitted import (
        DriverError,
        Project,
        check_descriptors,
        logical_tensor,
        stored_bytes,
        vectors,
    )
    from hw.board.measurement import Measurement, StepTime, UnitCounters
except ImportError:  # beside this file in an emitted project
    from emitted import (  # type: ignore[no-redef, import-not-found]
        DriverError,
        Project,
        check_descriptors,
        logical_tensor,
        stored_bytes,
        vectors,
    )
    from measurement import Measurement, StepTime, UnitCounters  # type: ignore[no-redef, import-not-found]

START, DONE = 1, 2


class HostLibrary:
    """Host layers from `libhost.so`, which the project's Makefile builds from host.cpp."""

    def __init__(self, library: str, table: np.ndarray) -> None:
        if not os.path.exists(library):
            raise DriverError(f"{library}: not built; run `make host` in the project")
        self._library = ctypes.CDLL(os.path.abspath(library))
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

    RESET_CONTROL, UNLOCK = 0x240, (0x008, 0xDF0D)  # Zynq-7000 SLCR
    INTERRUPT_STATUS = 0x00C  # of the overlay's control port

    def __init__(self, name: str = "overlay_0") -> None:
        self.source = "board"
        self._name = name
        self._overlay: Any = None
        self._port: Any = None

    def download(self, bitstream: str) -> None:
        """Configure the fabric; the .hwh file lies beside the bitstream."""
        import pynq

        overlay = pynq.Overlay(bitstream, download=False)
        for number, clock in overlay.clock_dict.items():
            # pynq 4.0.0 looks for the name that UltraScale+ gives it, and divides by None. Others
            # have no such entry.
            if clock.get("enable") and clock.get("frequency", 0) is None:
                parameters = overlay.ip_dict[overlay.parser.ps_name]["parameters"]
                clock["frequency"] = float(parameters[f"PCW_ACT_FPGA{number}_PERIPHERAL_FREQMHZ"])
        overlay.download()
        self._overlay = overlay
        device = str(getattr(overlay.device, "name", ""))
        self.source = device if device.endswith(" simulation") else "board"
        self._port = getattr(overlay, self._name).mmio

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
        """Wait for the overlay's interrupt; False if none came in time."""
        import asyncio

        if self._overlay.device.has_capability("REMOTE"):
            return self._poll_interrupt(timeout_s)
        waiter = getattr(self._overlay, self._name).interrupt.wait()
        loop = asyncio.get_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(waiter, timeout_s))
        except asyncio.TimeoutError:  # noqa: UP041  (another class before Python 3.11)
            return False
        return True

    def _poll_interrupt(self, timeout_s: float) -> bool:
        """The remote protocol has no interrupts. Not the done bit: reading that clears it."""
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


class Lock:
    """One process a board: a file lock that ends with the process."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path or os.path.join(tempfile.gettempdir(), "cosim-overlay.lock")
        self._file: Any = None

    def take(self) -> None:
        """Take it or raise `DriverError` with the process that has it."""
        file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115  (held until release)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise DriverError(f"the board is used by another process (number {owner}); "
                              "wait for it or stop it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Driver:
    """One overlay on one board, from download to stop. Use as a context manager."""

    def __init__(self, project: Project, hardware: Any, host: Any, bitstream: str,
                 lock_path: str | None = None, timeout_s: float = 10.0) -> None:
        self.project = project
        self.manifest = project.manifest
        self._hardware, self._host = hardware, host
        self._bitstream_path, self._timeout_s = bitstream, timeout_s
        self._lock = Lock(lock_path)
        self._buffers: list[Any] = []
        self._initialize = 1
        self._renewed: dict[int, Any] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self._registers: dict[str, int] = self.manifest["registers"]

    def __enter__(self) -> Driver:
        self._lock.take()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> None:
        self._bitstream = self.project.check_bitstream(self._bitstream_path)
        start = self.manifest["descriptors_offset"]
        descriptors = self.project.data("data/descriptors.bin")[start:]
        check_descriptors(descriptors, self.manifest)
        weights = self.project.data("data/weights.bin")
        self._hardware.download(self._bitstream_path)
        self._memory = self._allocate(self.manifest["memory_bytes"])
        self._commands = self._allocate(descriptors.size)
        self._commands[:] = descriptors
        self._memory[:] = 0
        for block in self.manifest["weights"]:
            start, size, at = block["offset"], block["bytes"], block["address"]
            self._memory[at : at + size] = weights[start : start + size]
        self._commands.flush()
        self._memory.flush()
        self._write("base_descriptors", self._commands.physical_address)
        for port in self.manifest["memory_ports"]:
            self._write(f"base_{port}", self._memory.physical_address)
        self._write("global_interrupt", 1)
        self._write("interrupt_enable", 1)

    def _allocate(self, size: int) -> Any:
        buffer = self._hardware.allocate(size)
        self._buffers.append(buffer)
        return buffer

    def _close(self) -> None:
        try:
            self._hardware.stop()
        finally:
            for buffer in self._buffers:
                buffer.freebuffer()
            self._buffers = []
            self._lock.release()

    def _write(self, name: str, value: int) -> None:
        self._hardware.write(self._registers[name], value)

    def put(self, name: str, tensor: np.ndarray) -> None:
        """Write an input tensor (channels, rows, columns)."""
        entry = self._tensor(name)
        data = stored_bytes(tensor, entry, name)
        self._memory[entry["address"] : entry["address"] + entry["bytes"]] = data
        self._memory.flush()
        if entry.get("renew"):
            self._renewed[entry["address"]] = data

    def get(self, name: str) -> np.ndarray:
        """An output tensor (channels, rows, columns), int8 or int16."""
        entry = self._tensor(name)
        self._memory.invalidate()
        raw = np.array(self._memory[entry["address"] : entry["address"] + entry["bytes"]])
        return logical_tensor(raw, entry)

    def put_vectors(self) -> None:
        """Write the inputs that the project ships."""
        for name, tensor in vectors(self.project, "input").items():
            self.put(name, tensor)

    def expected_vectors(self) -> dict[str, np.ndarray]:
        """The outputs that the reference gives for the shipped inputs."""
        return vectors(self.project, "output")

    def _tensor(self, name: str) -> dict[str, Any]:
        if name not in self.manifest["tensors"]:
            raise DriverError(f"tensor {name!r}: the project has "
                              f"{', '.join(sorted(self.manifest['tensors']))}")
        entry: dict[str, Any] = self.manifest["tensors"][name]
        return entry

    def run(self) -> list[float]:
        """One frame: all steps in order; seconds of each step."""
        seconds = []
        self._counted = {}
        for address, data in self._renewed.items():
            # A frame writes over it: what its steps hand on lies where it came from.
            self._memory[address : address + len(data)] = data
            self._memory.flush()
        for step in self.manifest["steps"]:
            begin = time.perf_counter()
            if step["kind"] == "host":
                self._memory.invalidate()
                self._host.run_host(step["layer"], self._memory)
                self._memory.flush()
            else:
                self._start(step)
            seconds.append(time.perf_counter() - begin)
            if step["kind"] != "host":
                self._count()
        return seconds

    def _start(self, step: dict[str, Any]) -> None:
        for name in ("first", "count", "repeats", "repeat_first"):
            self._write(name, step[name])
        self._write("initialize", self._initialize)
        self._initialize = 0
        self._write("control", START)
        arrived = self._hardware.wait_interrupt(self._timeout_s)
        if not arrived or not self._hardware.read(self._registers["control"]) & DONE:
            self._close()
            raise DriverError(
                f"time-out: operations {step['first']} to {step['first'] + step['count']} did not "
                f"end in {self._timeout_s:g} s; the fabric is stopped")
        self._write("interrupt_status", 1)

    def counters(self) -> tuple[UnitCounters, ...]:
        """Cycles of every unit over all starts of the last frame, if the fabric counts any."""
        found = []
        for entry in self.manifest["counters"]:
            values = dict(self._counted.get(entry["unit"], {"busy": 0, "idle": 0}))
            busy, idle = values.pop("busy"), values.pop("idle")
            found.append(UnitCounters(entry["unit"], busy, idle, values))
        return tuple(found)

    def _count(self) -> None:
        """Add the counters of one start; `DriverError` if one has reached its end."""
        for entry in self.manifest["counters"]:
            values = self._counted.setdefault(entry["unit"], {})
            for cause, place in entry["registers"].items():
                value = self._hardware.read(place["offset"])
                if place["bits"] > 32:
                    value |= self._hardware.read(place["offset"] + 4) << 32
                if value >= (1 << place["bits"]) - 1:
                    raise DriverError(f"counter {cause!r} of unit {entry['unit']!r}: overflow at "
                                      f"{place['bits']} bits; start shorter stretches")
                values[cause] = values.get(cause, 0) + value

    def measure(self, repeats: int = 10, expected: dict[str, np.ndarray] | None = None,
                power_csv: str | None = None) -> Measurement:
        """Run one frame to warm up and `repeats` timed ones; compare with `expected` outputs."""
        if repeats < 1:
            raise DriverError(f"repeats is {repeats}, must be at least 1")
        self.run()
        taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        begin = time.time()
        rows = [self.run() for _ in range(repeats)]
        power, samples = read_power(power_csv, begin, time.time()) if power_csv else (None, 0)
        compared, differing = self.compare(expected or {})
        steps = []
        for index, step in enumerate(self.manifest["steps"]):
            seconds = tuple(row[index] for row in rows)
            steps.append(StepTime(step["kind"], seconds, step.get("first", 0),
                                  step.get("count", 0), step.get("repeats", 1),
                                  step.get("repeat_first", 0), step.get("layer", -1)))
        return Measurement(
            self._hardware.source, self.manifest["board"], self.manifest["design"],
            self.project.manifest_sha256, self.manifest["program_sha256"], self._bitstream,
            self.manifest["clock_hz"], taken, repeats, True,
            tuple(sum(row) for row in rows), tuple(steps), self.counters(), compared, differing,
            power, samples)

    def compare(self, expected: dict[str, np.ndarray]) -> tuple[int, int]:
        """Values compared, and how many differ, between outputs in memory and `expected`."""
        compared = differing = 0
        for name, want in expected.items():
            found = self.get(name)
            if found.shape != want.shape:
                raise DriverError(f"expected output {name!r}: shape {want.shape}, "
                                  f"must be {found.shape}")
            compared += found.size
            differing += int(np.count_nonzero(found != want))
        return compared, differing


def read_power(path: str, begin: float, end: float) -> tuple[float, int]:
    """Mean watts and number of samples of a meter's CSV (`unix_seconds,watts`) in a window."""
    found = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.strip().split(",")
            if number == 1 and parts[0] == "unix_seconds":
                continue
            try:
                when, watts = float(parts[0]), float(parts[1])
            except (ValueError, IndexError):
                raise DriverError(f"{path} line {number}: must be unix_seconds,watts") from None
            if begin <= when <= end:
                found.append(watts)
    if not found:
        raise DriverError(f"{path}: no sample between the start and the end of the measurement")
    return sum(found) / len(found), len(found)
