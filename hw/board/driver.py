"""The driver of an emitted overlay: loads it, runs frames, times them, reads counters.

It predicts nothing and needs only numpy; `hardware` is its way to the board. Written for Python
3.8, that of the board's image. Whatever goes wrong, the fabric is left stopped.
"""

from __future__ import annotations

import atexit
import math
import signal
import threading
import time
from typing import Any

import numpy as np

try:
    from hw.board.emitted import (
        DriverError,
        Project,
        check_descriptors,
        integers_of,
        logical_tensor,
        real_values,
        stored_bytes,
        vectors,
    )
    from hw.board.hardware import Lock
    from hw.board.measurement import Measurement, StepTime, UnitCounters
    from hw.board.picture import pixels
except ImportError:  # beside this file in an emitted project
    from emitted import (  # type: ignore[no-redef, import-not-found]
        DriverError,
        Project,
        check_descriptors,
        integers_of,
        logical_tensor,
        real_values,
        stored_bytes,
        vectors,
    )
    from hardware import Lock  # type: ignore[no-redef, import-not-found]
    from measurement import Measurement, StepTime, UnitCounters  # type: ignore[no-redef, import-not-found]
    from picture import pixels  # type: ignore[no-redef, import-not-found]

START, DONE = 1, 2
MOST_REPEATS = 1_000_000
MOST_TIMEOUT_S = 86_400.0
#: A made rate this near to the project's is that rate: pynq rounds it to 1 kHz.
CLOCK_TOLERANCE = 1e-4
#: What a meter's file may hold: the plug, the fabric's core supply, the processor with its pads,
#: the DRAM's supply.
RAILS = ("total_w", "vccint_w", "ps_w", "ddr_w")


class Stopped(SystemExit):
    """SIGTERM or SIGHUP came while the board was in use; the exit code is 128 plus its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Signals:
    """Lets SIGTERM and SIGHUP end a run as Ctrl-C does, so that the fabric is stopped on the way.

    Only the main thread can take signals; elsewhere this does nothing. A signal that was ignored
    (`nohup`) stays so.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def take(self) -> None:
        """Answer both signals from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._end)

    def hold(self) -> None:
        """Ignore both, so that stopping the fabric is not itself cut short."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def give_back(self) -> None:
        """Whoever had them before has them again."""
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if before is None else before)

    @staticmethod
    def _end(number: int, frame: object) -> None:
        raise Stopped(number)


