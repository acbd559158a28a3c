"""Decodes a picture with the Unicorn graph: the sampler loop around the repeated step.

It knows no torch and no weights; what the host unit prepares for each step is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from . import arithmetic
from .graph import Graph, GraphError, Phase
from .reference import execute
from .unicorn import INDEX_TABLE, NEXT_LATENT, OUTPUT
from .unicorn_config import (
    UnicornConfig,
    position_code,
    signal_and_noise,
    starting_noise,
    time_code,
)


def coefficients(config: UnicornConfig, step: int) -> np.ndarray:
    """float64 (2, 1, 1): the next latent is c0 * latent + c1 * velocity (deterministic DDIM).

    With signal s and noise n now, and s', n' at the next time: clean = s x - n v and
    residue = n x + s v, so c0 = s' s + n' n and c1 = n' s - s' n.
    """
    times = (*config.times, 0.0)
    signal, noise = signal_and_noise(times[step])
    next_signal, next_noise = signal_and_noise(times[step + 1])
    return np.array([next_signal * signal + next_noise * noise,
                     next_noise * signal - next_signal * noise]).reshape(2, 1, 1)


def step_inputs(config: UnicornConfig, step: int) -> dict[str, np.ndarray]:
    """The real inputs that differ from step to step."""
    time = time_code(np.array([config.times[step]]))[0]
    return {"time_code": time.reshape(-1, 1, 1), "coefficients": coefficients(config, step)}


def fixed_inputs(config: UnicornConfig) -> dict[str, np.ndarray]:
    """The real inputs that every picture starts from."""
    return {"latent": starting_noise(config), "position": position_code(config)}


def quantized(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Real inputs as integers of their tensors."""
    found = {}
    for name, value in inputs.items():
        spec = graph.tensors[name]
        found[name] = arithmetic.saturate(np.rint(value / spec.scale), spec.bits)
    return found


def index_vector(graph: Graph, index: int) -> np.ndarray:
    """The int8 row of the table that stands for a picture; `GraphError` beyond the table."""
    table = graph.constants[INDEX_TABLE]
    if not 0 <= index < len(table):
        raise GraphError(f"index is {index}, must be from 0 to {len(table) - 1}")
    return table[index].reshape(-1, 1, 1)


def steps(graph: Graph, config: UnicornConfig, index: int) -> Iterator[dict[str, np.ndarray]]:
    """Every tensor of each sampler step, one step after another."""
    values = quantized(graph, fixed_inputs(config))
    values["index_vector"] = index_vector(graph, index)
    made = execute(graph, values, [Phase.GROUP])
    for step in range(config.steps):
        given = made | quantized(graph, step_inputs(config, step))
        done = execute(graph, given, [Phase.STEP])
        yield done
        made = made | {"latent": done[NEXT_LATENT]}


def decode(graph: Graph, config: UnicornConfig, index: int) -> np.ndarray:
    """The int8 picture (3, rows, columns), scale 2 ** -7, of one index."""
    latent = np.zeros(0, np.int16)
    for values in steps(graph, config, index):
        latent = values[NEXT_LATENT]
    return execute(graph, {NEXT_LATENT: latent}, [Phase.FRAME])[OUTPUT]
