"""Builds the program of a graph on a design: the only caller of mapping and lowering.

It simulates nothing and does not ask whether the board has the sites, the ports and the clock
(`arch_models.resources.check` does).
"""

from __future__ import annotations

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.memory import tensor_misfit
from arch_models.overlay import Infeasible, Overlay
from cosim.engines import SLICES
from cosim.engines.base import Mapped
from cosim.lowering.limits import lower_within
from cosim.lowering.lower import Lowered
from cosim.lowering.placement import KnownPlaces
from cosim.mapping.choose import Known, choose_mapping
from cosim.mapping.kept import with_kept
from cosim.mapping.tiles import LayerMapping, Mapping
from workloads.graph import Graph, Phase

#: Tile searches remembered at most; each holds about a kilobyte.
MOST_TILES = 100_000


def phases(graph: Graph) -> tuple[Phase, ...]:
    """What one frame runs: the sampler's steps if there are any, and the frame.

    What runs once a group of frames is left out, unless the graph has nothing else.
    """
    found = tuple(phase for phase in (Phase.STEP, Phase.FRAME) if graph.phase(phase))
    return found or (Phase.GROUP,)


class Builder:
    """Builds designs of one graph on one board; what equal layers share is worked out once.

    The programs are those of `build`, whatever was built before.
    """

    def __init__(self, graph: Graph, board: Board) -> None:
        self.graph, self.board = graph, board
        self.tiles: Known = {}
        self.places: KnownPlaces = {}

    def mapping(self, overlay: Overlay) -> Mapping | Infeasible:
        """The best tile of every layer of a frame, and what stays in the tensor memory; or the
        layer that does not work out."""
        if refused := tensor_misfit(overlay):
            return refused
        if len(self.tiles) > MOST_TILES:
            self.tiles.clear()
        found = choose_mapping(self.graph, overlay, self.board, phases(self.graph), SLICES,
                               self.tiles)
        if isinstance(found, Infeasible) or not overlay.tensor_memory_kib:
            return found

        def by_weight_master(item: LayerMapping) -> tuple[str, ...]:
            assert item.engine is not None
            return SLICES[item.engine].activations(Mapped(
                self.graph, overlay, found.layouts, self.graph.layer(item.name), item))

        return with_kept(self.graph, overlay, found, by_weight_master)

    def lower(self, overlay: Overlay, mapping: Mapping, frames: int = 1,
              steps: int | None = None) -> Lowered | Infeasible:
        """The program of a mapping; see `build`."""
        return lower_within(self.graph, overlay, self.board, mapping, frames,
                            self.graph.steps if steps is None else steps, self.places)


def build(graph: Graph, overlay: Overlay, board: Board, frames: int = 1,
          steps: int | None = None) -> Lowered | Infeasible:
    """The program of `frames` frames in a row, or why the design or the board cannot run it.

    `steps`: sampler steps of a frame, the graph's own number if None. The board gives the DDR's
    peak rate to the choice of tiles, the ports to the masters, the host's times, and the clock
    unless the design fixes it. Raises `FieldError` for a clock that the board cannot make,
    `PlacementError` for a graph whose tensors cannot be placed.
    """
    overlay = clocked(overlay, board)
    builder = Builder(graph, board)
    mapping = builder.mapping(overlay)
    if isinstance(mapping, Infeasible):
        return mapping
    return builder.lower(overlay, mapping, frames, steps)
