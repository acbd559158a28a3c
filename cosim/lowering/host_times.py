"""What a step of the host takes: an operator in software, cache upkeep, the restart behind it.

It writes no rows.
"""

from __future__ import annotations

from arch_models.board import Board
from arch_models.engines.host import cache_ns, software_ns, start_ns
from arch_models.overlay import Overlay
from arch_models.units import cycles_from_ns
from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import LayerMapping
from workloads.graph import Graph, Layer, multiply_accumulates


def host_cycles(time_ns: float, clock_hz: int) -> int:
    """Fabric cycles of a step of the host; no operation takes none."""
    return max(1, cycles_from_ns(time_ns, clock_hz))


def host_ns(graph: Graph, overlay: Overlay, board: Board, layouts: Layouts, layer: Layer,
            item: LayerMapping, to_fabric: bool) -> float:
    """Software, cache maintenance of what is read and written, and the restart behind it."""
    out = graph.tensors[item.output]
    total = software_ns(board, str(layer.operator.value), out.elements,
                        multiply_accumulates(graph, layer),
                        layer.window.rows * layer.window.columns)
    for name in (*item.inputs, item.output):
        total += cache_ns(board, overlay.control, layouts.bytes_of(name))
    if to_fabric:
        total += start_ns(board, overlay)
    return total
