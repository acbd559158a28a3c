"""The Unicorn decoder with every tensor rounded as its integer graph rounds it, in torch.

It fits nothing: `finetune` does. Steps are calibrated on the float trajectories, all
sampler steps together, since one program with one set of constants serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from workloads.graph import Graph, Phase
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.layer_constants import Recipe
from workloads.quantization.post_training import choose_scales, quantize
from workloads.training.rounded_network import RoundedNetwork, Values
from workloads.training.unicorn.quantize import float_networks, joined
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import NEXT_LATENT, OUTPUT
from workloads.unicorn.run import fixed_inputs, step_inputs
from workloads.unicorn.torch import UnicornDecoder

#: Values kept of one tensor of one sampler step; the greatest is kept besides.
SAMPLES = 1 << 12


class RoundedUnicorn:
    """Step and picture decoder as rounded networks, and the index table that is fitted too."""

    def __init__(
        self, config: UnicornConfig, networks: tuple[FloatNetwork, FloatNetwork], table: np.ndarray,
        scales: Mapping[str, float], weight_bits: Mapping[str, int] | None = None,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.step, self.picture = (
            RoundedNetwork(network, {name: scales[name] for name in network.graph.tensors},
                           weight_bits, device)
            for network in networks)
        self.table = torch.tensor(table, dtype=torch.float32, device=device, requires_grad=True)
        graph = self.step.network.graph
        self.layers = {phase: graph.phase(phase) for phase in (Phase.GROUP, Phase.STEP)}
        fixed = fixed_inputs(config)
        rows = [step_inputs(config, number) for number in range(config.steps)]
        self.inputs = {name: self._constant(name, array) for name, array in fixed.items()}
        self.rows = [{name: self._constant(name, array) for name, array in row.items()}
                     for row in rows]

    def _constant(self, name: str, array: np.ndarray) -> Tensor:
        return torch.tensor(array[None], dtype=torch.float32, device=self.table.device)

    def _given(self, name: str, value: Tensor, count: int) -> Tensor:
        """An input of the graph, rounded, for that many pictures."""
        value = value if name in self.step.exact else self.step.rounded(name, value)
        return value.expand(count, -1, -1, -1)

    def parts(self) -> tuple[RoundedNetwork, RoundedNetwork]:
        """The two rounded networks."""
        return self.step, self.picture

    def rounded_weights(self) -> Values:
        """The weights of all convolutions in whole steps; to be made once an update."""
        return self.step.rounded_weights() | self.picture.rounded_weights()

    def sample(self, index: Tensor, weights: Values, seen: list[Values] | None = None) -> Tensor:
        """The latents [N, 4, r, c] of picture numbers [N]; `seen` collects every tensor."""
        given = {"index_vector": self.table[index][:, :, None, None], **self.inputs}
        made = {name: self._given(name, value, len(index)) for name, value in given.items()}
        self.step.run(self.layers[Phase.GROUP], made, weights)
        for row in self.rows:
            values = made | {name: self._given(name, value, len(index))
                             for name, value in row.items()}
            self.step.run(self.layers[Phase.STEP], values, weights)
            if seen is not None:
                seen.append(values)
            made = made | {"latent": values[NEXT_LATENT]}
        return made["latent"]

    def __call__(
        self, index: Tensor, weights: Values | None = None, seen: list[Values] | None = None
    ) -> Tensor:
        """Pictures [N, 3, rows, columns] in 0 .. 127 / 128 of picture numbers [N]."""
        weights = self.rounded_weights() if weights is None else weights
        values = {NEXT_LATENT: self.sample(index, weights, seen)}
        self.picture.run(self.picture.network.graph.layers, values, weights)
        if seen is not None:
            seen.append(values)
        return values[OUTPUT]

    def graph(self, name: str) -> Graph:
        """The integer graph of the weights as they are now."""
        step, picture = (part.fitted() for part in self.parts())
        recipe = Recipe(power_of_two=False, balance=0.0, correct_bias=False)
        table = self.table.detach().cpu().numpy()
        row = {**fixed_inputs(self.config), **step_inputs(self.config, 0),
               "index_vector": table[0].reshape(-1, 1, 1)}
        latent = np.zeros(step.graph.tensors[NEXT_LATENT].shape, np.float32)
        return joined(self.config, name, quantize(step, [row], recipe),
                      quantize(picture, [{NEXT_LATENT: latent}], recipe), table)


def exact(rounded: RoundedUnicorn) -> RoundedUnicorn:
    """Switch all rounding off: the float decoder, run through the graph's structure."""
    for part in rounded.parts():
        part.exact = frozenset((*part.network.graph.inputs,
                                *(layer.name for layer in part.network.graph.layers)))
        part.exact_weights = part.exact
    return rounded


@torch.no_grad()
def observed(rounded: RoundedUnicorn, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Samples of every tensor over all sampler steps of the given pictures."""
    random = np.random.default_rng(0)
    samples: dict[str, list[np.ndarray]] = {}
    for number in indices:
        seen: list[Values] = []
        rounded(torch.tensor([number], device=rounded.table.device), seen=seen)
        for values in seen:
            for name, value in values.items():
                flat = value.flatten().cpu().numpy()
                kept = flat if flat.size <= SAMPLES else random.choice(flat, SAMPLES)
                samples.setdefault(name, []).extend((kept, flat[[np.argmax(np.abs(flat))]]))
    found = {name: np.concatenate(parts) for name, parts in samples.items()}
    found["index_vector"] = rounded.table.detach().cpu().numpy().reshape(-1)
    return found


def calibrated(
    config: UnicornConfig, decoder: UnicornDecoder, indices: Sequence[int],
    recipe: Recipe | None = None, weight_bits: Mapping[str, int] | None = None,
    device: str = "cpu",
) -> RoundedUnicorn:
    """The trained decoder, rounded to steps that fit its trajectories on some pictures."""
    networks = float_networks(config, decoder, "unicorn")
    table = decoder.unet.index_table.weight.detach().cpu().numpy()
    structure = {name: spec.scale for network in networks
                 for name, spec in network.graph.tensors.items()}
    float_decoder = exact(RoundedUnicorn(config, networks, table, structure, device=device))
    samples = observed(float_decoder, indices)
    recipe = replace(recipe or Recipe(), power_of_two=False)
    scales = {name: scale for network in networks
              for name, scale in choose_scales(network, samples, recipe).items()}
    return RoundedUnicorn(config, networks, table, scales, weight_bits, device)
