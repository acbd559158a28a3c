"""Tensors as pictures that a person can look at: pixels, and a PNG file.

It reads no pictures. Numpy and the standard library alone, as on the board.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np


def pixels(tensor: np.ndarray, scale: float) -> np.ndarray:
    """uint8 (rows, columns, 3), or (rows, columns) of one channel, of a picture tensor.

    `tensor`: integers (1 or 3 channels, rows, columns); `scale`: the real value of one step, with
    0 black and 1 full.
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, not the shape {tensor.shape}")
    found = np.clip(np.rint(tensor.astype(np.float64) * (255 * scale)), 0, 255).astype(np.uint8)
    return found[0] if len(found) == 1 else np.ascontiguousarray(found.transpose(1, 2, 0))


def integers(picture: np.ndarray, scale: float) -> np.ndarray:
    """The int8 (channels, rows, columns) of uint8 pixels, (rows, columns) or with channels last.

    255 becomes the greatest value that fits.
    """
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return np.clip(np.rint(planes / (255 * scale)), -128, 127).astype(np.int8)


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG file (ISO/IEC 15948) of uint8 (rows, columns) or (rows, columns, 3), unfiltered."""
    rows, columns = picture.shape[:2]
    lines = np.ascontiguousarray(picture).reshape(rows, -1)
    # Each line begins with the number of its filter: 0, none.
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), lines], axis=1).tobytes()
    colour = 2 if picture.ndim == 3 else 0
    head = struct.pack(">IIBBBBB", columns, rows, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)),
                                              (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data) & 0xFFFFFFFF))