class Driver:
    """One overlay on one board, from download to stop.

    Use as a context manager; in a notebook, whose cells share one driver, `open` and `close` it.
    `timeout_s`: seconds for one start, above 0 and at most a day.
    """

    def __init__(self, project: Project, hardware: Any, host: Any, bitstream: str,
                 lock_path: str | None = None, timeout_s: float = 10.0) -> None:
        if not (math.isfinite(timeout_s) and 0 < timeout_s <= MOST_TIMEOUT_S):
            raise DriverError(f"timeout_s is {timeout_s}, must be above 0 and at most "
                              f"{MOST_TIMEOUT_S:g}")
        self.project = project
        self.manifest = project.manifest
        self._hardware, self._host = hardware, host
        self._bitstream_path, self._timeout_s = bitstream, timeout_s
        self._lock = Lock(lock_path)
        self._signals = Signals()
        self._buffers: list[Any] = []
        self._initialize = 1
        self.clock_hz: int = self.manifest["clock_hz"]
        self._renewed: dict[int, Any] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self._registers: dict[str, int] = self.manifest["registers"]

    def __enter__(self) -> Driver:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take the board, configure its fabric and fill its memory; stopped if that fails."""
        self._lock.take()
        atexit.register(self.close)
        try:
            self._signals.take()
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the fabric, free its memory, give the board back; a second call does nothing."""
        self._signals.hold()
        try:
            self._hardware.stop()
        finally:
            buffers, self._buffers = self._buffers, []
            try:
                for buffer in buffers:
                    buffer.freebuffer()
            finally:
                self._lock.release()
                self._signals.give_back()
                atexit.unregister(self.close)

    def _open(self) -> None:
        self._bitstream = self.project.check_bitstream(self._bitstream_path)
        start = self.manifest["descriptors_offset"]
        descriptors = self.project.data("data/descriptors.bin")[start:]
        check_descriptors(descriptors, self.manifest)
        weights = self.project.data("data/weights.bin")
        self._hardware.download(self._bitstream_path)
        if hasattr(self._hardware, "clock_hz"):  # a simulation has no generator to ask
            self.clock_hz = self._hardware.clock_hz()
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

    def decode(self, values: Any) -> dict[str, np.ndarray]:
        """One frame of your own: real outputs (float32) by name, each (channels, rows, columns).

        `values`: arrays by tensor, or the one array of a network with one input: real numbers in
        the units of the manifest's scale, uint8 pixels (rows, columns, channels) for a picture,
        or integers. Inputs that are not given keep what they hold.
        """
        inputs = self._names("input")
        if not isinstance(values, dict):
            if len(inputs) != 1:
                raise DriverError(f"the network has {len(inputs)} inputs; give a dict of "
                                  f"{', '.join(inputs)}")
            values = {inputs[0]: values}
        strange = sorted(set(values) - set(inputs))
        if strange:
            raise DriverError(f"tensor {strange[0]!r}: is no input; the inputs are "
                              f"{', '.join(inputs)}")
        for name, value in values.items():
            self.put(name, integers_of(value, self._tensor(name), name))
        self.run()
        return {name: real_values(self.get(name), self._tensor(name))
                for name in self._names("output")}

    def picture(self, name: str | None = None) -> np.ndarray:
        """uint8 (rows, columns, 3) of an output that is a picture, by default the only one."""
        shown = [item for item in self._names("output")
                 if self._tensor(item).get("meaning", "").startswith("picture")]
        if name is None and len(shown) != 1:
            raise DriverError(f"{len(shown)} outputs are pictures; name one of "
                              f"{', '.join(self._names('output'))}")
        name = name or shown[0]
        try:
            return pixels(self.get(name), self._tensor(name)["scale"])
        except ValueError as error:
            raise DriverError(f"tensor {name!r}: {error}") from None

    def _names(self, role: str) -> list[str]:
        return [name for name, entry in sorted(self.manifest["tensors"].items())
                if entry["role"] == role]

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
            self.close()
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
        """Run one frame to warm up and `repeats` timed ones; compare with `expected` outputs.

        `DriverError` if the fabric has another clock than the project, whose prediction it is not.
        """
        asked = self.manifest["clock_hz"]
        if abs(self.clock_hz - asked) > CLOCK_TOLERANCE * asked:
            raise DriverError(f"the fabric has {self.clock_hz} Hz, the project is of {asked} Hz; "
                              "set fclk0 to that, or emit a design with the fabric's")
        if not 1 <= repeats <= MOST_REPEATS:
            raise DriverError(f"repeats is {repeats}, must be from 1 to {MOST_REPEATS}")
        self.run()
        taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        begin = time.time()
        rows = [self.run() for _ in range(repeats)]
        rails, samples = read_power(power_csv, begin, time.time()) if power_csv else ({}, 0)
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
            self.clock_hz, taken, repeats, True,
            tuple(sum(row) for row in rows), tuple(steps), self.counters(), compared, differing,
            rails.get("total_w"), samples, rails)

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


def read_power(path: str, begin: float, end: float) -> tuple[dict[str, float], int]:
    """Mean watts by column and number of samples of a meter's CSV in a window.

    The first line may name the columns: `unix_seconds`, then `total_w` (a meter at the plug) or
    rails of `RAILS`. Without it the lines are `unix_seconds,total_w`.
    """
    names: list[str] = ["total_w"]
    sums: dict[str, float] = {}
    count = 0
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DriverError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split(",")]
        if number == 1 and parts[0] == "unix_seconds":
            names = ["total_w" if part == "watts" else part for part in parts[1:]]
            wrong = [name for name in names if name not in RAILS]
            if wrong or not names or len(set(names)) < len(names):
                raise DriverError(f"{path}: columns {names}, must be of {', '.join(RAILS)}")
            continue
        try:
            when, *watts = (float(part) for part in parts)
        except ValueError:
            raise DriverError(f"{path} line {number}: must be unix_seconds,watts") from None
        if len(watts) != len(names):
            raise DriverError(f"{path} line {number}: must be unix_seconds,watts")
        if not all(math.isfinite(value) for value in (when, *watts)):
            raise DriverError(f"{path} line {number}: {line.strip()!r} must be finite numbers")
        if begin <= when <= end:
            for index, value in enumerate(watts):
                sums[names[index]] = sums.get(names[index], 0.0) + value
            count += 1
    if not count:
        raise DriverError(f"{path}: no sample between the start and the end of the measurement")
    return {name: total / count for name, total in sums.items()}, count
