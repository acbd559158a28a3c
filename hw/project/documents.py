"""What the JSON files of an emitted project hold, as types: checked here, and shown as schemas.

It writes and reads nothing: `emit`, `prediction`, the build script and `board/seal.py` write them,
the driver on the board reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from hw.interface.registers import UnitRegisters


class FileHash(TypedDict):
    """Size and SHA-256 of one emitted file."""

    bytes: int
    sha256: str


class Field(TypedDict):
    """Where a field of a descriptor stands, in bits."""

    offset: int
    width: int
    signed: bool


class Window(TypedDict):
    """The tensor memory in the address space."""

    first: int
    bytes: int


class Step(TypedDict):
    """A start of the fabric (operations from `first` on, `count` of them, `repeats` times from
    `repeat_first`), or a layer of the host."""

    kind: str
    first: NotRequired[int]
    count: NotRequired[int]
    repeats: NotRequired[int]
    repeat_first: NotRequired[int]
    layer: NotRequired[int]


class Weights(TypedDict):
    """A part of `data/weights.bin` and where it goes in memory, in bytes."""

    offset: int
    bytes: int
    address: int


class ShippedTensor(TypedDict):
    """An input or output: where and how it lies in memory (`layouts`), `real = integer * scale`.

    `renew`: a sampler's last step leaves its result there, so it is written before each frame.
    """

    role: str
    address: int
    channels: int
    rows: int
    columns: int
    bits: int
    planes: int
    bytes: int
    places: list[int]
    scale: NotRequired[float]
    meaning: NotRequired[str]
    renew: NotRequired[bool]


class ManifestFile(TypedDict):
    """`manifest.json`. `files`: every other file by its path; `late_commands`: see
    `hw.interface.plan`; `window`: with a tensor memory alone."""

    format: int
    name: str
    board: str
    design: str
    clock_hz: int
    wait: str
    program_sha256: str
    backend: str
    operations: int
    descriptors_offset: int
    descriptor_bytes: int
    descriptor_fields: dict[str, Field]
    transfer_opcodes: list[int]
    memory_bytes: int
    memory_ports: list[str]
    window: NotRequired[Window]
    registers: dict[str, int]
    steps: list[Step]
    counters: list[UnitRegisters]
    weights: list[Weights]
    tensors: dict[str, ShippedTensor]
    layers: list[str]
    tools: Mapping[str, str]
    unchecked: list[str]
    files: dict[str, FileHash]
    inputs: NotRequired[str]
    layouts: NotRequired[Mapping[str, str]]
    late_commands: NotRequired[int]


class PredictedStep(TypedDict):
    """A step in the order of the manifest's: kind, cycles of the fabric's clock, seconds."""

    kind: str
    cycles: int
    seconds: float


class Prediction(TypedDict):
    """`data/prediction.json`."""

    what: str
    clock_hz: int
    steps: list[PredictedStep]


class BuildReport(TypedDict):
    """`build/report.json`. Slacks in ns: worst and total, of setup and of hold."""

    clock_mhz: float
    wns_ns: float
    tns_ns: float
    whs_ns: float
    ths_ns: float
    failed_nets: float


class Seal(TypedDict):
    """`bitstream.json`. `build`: left out for what no tool has built."""

    manifest_sha256: str
    bitstream_sha256: str
    build: NotRequired[BuildReport]
