"""The bytes of tensors and constants as they lie in memory.

It gives no addresses (see `placement`); the bytes of constants are their engine's.
"""

from __future__ import annotations

import numpy as np

from arch_models.overlay import Overlay
from cosim.engines import SLICES
from cosim.lowering.jobs import mapped_layer
from cosim.lowering.placement import Blob, Placement, TensorPlace
from workloads.graph import Graph


def pack_blob(graph: Graph, blob: Blob, placement: Placement, overlay: Overlay) -> bytes:
    """The bytes of one blob."""
    item = placement.mapping.layer(blob.layer)
    assert item is not None and item.engine is not None
    return SLICES[item.engine].pack(mapped_layer(graph, overlay, placement.mapping, item),
                                    blob.role)


def _lanes(place: TensorPlace) -> tuple[int, np.dtype]:
    kind = np.dtype(f"<i{place.bits // 8}")
    return place.position_bytes // kind.itemsize, kind


def pack_tensor(array: np.ndarray, spec: TensorPlace) -> bytes:
    """A logical tensor (channels, rows, columns) in the blocked layout; the rest is zero."""
    lanes, kind = _lanes(spec)
    planes = np.zeros((spec.planes * lanes, spec.rows, spec.columns), kind)
    planes[list(spec.places)] = array
    blocked = planes.reshape(spec.planes, lanes, spec.rows, spec.columns).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(blocked).tobytes()


def unpack_tensor(data: bytes | np.ndarray, spec: TensorPlace) -> np.ndarray:
    """The logical tensor from bytes that begin at its address."""
    lanes, kind = _lanes(spec)
    raw = np.frombuffer(data, np.uint8, spec.size_bytes).view(kind)
    planes = raw.reshape(spec.planes, spec.rows, spec.columns, lanes).transpose(0, 3, 1, 2)
    return planes.reshape(-1, spec.rows, spec.columns)[list(spec.places)]


def memory_image(graph: Graph, placement: Placement, overlay: Overlay) -> np.ndarray:
    """uint8 (size_bytes): all constants in place, tensors zero."""
    image = np.zeros(placement.size_bytes, np.uint8)
    for blob in placement.blobs.values():
        data = np.frombuffer(pack_blob(graph, blob, placement, overlay), np.uint8)
        image[blob.address : blob.address + blob.size_bytes] = data
    return image
