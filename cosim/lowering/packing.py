"""The bytes of tensors and constants as they lie in memory.

It gives no addresses (see `placement`); the order of weight blocks is the order in which the loads
consume them.
"""

from __future__ import annotations

import numpy as np

from arch_models.overlay import Engine, Overlay
from cosim.lowering.placement import Blob, Placement, PlacementError, TensorPlace
from cosim.mapping.tiles import ConvolutionTile, LayerMapping, Mapping
from cosim.mapping.words import convolution_words, group_channels, group_words
from cosim.program.table import NORM_CONSTANTS
from workloads.graph import Graph, Layer


def _grouped_weights(graph: Graph, layer: Layer, overlay: Overlay,
                     in_words: int, out_words: int) -> np.ndarray:
    """(out words, tm, in words, tn, rows, columns): each output word over its own input words."""
    tm, tn = overlay.tm, overlay.tn
    weights = graph.constant(layer, "weights")
    channels, group_in, rows, columns = weights.shape
    group_out, _ = group_channels(layer, graph)
    kind = np.dtype(f"i{overlay.weight_bits // 8}")
    padded = np.zeros((out_words, tm, in_words * tn, rows, columns), kind)
    for channel in range(channels):
        first, _ = group_words(channel // tm, tm, tn, channels, group_out, group_in)
        low = channel // group_out * group_in - first * tn
        padded[channel // tm, channel % tm, low : low + group_in] = weights[channel]
    return padded.reshape(out_words, tm, in_words, tn, rows, columns)


def pack_weights(graph: Graph, item: LayerMapping, mapping: Mapping, overlay: Overlay) -> bytes:
    """The weight blob of a convolution: blocks [out tile][in tile], in the order of the loads.

    A block is [out_word][in_word][kernel_row][kernel_column] words; byte m * tn + n of a word
    multiplies input channel n into output channel m. Padded channels have zeros.
    """
    assert isinstance(item.tile, ConvolutionTile)
    layer = graph.layer(item.name)
    tm, tn = overlay.tm, overlay.tn
    in_words, out_words, _ = convolution_words(layer, graph, overlay, mapping, item)
    if layer.window.groups > 1:
        shaped = _grouped_weights(graph, layer, overlay, in_words, out_words)
    else:
        weights = graph.constant(layer, "weights")
        out_channels, _, rows, columns = weights.shape
        kind = np.dtype(f"i{overlay.weight_bits // 8}")
        padded = np.zeros((out_words * tm, in_words * tn, rows, columns), kind)
        padded[:out_channels, mapping.layouts.places(item.inputs[0])] = weights
        shaped = padded.reshape(out_words, tm, in_words, tn, rows, columns)
    words = shaped.transpose(0, 2, 4, 5, 1, 3)
    blocks = []
    for out_word in range(0, out_words, item.tile.out_words):
        for in_word in range(0, in_words, item.tile.in_words):
            blocks.append(words[out_word : out_word + item.tile.out_words,
                                in_word : in_word + item.tile.in_words].tobytes())
    return b"".join(blocks)


def pack_entries(offset: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> bytes:
    """8-byte entries: int32 offset, int16 multiplier, uint8 shift, uint8 zero.

    `PlacementError` for a multiplier that does not fit 16 bits.
    """
    if multiplier.size and (multiplier.max() > 32767 or multiplier.min() < -32768):
        raise PlacementError(f"multiplier is {multiplier.max()}, must fit signed 16 bits")
    entries = np.zeros(len(offset), [("offset", "<i4"), ("multiplier", "<i2"), ("shift", "u1"),
                                     ("zero", "u1")])
    entries["offset"], entries["multiplier"], entries["shift"] = offset, multiplier, shift
    return entries.tobytes()


def pack_parameters(graph: Graph, item: LayerMapping, mapping: Mapping,
                    overlay: Overlay) -> bytes:
    """The parameter blob of a convolution or an affine layer: one entry a channel, padded.

    A matmul and a change of scale have one multiplier for all channels and no offset.
    """
    layer = graph.layer(item.name)
    if item.engine is Engine.CONVOLUTION:
        count = convolution_words(layer, graph, overlay, mapping, item)[1] * overlay.tm
        places = np.arange(graph.tensors[layer.output].channels)
        first = "bias"
    else:
        count = mapping.layouts.planes(item.inputs[0]) * overlay.channel_block
        places = mapping.layouts.places(item.inputs[0])
        first = "offset"
    columns = []
    for role in (first, "multiplier", "shift"):
        padded = np.zeros(count, np.int64)
        padded[places] = graph.constant(layer, role) if role in layer.constants else 0
        columns.append(padded)
    return pack_entries(*columns)


def pack_norm(graph: Graph, item: LayerMapping, mapping: Mapping) -> bytes:
    """Entries of 8 bytes: epsilon (int64), film (2 x int32), then scale and offset (int32 each)
    of every channel. The norm takes them from NORM_PARAMETERS."""
    layer = graph.layer(item.name)
    entries = np.zeros((NORM_CONSTANTS + 8 * mapping.layouts.planes(item.inputs[0]), 2), "<i4")
    entries[0] = graph.constant(layer, "epsilon").astype("<i8").view("<i4")
    if len(item.inputs) == 3:
        entries[1] = graph.constant(layer, "film")
    places = NORM_CONSTANTS + mapping.layouts.places(item.inputs[0])
    for column, role in enumerate(("scale", "offset")):
        entries[places, column] = graph.constant(layer, role)
    return entries.tobytes()


def pack_table(graph: Graph, item: LayerMapping) -> bytes:
    """The table of a lookup (256 x int8, entry v + 128) or a softmax (256 x uint16)."""
    table = graph.constant(graph.layer(item.name), "table")
    return table.astype("<u2" if table.dtype.itemsize == 2 else "i1").tobytes()


def pack_blob(graph: Graph, blob: Blob, placement: Placement, overlay: Overlay) -> bytes:
    """The bytes of one blob."""
    item = placement.mapping.layer(blob.layer)
    assert item is not None
    if blob.role == "weights":
        return pack_weights(graph, item, placement.mapping, overlay)
    if blob.role == "parameters":
        return pack_parameters(graph, item, placement.mapping, overlay)
    if blob.role == "norm":
        return pack_norm(graph, item, placement.mapping)
    return pack_table(graph, item)


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
