"""An emitted project as the board reads it: manifest, checked files, tensors as they are stored.

It touches no hardware and needs only numpy. Written in the syntax of Python 3.8, like the driver.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

try:
    from hw.board.picture import integers
except ImportError:  # beside this file in an emitted project
    from picture import integers  # type: ignore[no-redef, import-not-found]

DESCRIPTOR_BYTES = 64


class DriverError(RuntimeError):
    """The hardware cannot be used as asked; the message says why in one line."""


def sha256_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_table(path: str) -> dict[str, Any]:
    """The JSON object in a file; `DriverError` if it is anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise DriverError(f"{path}: cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise DriverError(f"{path}: must hold a JSON object")
    return found


class Project:
    """An emitted project on disk: the manifest and the data files it names.

    Refuses a missing or truncated file, and one whose hash the manifest does not have.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        path = os.path.join(folder, "manifest.json")
        if not os.path.exists(path):
            raise DriverError(f"{folder}: has no manifest.json; is it an emitted project?")
        self.manifest: dict[str, Any] = read_table(path)
        self.manifest_sha256 = sha256_of(path)

    def data(self, name: str) -> np.ndarray:
        """The bytes of a data file (uint8), checked against the manifest."""
        entry = self.manifest["files"].get(name)
        path = os.path.join(self.folder, name)
        if entry is None or not os.path.exists(path):
            raise DriverError(f"{name}: not in the project {self.folder}")
        size = os.path.getsize(path)
        if size != entry["bytes"]:
            raise DriverError(f"{name}: {size} bytes, the manifest says {entry['bytes']}; "
                              "the file is truncated or not this project's")
        if sha256_of(path) != entry["sha256"]:
            raise DriverError(f"{name}: its SHA-256 is not the one in the manifest; emit again")
        return np.fromfile(path, np.uint8)

    def prediction(self) -> dict[str, Any]:
        """What the frame should take, as the desk said when it wrote the project."""
        self.data("data/prediction.json")  # refuses a changed file
        return read_table(os.path.join(self.folder, "data", "prediction.json"))

    def check_bitstream(self, path: str) -> str:
        """The bitstream's SHA-256; it must be the one that was sealed for this manifest."""
        if not os.path.exists(path):
            raise DriverError(f"{path}: no such bitstream; build it as the README says")
        seal = os.path.join(self.folder, "bitstream.json")
        if not os.path.exists(seal):
            raise DriverError(f"{self.folder}: has no bitstream.json; run seal.py after the build")
        sealed = read_table(seal)
        if not {"manifest_sha256", "bitstream_sha256"} <= set(sealed):
            raise DriverError(f"{seal}: is not what seal.py writes; run it again")
        if sealed["manifest_sha256"] != self.manifest_sha256:
            raise DriverError("bitstream.json: sealed for another manifest; build and seal again")
        found = sha256_of(path)
        if found != sealed["bitstream_sha256"]:
            raise DriverError(f"{path}: its SHA-256 {found[:12]}... does not match the manifest's "
                              f"bitstream {sealed['bitstream_sha256'][:12]}...")
        return found


def _kind(entry: dict[str, Any]) -> str:
    return "<i2" if entry["bits"] == 16 else "i1"


def _shape(entry: dict[str, Any]) -> tuple[int, int, int]:
    return entry["channels"], entry["rows"], entry["columns"]


def vectors(project: Project, role: str) -> dict[str, np.ndarray]:
    """The shipped tensors of a role, "input" or "output", by name."""
    found = {}
    for name, entry in sorted(project.manifest["tensors"].items()):
        if entry["role"] == role:
            raw = project.data(f"data/{role}_{name}.bin")
            found[name] = raw.view(_kind(entry)).reshape(_shape(entry))
    return found


def stored_bytes(tensor: np.ndarray, entry: dict[str, Any], name: str) -> np.ndarray:
    """A tensor as it lies in memory: planes of beats; values that no channel has are zero."""
    if not isinstance(tensor, np.ndarray) or tensor.dtype != np.dtype(_kind(entry)):
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise DriverError(f"tensor {name!r}: its type is {kind}, must be int{entry['bits']}: a "
                          "value that does not fit would wrap")
    if tensor.shape != _shape(entry):
        raise DriverError(f"tensor {name!r}: shape {tensor.shape}, must be {_shape(entry)}")
    lanes = 4 if entry["bits"] == 16 else 8
    planes = np.zeros((entry["planes"] * lanes, entry["rows"], entry["columns"]), _kind(entry))
    planes[entry["places"]] = tensor
    shaped = planes.reshape(entry["planes"], lanes, entry["rows"], entry["columns"])
    return np.ascontiguousarray(shaped.transpose(0, 2, 3, 1)).reshape(-1).view(np.uint8)


def integers_of(value: Any, entry: dict[str, Any], name: str) -> np.ndarray:
    """A user's own array as integers of a tensor.

    `value`: the integers themselves; real numbers, in the units that the manifest's scale gives;
    or for a picture uint8 pixels (rows, columns, channels). `DriverError` for anything else, and
    for numbers that the tensor cannot hold.
    """
    kind, scale = np.dtype(_kind(entry)), float(entry["scale"])
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        if not entry.get("meaning", "").startswith("picture"):
            raise DriverError(f"tensor {name!r}: is no picture, so its values must be real numbers "
                              f"or {kind}")
        value = integers(value, scale)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        lowest, highest = np.iinfo(kind).min, np.iinfo(kind).max
        steps = np.rint(value / scale)
        # Half a step more than fits is rounding; more, or no number at all, is a mistake.
        if not (np.all(steps >= lowest - 1) and np.all(steps <= highest + 1)):
            raise DriverError(f"tensor {name!r}: values must be from {lowest * scale:g} to "
                              f"{highest * scale:g}")
        value = np.clip(steps, lowest, highest).astype(kind)
    return np.asarray(value)


def real_values(tensor: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """A tensor's integers as real numbers (float32)."""
    return tensor.astype(np.float32) * np.float32(entry["scale"])


def logical_tensor(raw: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """The inverse of `stored_bytes`."""
    lanes = 4 if entry["bits"] == 16 else 8
    shaped = raw.view(_kind(entry)).reshape(entry["planes"], entry["rows"], entry["columns"],
                                            lanes)
    planes = shaped.transpose(0, 3, 1, 2).reshape(-1, entry["rows"], entry["columns"])
    return planes[entry["places"]]


def check_descriptors(descriptors: np.ndarray, manifest: dict[str, Any]) -> None:
    """Every transfer must stay inside the memory that the manifest asks for, or on chip.

    Repeats move addresses; the last repeat of each step counts. Raises `DriverError`.
    """
    if descriptors.size % DESCRIPTOR_BYTES or descriptors.size // DESCRIPTOR_BYTES \
            != manifest["operations"]:
        raise DriverError(f"descriptors.bin: {descriptors.size} bytes, must be "
                          f"{manifest['operations']} times {DESCRIPTOR_BYTES}")
    words = descriptors.reshape(-1, DESCRIPTOR_BYTES)
    raw = np.ascontiguousarray(words).view("<u4").astype(np.int64)

    def field(name: str) -> np.ndarray:
        entry = manifest["descriptor_fields"][name]
        value = raw[:, entry["offset"] // 32] >> (entry["offset"] % 32)
        value &= (1 << entry["width"]) - 1
        if entry["signed"]:
            value -= (value >> (entry["width"] - 1)) << entry["width"]
        return value

    repeats = np.zeros(len(raw), np.int64)
    for step in manifest["steps"]:
        if step["kind"] == "fabric":
            part = slice(step["first"], step["first"] + step["count"])
            repeats[part] = np.maximum(repeats[part], step["repeat_first"] + step["repeats"] - 1)
    transfer = np.isin(field("opcode"), manifest["transfer_opcodes"])
    low = field("address") + np.minimum(0, repeats * field("advance"))
    high = field("address") + np.maximum(0, repeats * field("advance"))
    for count, stride in (("rows", "row_stride"), ("planes", "plane_stride")):
        span = (field(count) - 1) * field(stride)
        low += np.minimum(0, span)
        high += np.maximum(0, span)
    high += field("row_bytes")
    inside = (low >= 0) & (high <= manifest["memory_bytes"])
    window = manifest.get("window")
    if window is not None:  # of a memory on chip, modulo its size
        inside |= (low >= window["first"]) & (high <= 1 << 32)
    bad = transfer & ~inside
    if bad.any():
        index = int(np.argmax(bad))
        raise DriverError(f"descriptor {index}: bytes {int(low[index])} to {int(high[index])} lie "
                          f"outside its buffer of {manifest['memory_bytes']} bytes")
