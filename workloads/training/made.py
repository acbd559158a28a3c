"""What a quantization gives: an integer graph, and how it was made and measured.

It writes nothing; `workloads.library.save_graph` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workloads.graph import Graph


@dataclass(frozen=True)
class Made:
    """A graph with its provenance: weights, calibration, what was measured on what."""

    graph: Graph
    provenance: Mapping[str, object]
