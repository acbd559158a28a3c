"""An emitted project written by hand, and a board that never answers: what the driver does then.

The project has one tensor and one start. Python 3.8 and numpy alone, as on a board, so that an
older Python can run it too, with `BOARD` in PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

BOARD = Path(__file__).parents[2] / "hw" / "board"


def write_project(folder: Path) -> Path:
    """A project of 64 bytes of memory; its bitstream. Its script finds `board/` beside it."""
    (folder / "data").mkdir(parents=True)
    files = {"data/descriptors.bin": bytes(64), "data/weights.bin": bytes(8),
             "data/host.bin": b"", "data/input_input.bin": bytes(3)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    field = {"offset": 0, "width": 8, "signed": False}
    names = ("opcode", "address", "advance", "rows", "row_stride", "planes", "plane_stride",
             "row_bytes")
    registers = ("control", "global_interrupt", "interrupt_enable", "interrupt_status",
                 "base_descriptors", "base_input", "first", "count", "repeats", "repeat_first",
                 "initialize")
    tensor = {"role": "input", "address": 0, "channels": 3, "rows": 1, "columns": 1, "bits": 8,
              "planes": 1, "bytes": 8, "places": [0, 1, 2]}
    manifest = {
        "board": "pynq-z1", "design": "tiny", "clock_hz": 10**8, "wait": "sleep",
        "program_sha256": "0" * 64,
        "descriptors_offset": 0, "operations": 1, "memory_bytes": 64, "memory_ports": ["input"],
        "descriptor_fields": dict.fromkeys(names, field), "transfer_opcodes": [9],
        "weights": [{"offset": 0, "bytes": 8, "address": 0}], "counters": [],
        "registers": {name: 4 * index for index, name in enumerate(registers)},
        "steps": [{"kind": "fabric", "first": 0, "count": 1, "repeats": 1, "repeat_first": 0}],
        "tensors": {"input": tensor},
        "files": {name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                  for name, content in files.items()}}
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    bitstream = folder / "overlay.bit"
    bitstream.write_bytes(b"bits")
    (folder / "bitstream.json").write_text(json.dumps({
        "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bitstream_sha256": hashlib.sha256(b"bits").hexdigest()}))
    return bitstream


class Buffer(np.ndarray):
    """Contiguous memory."""

    physical_address = 4096

    def flush(self) -> None:
        """No caches."""

    def invalidate(self) -> None:
        """No caches."""

    def freebuffer(self) -> None:
        """Freed with the object."""


class Board:
    """Notes what is done to it in a file; its starts never end, unless `ends`."""

    source = "nothing"

    def __init__(self, log: Path, ends: bool = False) -> None:
        self._log, self._ends = log, ends

    def note(self, text: str) -> None:
        """One line more in the log."""
        with open(self._log, "a") as file:
            file.write(text + "\n")

    def download(self, bitstream: str) -> None:
        """Configured."""
        self.note("download")

    def read(self, offset: int) -> int:
        """Done, always."""
        return 2

    def write(self, offset: int, value: int) -> None:
        """Taken and forgotten."""

    def allocate(self, size: int) -> Buffer:
        """Plain memory."""
        return np.zeros(size, np.uint8).view(Buffer)

    def wait_interrupt(self, timeout_s: float) -> bool:
        """Sleep until somebody ends this."""
        import time

        if not self._ends:
            self.note("waiting")
            time.sleep(60)
        return True

    def stop(self) -> None:
        """Held in reset."""
        self.note("stop")


def main(folder: str, output: str = "") -> None:
    """Run one frame that never ends, or with `output` measure ones that do."""
    from driver import Driver  # type: ignore[import-not-found]
    from emitted import Project  # type: ignore[import-not-found]
    from measurement import save_measurement  # type: ignore[import-not-found]

    place = Path(folder)
    board = Board(place / "log", ends=bool(output))
    with Driver(Project(folder), board, None, str(place / "overlay.bit"), str(place / "lock"),
                timeout_s=60.0) as driver:
        driver.put_vectors()
        if not output:
            driver.run()
        save_measurement(driver.measure(2), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
