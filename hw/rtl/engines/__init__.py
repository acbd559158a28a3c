"""The engines in RTL, one file each; `BUILT` says how each one is made for an overlay.

It connects none to buffers or masters: `hw.rtl.overlay_top` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from arch_models.overlay import Engine, Overlay
from hw.rtl.engines.convolution import ConvolutionEngine
from hw.rtl.engines.depthwise import DepthwiseEngine
from hw.rtl.engines.elementwise import ElementwiseEngine, LookupEngine
from hw.rtl.engines.norm import NormEngine
from hw.rtl.engines.softmax import SoftmaxEngine
from hw.rtl.engines.spatial import GridSampleEngine, PoolEngine, UpsampleEngine

BEAT_BYTES = 8
#: Makes an engine for an overlay, with so many channels that end and that begin at it.
Build = Callable[[Overlay, int, int], Any]


def _stream(kind: Callable[..., Any], **fields: str) -> Build:
    """Of an engine that knows words by their beats; `fields`: arguments that are the overlay's."""
    def build(overlay: Overlay, waits: int, signals: int) -> Any:
        return kind(overlay.tn // BEAT_BYTES, overlay.tm // BEAT_BYTES, waits, signals,
                    **{name: getattr(overlay, field) for name, field in fields.items()})
    return build


BUILT: Mapping[Engine, Build] = {
    Engine.CONVOLUTION: ConvolutionEngine,
    Engine.ELEMENTWISE: _stream(ElementwiseEngine, entries="vector_entries",
                                 zero_points="zero_points"),
    Engine.LOOKUP: _stream(LookupEngine),
    Engine.POOL: _stream(PoolEngine),
    Engine.UPSAMPLE: _stream(UpsampleEngine),
    Engine.SOFTMAX: _stream(SoftmaxEngine),
    Engine.GRID_SAMPLE: _stream(GridSampleEngine),
    Engine.NORM: _stream(NormEngine, most_channels="vector_entries"),
    Engine.DEPTHWISE: _stream(DepthwiseEngine, entries="vector_entries", taps="depthwise_taps",
                              pads="zero_points"),
}
