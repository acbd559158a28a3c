"""Compiles the C++ of an overlay with g++ and loads it: programs in, memory changed.

It compares nothing with a reference (see `simulate`) and times no hardware.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arch_models.overlay import Overlay
from cosim.program.table import Program, Segment
from hw.csim.top import top_source
from hw.interface.configuration import configuration_header, configure
from hw.interface.descriptors import encode
from hw.interface.header import descriptor_header
from hw.interface.plan import HostStep, steps
from hw.interface.ports import memory_ports

SOURCES = Path(__file__).parents[1] / "hls"
FLAGS = ("-std=c++14", "-O2", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LIBRARY_UNITS = ("library.cpp", "scheduler.cpp", "check.cpp", "host.cpp", "host_library.cpp")
_STATUS = {1: "bad command", 2: "deadlock", 3: "host layer missing"}


class SimulationError(RuntimeError):
    """The C++ does not compile, or a run stopped: bad command, deadlock, host layer missing."""


@dataclass(frozen=True)
class RunReport:
    """Operations that ran by unit, and the useful multiply-accumulates among them."""

    operations: tuple[int, ...]
    macs: int


def compile_sources(folder: Path, sources: tuple[str, ...], output: Path,
                    flags: tuple[str, ...] = FLAGS, compiler: str = "g++") -> None:
    """Compile `sources` of a folder into `output`; `SimulationError` with the compiler's words."""
    if shutil.which(compiler) is None:
        raise SimulationError(f"compiler {compiler!r} is not installed; the C simulation needs it")
    command = [compiler, *flags, f"-I{folder}", *(str(folder / name) for name in sources),
               "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimulationError(f"{' '.join(command)} failed:\n{done.stderr}")


class Fabric:
    """One overlay compiled as a shared library and loaded: its buffers and tokens keep state.

    Two objects of the same overlay share nothing. Use as a context manager, or `close` it.
    """

    def __init__(self, program: Program, overlay: Overlay, host_table: bytes = b"",
                 flags: tuple[str, ...] = FLAGS) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        write_headers(program, overlay, folder)
        for path in sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.cpp")]):
            shutil.copy(path, folder / path.name)
        # A name of its own: the loader keeps one library for each name.
        library = folder / f"overlay_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.so"
        compile_sources(folder, LIBRARY_UNITS, library, (*flags, "-shared", "-fPIC"))
        self._library = ctypes.CDLL(str(library))
        self._units = len(program.units)
        if host_table:
            self.load_host(host_table)
        self.reset()

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the compiled files."""
        self._folder.cleanup()

    def load_host(self, table: bytes) -> None:
        """Take the table of another program's host layers (`hw.interface.host_table`)."""
        # The library keeps the address, so the bytes live as long as this object.
        self._host_table = np.frombuffer(table, np.uint8).copy()
        if self._library.cosim_load_host(_address(self._host_table),
                                         ctypes.c_uint64(len(table))):
            raise SimulationError("host table: not understood by the C++ host")

    def reset(self) -> None:
        """Tokens as after a reset of the hardware."""
        self._library.cosim_reset()

    def run_host(self, layer: int, memory: np.ndarray) -> None:
        """Run one host layer on the memory image (uint8)."""
        if self._library.cosim_run_host(ctypes.c_uint32(layer), _address(memory),
                                        ctypes.c_uint64(memory.size)):
            raise SimulationError(f"the host has no program for layer {layer}")

    def run(self, descriptors: bytes | np.ndarray, segments: tuple[Segment, ...],
            memory: np.ndarray, order: int = 0, fabric_only: bool = False,
            repeat_first: int = 0) -> RunReport:
        """Run segments of a descriptor table on a memory image (uint8, changed in place).

        `order`: 0 lets units take turns, another value seeds a random legal order.
        `fabric_only`: drop host operations and waits on the host, as the hardware does between
        two starts. Raises `SimulationError` with the operation and the rule or the channels.
        """
        table = np.frombuffer(descriptors, np.uint8) if isinstance(descriptors, bytes) \
            else descriptors
        ranges = np.array([(part.first, part.last, part.repeat, repeat_first)
                           for part in segments], np.uint32).reshape(-1, 4)
        operations = np.zeros(self._units, np.uint64)
        macs = np.zeros(1, np.uint64)
        message = ctypes.create_string_buffer(512)
        status = self._library.cosim_run(
            _address(table), ctypes.c_uint64(table.size // 64), _address(memory),
            ctypes.c_uint64(memory.size), _address(ranges), ctypes.c_uint64(len(ranges)),
            ctypes.c_uint64(order), ctypes.c_int(fabric_only), _address(operations),
            _address(macs), message)
        if status:
            raise SimulationError(f"{_STATUS.get(status, status)}: {message.value.decode()}")
        return RunReport(tuple(int(count) for count in operations), int(macs[0]))


def run_top(program: Program, overlay: Overlay, memory: np.ndarray, host_table: bytes = b"",
            flags: tuple[str, ...] = FLAGS) -> None:
    """Run a program through the synthesized top, its processes as threads, as a driver would.

    Checks the wiring and the order of the emitted `overlay.cpp`, not its speed. The memory image
    (uint8) is changed in place.
    """
    configuration = configure(program, overlay)
    ports = memory_ports(program, configuration)
    descriptors = np.frombuffer(encode(program), np.uint8).copy()
    with Fabric(program, overlay, host_table, flags) as fabric, \
            tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_headers(program, overlay, folder)
        for path in SOURCES.glob("*.hpp"):
            shutil.copy(path, folder / path.name)
        (folder / "overlay.cpp").write_text(top_source(program, configuration), encoding="utf-8")
        library = folder / f"top_{hashlib.sha256(name.encode()).hexdigest()[:16]}.so"
        compile_sources(folder, ("overlay.cpp",), library, (*flags, "-shared", "-fPIC", "-pthread"))
        top = ctypes.CDLL(str(library))
        initialize = 1
        for step in steps(program, configuration):
            if isinstance(step, HostStep):
                fabric.run_host(step.layer, memory)
                continue
            scalars = (step.first, step.count, step.repeats, step.repeat_first, initialize)
            top.overlay(_address(descriptors), *(_address(memory) for _ in ports),
                        *(ctypes.c_uint32(value) for value in scalars))
            initialize = 0


def write_headers(program: Program, overlay: Overlay, folder: Path) -> None:
    """Write the two generated headers, `config.hpp` and `descriptor.hpp`."""
    text = configuration_header(program, configure(program, overlay))
    (folder / "config.hpp").write_text(text, encoding="utf-8")
    (folder / "descriptor.hpp").write_text(descriptor_header(), encoding="utf-8")


def run_program(program: Program, overlay: Overlay, memory: np.ndarray, host_table: bytes = b"",
                order: int = 0, flags: tuple[str, ...] = FLAGS) -> RunReport:
    """Compile, run a whole program once on a memory image (changed in place), and clean up."""
    with Fabric(program, overlay, host_table, flags) as fabric:
        return fabric.run(encode(program), program.segments, memory, order)


def _address(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)
