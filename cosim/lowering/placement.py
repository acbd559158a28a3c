"""Where every tensor and every block of weights lies in memory, and their bytes.

It decides no tiles; the order of weight blocks is the order in which the loads consume them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arch_models.board import Board
from arch_models.overlay import Engine, Layout, Overlay
from arch_models.units import ceil_div
from cosim.lowering.row_parts import group_words
from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import ConvolutionTile, LayerMapping, Mapping
from cosim.program.table import NORM_CONSTANTS, WeightOrder
from workloads.graph import Graph, Layer, Operator

#: Tensors and blobs start at multiples of the longest 64-bit AXI3 burst.
ALIGNMENT_BYTES = 128
ENTRY_BYTES = 8

class PlacementError(ValueError):
    """A graph's tensors cannot be placed. The message names the tensor and the rule."""


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in memory: first byte, logical shape, and for each channel its place.

    8-bit tensors: place = plane * channel_block + lane. Grids (16 bits): plane * 4 + lane. Planes
    follow one another, rows x columns positions each.
    """

    address: int
    channels: int
    rows: int
    columns: int
    bits: int
    planes: int
    position_bytes: int
    places: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """From the first plane to the end of the last."""
        return self.planes * self.rows * self.columns * self.position_bytes


@dataclass(frozen=True, slots=True)
class Blob:
    """Constant bytes of one layer: what they are, where, how many."""

    layer: str
    role: str  # weights, parameters, table, norm
    address: int
    size_bytes: int


@dataclass(frozen=True)
class Placement:
    """Addresses count bytes from the start of one buffer of `size_bytes`, aligned to a DRAM row.

    `addresses`: of every tensor that is in memory (parts of a concatenation inside it).
    """

    mapping: Mapping
    addresses: dict[str, int]
    blobs: dict[tuple[str, str], Blob]
    size_bytes: int
    tensor_bytes: int

    def place(self, name: str) -> TensorPlace:
        """Where a tensor lies; `PlacementError` if fusion left it out of memory."""
        if name not in self.addresses:
            raise PlacementError(f"tensor {name!r} is not in memory: a fused layer keeps it on "
                                 "chip, or its phase is not mapped")
        layouts = self.mapping.layouts
        spec = layouts.graph.tensors[name]
        step = 8 if layouts.is_grid(name) else layouts.position_bytes
        return TensorPlace(self.addresses[name], spec.channels, spec.rows, spec.columns, spec.bits,
                           layouts.planes(name), step,
                           tuple(int(item) for item in layouts.places(name)))

    def blob(self, layer: str, role: str) -> Blob:
        """The constants of a layer in a role."""
        return self.blobs[layer, role]


#: Places of tensors that were found: what they depend on, to addresses and the end.
KnownPlaces = dict[tuple, tuple[dict[str, int], int]]


def place(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
          known: KnownPlaces | None = None) -> Placement:
    """Addresses of everything the mapped layers read or write.

    Tensors whose lifetimes do not overlap share memory; what the host writes before the first
    layer in fabric, and what comes from or goes outside, keeps its place. What a step carries to
    the next lies where the next one reads it. Raises `PlacementError` if two concatenations claim
    one tensor. `known` keeps the tensors' places for other overlays on this graph and board: tiles
    and arrays do not change them.
    """
    key = (overlay.layout, overlay.channel_block, overlay.data_bits, mapping.phases,
           *((item.engine, item.inputs, item.output) for item in mapping.layers))
    found = None if known is None else known.get(key)
    if found is None:
        step = ALIGNMENT_BYTES if overlay.layout is Layout.DENSE else board.ddr.row_bytes
        found = _allocate(_regions(graph, mapping), mapping, step, overlay.layout, board)
        if known is not None:
            known[key] = found
    addresses, tensor_bytes = found
    end = tensor_bytes
    blobs: dict[tuple[str, str], Blob] = {}
    layers = {layer.name: layer for layer in graph.layers}
    for item in mapping.layers:
        for role, size in _constants(layers, graph, overlay, mapping, item):
            blobs[item.name, role] = Blob(item.name, role, end, size)
            end = ceil_div(end + size, ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return Placement(mapping, addresses, blobs, end, tensor_bytes)


@dataclass
class _Region:
    """One stretch of memory: a tensor, or a concatenation with its parts inside."""

    root: str
    size: int
    first: int
    last: int
    members: list[tuple[str, int]]  # tensor, bytes from the start


def _regions(graph: Graph, mapping: Mapping) -> list[_Region]:
    layouts = mapping.layouts
    parent: dict[str, str] = {made: given for given, made in graph.carried
                              if made in {item.output for item in mapping.layers}}
    for whole, parts in layouts.concats.items():
        for part in parts:
            if part in parent:
                raise PlacementError(f"tensor {part!r} is a part of {parent[part]!r} and of "
                                     f"{whole!r}; a tensor lies in one place")
            parent[part] = whole
    forever = len(mapping.layers)
    uses: dict[str, list[int]] = {}
    prologue = True
    segment = None
    for index, item in enumerate(mapping.layers):
        if item.phase is not segment:
            segment, prologue = item.phase, True
        if item.engine is not None:
            prologue = False
        for name in item.inputs:
            uses.setdefault(name, []).append(index)
        uses.setdefault(item.output, []).append(index)
        if prologue or item.output in graph.outputs:
            # The host may write these for the next frame while this one still runs.
            uses[item.output] += [-1, forever]
    written = {item.output: item.phase for item in mapping.layers}
    for item in mapping.layers:
        for name in item.inputs:
            for leaf in layouts.leaves(name):
                if written.get(leaf) is not item.phase:
                    uses.setdefault(leaf, []).extend([-1, forever])
    regions: dict[str, _Region] = {}
    for name, seen in uses.items():
        root = name
        while root in parent:
            root = parent[root]
        if root not in regions:
            members: list[tuple[str, int]] = []
            size = _members(layouts, root, 0, members)
            members += [(made, 0) for made, given in parent.items()
                        if (given, made) in graph.carried and given == root]
            regions[root] = _Region(root, size, seen[0], seen[0], members)
        region = regions[root]
        region.first, region.last = min(region.first, *seen), max(region.last, *seen)
    return sorted(regions.values(), key=lambda item: (item.first, -item.size))


def _members(layouts: Layouts, name: str, offset: int, found: list[tuple[str, int]]) -> int:
    """List a tensor and its parts with their offsets; return its size in bytes."""
    found.append((name, offset))
    spec = layouts.graph.tensors[name]
    step = 8 if layouts.is_grid(name) else layouts.position_bytes
    inside = offset
    for part in layouts.concats.get(name, ()):
        inside += _members(layouts, part, inside, found)
    return layouts.planes(name) * spec.positions * step


def _allocate(regions: list[_Region], mapping: Mapping, step: int, layout: Layout,
              board: Board) -> tuple[dict[str, int], int]:
    live: list[tuple[int, int, int]] = []  # start, end, last use
    addresses: dict[str, int] = {}
    end = 0
    for index, region in enumerate(regions):
        live = sorted(item for item in live if item[2] >= region.first)
        start = 0
        if layout is Layout.BANK_SPREAD:
            # Neighbours begin in different banks, so two streams seldom close each other's rows.
            start = index % board.ddr.banks * board.ddr.row_bytes
        for low, high, _ in live:
            if start + region.size <= low:
                break
            start = max(start, ceil_div(high, step) * step)
        live.append((start, start + region.size, region.last))
        end = max(end, start + region.size)
        for name, offset in region.members:
            addresses[name] = start + offset
    return addresses, ceil_div(end, step) * step


def _constants(layers: dict[str, Layer], graph: Graph, overlay: Overlay, mapping: Mapping,
               item: LayerMapping) -> list[tuple[str, int]]:
    """Roles and sizes of the constants that the weight master loads for a layer."""
    layer = layers[item.name]
    if item.engine is Engine.CONVOLUTION:
        in_words, out_words, taps = convolution_words(layer, graph, overlay, mapping, item)
        word = overlay.tm * overlay.tn * overlay.weight_bits // 8
        entries = ("parameters", out_words * overlay.tm * ENTRY_BYTES)
        if item.order is not WeightOrder.STORED:
            return [entries]
        return [("weights", in_words * out_words * taps * word), entries]
    if item.engine is None:
        return []
    operator = layer.operator
    if operator is Operator.GROUP_NORM:
        channels = mapping.layouts.planes(item.inputs[0]) * overlay.channel_block
        return [("norm", (NORM_CONSTANTS + channels) * ENTRY_BYTES)]
    if operator in (Operator.AFFINE, Operator.REQUANTIZE):
        planes = mapping.layouts.planes(item.inputs[0])
        return [("parameters", planes * overlay.channel_block * ENTRY_BYTES)]
    if operator is Operator.LOOKUP:
        return [("table", 256)]
    if operator is Operator.SOFTMAX:
        return [("table", 512)]
    return []


def convolution_words(layer: Layer, graph: Graph, overlay: Overlay, mapping: Mapping,
                      item: LayerMapping) -> tuple[int, int, int]:
    """Input words (with groups: of one output word, at most), output words and kernel taps."""
    planes = mapping.layouts.planes(item.inputs[0])
    in_words = ceil_div(planes, overlay.tn // overlay.channel_block)
    channels = graph.tensors[layer.output].channels
    out_words = ceil_div(channels, overlay.tm)
    group_out, group_in = group_channels(layer, graph)
    if group_in:
        in_words = max(group_words(word, overlay.tm, overlay.tn, channels, group_out, group_in)[1]
                       for word in range(out_words))
    return in_words, out_words, layer.window.rows * layer.window.columns


def group_channels(layer: Layer, graph: Graph) -> tuple[int, int]:
    """Output and input channels of each group of a convolution; zeros if it has no groups."""
    groups = layer.window.groups
    if layer.operator is not Operator.CONVOLUTION or groups == 1:
        return 0, 0
    return (graph.tensors[layer.output].channels // groups,
            graph.tensors[layer.inputs[0]].channels // groups)


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


__all__ = ["Blob", "Placement", "PlacementError", "TensorPlace", "memory_image",
           "pack_blob", "pack_norm", "pack_parameters", "pack_tensor", "pack_weights", "place",
           "unpack_tensor"]
