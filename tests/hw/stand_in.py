"""A board made of the C simulation: registers, memory and interrupt as the driver sees them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from cosim.program import Segment
from hw.driver import START
from hw.fabric import Fabric
from hw.registers import register_map


class Buffer(np.ndarray):
    """A uint8 array with what pynq's buffers have besides."""

    physical_address = 0

    def flush(self) -> None:
        """Caches are not modelled."""

    def invalidate(self) -> None:
        """Caches are not modelled."""

    def freebuffer(self) -> None:
        """Freed with the object."""


class StandIn:
    """One overlay behind its register map. `late`: never raise the interrupt."""

    source = "c simulation"

    def __init__(self, fabric: Fabric, ports: tuple[str, ...], late: bool = False) -> None:
        self._fabric = fabric
        self._names = {offset: name
                       for name, offset in register_map(("descriptors", *ports)).items()}
        self._ports = ports
        self._late = late
        self._buffers: dict[int, Buffer] = {}
        self.values = dict.fromkeys(self._names.values(), 0)
        self.extra: dict[int, int] = {}
        self.downloaded = ""
        self.stopped = False
        self.starts = 0

    def download(self, bitstream: str) -> None:
        self.downloaded, self.stopped = bitstream, False

    def read(self, offset: int) -> int:
        return self.extra[offset] if offset in self.extra else self.values[self._names[offset]]

    def write(self, offset: int, value: int) -> None:
        assert not self.stopped and self.downloaded
        self.values[self._names[offset]] = value
        if self._names[offset] == "control" and value & START and not self._late:
            self._start()

    def allocate(self, size: int) -> Buffer:
        buffer = np.zeros(size, np.uint8).view(Buffer)
        buffer.physical_address = 0x10000000 * (len(self._buffers) + 1)
        self._buffers[buffer.physical_address] = buffer
        return buffer

    def _start(self) -> None:
        values = self.values
        if values["initialize"]:
            self._fabric.reset()
        bases = {values[f"base_{port}"] for port in self._ports}
        assert len(bases) == 1, "every master is given the same memory"
        memory = self._buffers[bases.pop()]
        part = Segment(values["first"], values["first"] + values["count"], values["repeats"])
        self._fabric.run(self._buffers[values["base_descriptors"]], (part,), memory,
                         fabric_only=True, repeat_first=values["repeat_first"])
        self.starts += 1
        values["control"] = 2 | 4
        values["interrupt_status"] = 1

    def wait_interrupt(self, timeout_s: float) -> bool:
        armed = self.values["global_interrupt"] and self.values["interrupt_enable"]
        return bool(armed and self.values["interrupt_status"])

    def stop(self) -> None:
        self.stopped = True


def seal(project: Path, bitstream: Path) -> None:
    """What seal.py does after a build."""
    hashes = {"manifest_sha256": (project / "manifest.json"), "bitstream_sha256": bitstream}
    text = json.dumps({name: hashlib.sha256(path.read_bytes()).hexdigest()
                       for name, path in hashes.items()})
    (project / "bitstream.json").write_text(text, encoding="utf-8")
