"""Decodes a picture with the Unicorn graph: the sampler loop around the repeated step.

It knows no torch and no weights; what the host unit prepares for each step is written here, for
a caller that runs the steps one by one, and as layers of a graph that runs them all (`looped`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from workloads import arithmetic
from workloads.graph import Graph, GraphError, Layer, Operator, Phase, TensorSpec
from workloads.reference import execute
from workloads.unicorn.config import (
    UnicornConfig,
    position_code,
    signal_and_noise,
    starting_noise,
    time_code,
)
from workloads.unicorn.graph import INDEX_TABLE, INPUTS, NEXT_LATENT, OUTPUT


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


def config_of(graph: Graph) -> UnicornConfig:
    """What a Unicorn graph says about its own run: sizes of latent and position, steps.

    `GraphError` if the graph is no Unicorn decoder.
    """
    missing = [name for name in (*INPUTS, NEXT_LATENT) if name not in graph.tensors]
    if missing:
        raise GraphError(f"graph {graph.name!r}: has no tensor {missing[0]!r}, so its sampler loop "
                         "is unknown")
    latent = graph.tensors["latent"]
    return UnicornConfig(
        steps=graph.steps, latent_channels=latent.channels, latent_rows=latent.rows,
        latent_cols=latent.columns, position_octaves=graph.tensors["position"].channels // 4)


def looped(graph: Graph) -> Graph:
    """The graph with its sampler loop inside, so that a picture is one run without a caller.

    A counter (input `step`, int16, zero at the start) names the row of each step's inputs, and
    the latent is carried. `GraphError` if the graph is no Unicorn decoder.
    """
    config = config_of(graph)
    rows = [quantized(graph, step_inputs(config, step)) for step in range(graph.steps)]
    counter = (TensorSpec("step", 1, 1, 1, 16), TensorSpec("step_next", 1, 1, 1, 16))
    constants: dict[str, np.ndarray] = {
        f"step_next.{role}": np.array([value], np.int32)
        for role, value in (("multiplier", 1), ("offset", 1), ("shift", 0))}
    layers = []
    for name in rows[0]:
        constants[f"{name}.table"] = np.stack([row[name].reshape(-1) for row in rows])
        layers.append(Layer(name, Operator.ROW, ("step",), name, phase=Phase.STEP,
                            constants={"table": f"{name}.table"}))
    layers.append(Layer("step_next", Operator.AFFINE, ("step",), "step_next", phase=Phase.STEP,
                        constants={role: f"step_next.{role}"
                                   for role in ("multiplier", "offset", "shift")}))
    first = next(index for index, layer in enumerate(graph.layers) if layer.phase is Phase.STEP)
    return replace(
        graph, inputs=(*(name for name in graph.inputs if name not in rows[0]), "step"),
        tensors={**graph.tensors, **{spec.name: spec for spec in counter}},
        layers=(*graph.layers[:first], *layers, *graph.layers[first:]),
        constants=ChainMap(constants, graph.constants),  # type: ignore[arg-type]
        carried=(("latent", NEXT_LATENT), ("step", "step_next")))


def starting_values(graph: Graph, index: int) -> dict[str, np.ndarray]:
    """What a looped graph needs for one picture: its inputs, and the tensors of the group."""
    values = quantized(graph, fixed_inputs(config_of(graph)))
    values["index_vector"] = index_vector(graph, index)
    return {**execute(graph, values, [Phase.GROUP]), "step": np.zeros((1, 1, 1), np.int16)}


def picture(graph: Graph, index: int) -> np.ndarray:
    """The int8 picture (3, rows, columns), scale 2 ** -7, of one index, by a looped graph."""
    return execute(graph, starting_values(graph, index), [Phase.STEP, Phase.FRAME])[OUTPUT]


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
    """The picture of one index, by a caller that runs the steps of a graph without its loop."""
    latent = np.zeros(0, np.int16)
    for values in steps(graph, config, index):
        latent = values[NEXT_LATENT]
    return execute(graph, {NEXT_LATENT: latent}, [Phase.FRAME])[OUTPUT]
