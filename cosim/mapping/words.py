"""Words of channels and rows of input that a convolution reads: what mapping and lowering share.

It chooses no tile and gives no address.
"""

from __future__ import annotations

from arch_models.overlay import Overlay
from arch_models.units import ceil_div
from cosim.compiled import PLAIN
from cosim.mapping.layout import Layouts
from workloads.graph import Graph, Layer, Operator


@PLAIN
def group_words(out_word, tm, tn, out_channels, group_out, group_in):
    """First input word, and how many, that a word of output channels reads.

    `group_out`, `group_in`: channels of a group; all channels if there is one group.
    """
    first = out_word * tm
    last = min(out_channels, first + tm) - 1
    low = first // group_out * group_in // tn
    high = -(-(last // group_out + 1) * group_in // tn)
    return low, high - low


@PLAIN
def span(start, count, stride, taps, padding, upsample, limit):
    """First real row and number of real rows that output rows [start, start + count) read."""
    low = start * stride - padding
    high = (start + count - 1) * stride - padding + taps - 1
    low_real = max(0, low) >> upsample
    high_real = min((limit << upsample) - 1, high) >> upsample
    return low_real, high_real - low_real + 1


def convolution_words(layer: Layer, graph: Graph, overlay: Overlay, layouts: Layouts,
                      source: str) -> tuple[int, int, int]:
    """Input words (with groups: of one output word, at most), output words and kernel taps.

    `source`: the tensor that it reads, in front of a fused upsample.
    """
    planes = layouts.planes(source)
    in_words = ceil_div(planes, overlay.tn // overlay.channel_block)
    channels = graph.tensors[layer.output].channels
    out_words = ceil_div(channels, overlay.tm)
    if group_channels(layer, graph)[1]:
        in_words = max(words_read(layer, graph, overlay, in_words, out_words))
    return in_words, out_words, layer.window.rows * layer.window.columns


def words_read(layer: Layer, graph: Graph, overlay: Overlay, in_words: int,
               out_words: int) -> list[int]:
    """Input words that each output word reads: all, or those of its groups."""
    group_out, group_in = group_channels(layer, graph)
    if not group_in:
        return [in_words] * out_words
    channels = graph.tensors[layer.output].channels
    return [group_words(word, overlay.tm, overlay.tn, channels, group_out, group_in)[1]
            for word in range(out_words)]


def narrow(layer: Layer, graph: Graph, overlay: Overlay) -> bool:
    """Does a layer keep two weights a byte on this design?"""
    return overlay.narrow_weights and layer.name in graph.narrow_layers


def lacks_zero_points(layer: Layer, overlay: Overlay) -> bool:
    """Does a layer ask for zero points of a design that has none?"""
    return asks_for_zero_points(layer) and not overlay.zero_points


def asks_for_zero_points(layer: Layer) -> bool:
    """Is a convolution's padding not 0, or have a sum's or a product's operands zero points?"""
    if layer.operator is Operator.CONVOLUTION:
        return bool(layer.window.padding and layer.window.pad_value)
    return layer.operator in (Operator.ADD, Operator.MULTIPLY) and not layer.constants.keys(
        ).isdisjoint(("offset", "zeros"))


def weight_word_bytes(overlay: Overlay, halved: bool) -> int:
    """Bytes of the weights of one cycle; of narrow ones half."""
    return overlay.tm * overlay.tn * overlay.weight_bits // 8 // (1 + halved)


def group_channels(layer: Layer, graph: Graph) -> tuple[int, int]:
    """Output and input channels of each group of a convolution; zeros if it has no groups."""
    groups = layer.window.groups
    if layer.operator is not Operator.CONVOLUTION or groups == 1:
        return 0, 0
    return (graph.tensors[layer.output].channels // groups,
            graph.tensors[layer.inputs[0]].channels // groups)
