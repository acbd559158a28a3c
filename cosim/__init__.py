"""The face of the program: `import cosim` offers what a user needs, and imports it when asked.

It defines nothing itself. The names and where they live:

    graph = cosim.load_network("agc-w64")          # a shipped network, or an .onnx file
    board = cosim.load_board("pynq-z1")            # a shipped board, or a .toml file
    design = cosim.load_design("default")          # a shipped design, or a .toml file
    item = cosim.evaluate(graph, design, board, memory="ddr3")
    print(item.latency_ms, item.energy_uj_per_pixel)

`evaluate` and `simulate` answer `cosim.Infeasible`, a value, where a design does not work out.
Every time and energy is predicted. `help(cosim.evaluate)` says what each takes, in which units,
and what it refuses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arch_models.board import load_board
    from arch_models.overlay import Infeasible
    from studies.evaluation.emission import emit_for as emit
    from studies.evaluation.evaluate import evaluate
    from studies.evaluation.evaluate import simulate_design as simulate
    from studies.evaluation.inputs import design as load_design
    from studies.evaluation.inputs import workload as load_network
    from studies.evaluation.values import Evaluation
    from studies.search.exploration import Means, explore
    from studies.search.outcomes import Objective, Settings

_PLACES = {
    "load_network": ("studies.evaluation.inputs", "workload"),
    "load_board": ("arch_models.board", "load_board"),
    "load_design": ("studies.evaluation.inputs", "design"),
    "simulate": ("studies.evaluation.evaluate", "simulate_design"),
    "evaluate": ("studies.evaluation.evaluate", "evaluate"),
    "explore": ("studies.search.exploration", "explore"),
    "emit": ("studies.evaluation.emission", "emit_for"),
    "Evaluation": ("studies.evaluation.values", "Evaluation"),
    "Infeasible": ("arch_models.overlay", "Infeasible"),
    "Means": ("studies.search.exploration", "Means"),
    "Objective": ("studies.search.outcomes", "Objective"),
    "Settings": ("studies.search.outcomes", "Settings"),
}

__all__ = [
    "Evaluation", "Infeasible", "Means", "Objective", "Settings", "emit", "evaluate", "explore",
    "load_board", "load_design", "load_network", "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cosim' has no attribute {name!r}; it offers "
                             f"{', '.join(__all__)}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
