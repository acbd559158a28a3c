"""What a design has at the very least of latency, energy and resources, from its mapping alone.

It decides nothing: a search begins with designs whose bounds are good, and leaves out those that
something already evaluated dominates whatever a simulation would say.
"""

from __future__ import annotations

from arch_models.clock import clocked
from arch_models.overlay import Infeasible, Overlay
from arch_models.power.energy import total_joules
from arch_models.resources import check
from arch_models.units import ROUNDING
from cosim.analysis.least import least
from cosim.build import Builder
from studies.evaluation.activity import layer_weights, least_activity
from studies.evaluation.batch import Figures
from studies.evaluation.evaluate import estimated_resources, pixels
from studies.evaluation.values import MICROJOULES, MILLISECONDS


def bounds_of(builder: Builder, overlay: Overlay) -> Figures | None:
    """Lower bounds on the figures of `evaluate`, by any memory; None if it is infeasible."""
    graph, board = builder.graph, builder.board
    overlay = clocked(overlay, board)
    if check(overlay, board) is not None:
        return None
    mapping = builder.mapping(overlay)
    if isinstance(mapping, Infeasible):
        return None
    work = least(graph, overlay, board, mapping, layer_weights(graph.name))
    spent = total_joules(least_activity(work, overlay.clock_hz, overlay), overlay, board)
    return Figures(work.cycles, work.cycles / overlay.clock_hz * MILLISECONDS * (1 - ROUNDING),
                   float(spent) / pixels(graph) * MICROJOULES * (1 - ROUNDING),
                   estimated_resources(overlay, board))
