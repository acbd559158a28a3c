"""Runs an integer graph in torch with real numbers that are rounded as the integers would be.

It is no second meaning of a graph: `workloads.reference` is. It serves fine-tuning and the search
for lossy tensors, and agrees with the reference up to ties and the digits of multipliers.

Every tensor is a batch [pictures, channels, rows, columns]. A rounding passes gradients through
unchanged inside its range (straight-through estimator, Bengio et al. 2013); the steps of weights
are learned (LSQ, Esser et al. 2020), those of activations are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workloads.graph import Layer, Operator
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.layer_constants import Recipe, least_steps, weight_scales

Values = dict[str, Tensor]
#: Roles of weights that are fitted; the others stay as they are.
FITTED = ("weights", "bias", "scale", "offset")


class RoundedNetwork:
    """A float network whose tensors and convolution weights are rounded to given steps.

    `scales`: the step of each tensor. `weight_bits`: of a convolution's weights where not 8.
    `exact`, `exact_weights`: layers whose output, or whose weights, are not rounded for now.
    """

    def __init__(
        self, network: FloatNetwork, scales: Mapping[str, float],
        weight_bits: Mapping[str, int] | None = None, device: str = "cpu",
    ) -> None:
        self.network, self.scales = network, dict(scales)
        self.weight_bits = dict(weight_bits or {})
        self.exact: frozenset[str] = frozenset()
        self.exact_weights: frozenset[str] = frozenset()
        layers = {layer.name: layer for layer in network.graph.layers}
        self.values: Values = {}
        self.steps: Values = {}
        for name, array in network.weights.items():
            layer, _, role = name.rpartition(".")
            if layer not in layers:
                continue
            self.values[name] = torch.tensor(
                np.asarray(array, np.float32), device=device, requires_grad=role in FITTED)
            if role == "weights":
                found = self._first_steps(layers[layer], array.astype(np.float64))
                self.steps[layer] = torch.tensor(
                    np.log(found), dtype=torch.float32, device=device, requires_grad=True)

    def _first_steps(self, layer: Layer, weights: np.ndarray) -> np.ndarray:
        least = least_steps(self.network.weights[f"{layer.name}.bias"].astype(np.float64),
                            self.scales[layer.inputs[0]], self.scales[layer.output])
        return weight_scales(weights, least, Recipe(power_of_two=False),
                             self.limit_of(layer.name))

    def limit_of(self, layer: str) -> int:
        """The greatest weight of a convolution in steps: 127 with 8 bits, 7 with 4."""
        return 2 ** (self.weight_bits.get(layer, 8) - 1) - 1

    def rounded_weights(self) -> Values:
        """The weights of every convolution in whole steps; to be made once an update."""
        found = {}
        for layer, log_step in self.steps.items():
            weights = self.values[f"{layer}.weights"]
            if layer not in self.exact_weights:
                limit = self.limit_of(layer)
                step = log_step.exp().reshape(-1, 1, 1, 1)
                scaled = weights / step
                whole = scaled + (scaled.round() - scaled).detach()
                weights = whole.clamp(-limit, limit) * step
            found[layer] = weights
        return found

    def rounded(self, name: str, value: Tensor) -> Tensor:
        """A tensor in whole steps, saturated."""
        half = 1 << (self.network.graph.tensors[name].bits - 1)
        return torch.fake_quantize_per_tensor_affine(value, self.scales[name], 0, -half, half - 1)

    def run(self, layers: Iterable[Layer], values: Values, weights: Values) -> None:
        """Add the output of each layer to `values`; `weights` from `rounded_weights`."""
        for layer in layers:
            inputs = [values[name] for name in layer.inputs]
            found = _RULES[layer.operator](self, layer, inputs, weights)
            if layer.relu:
                found = found.clamp(min=0)
            if layer.operator not in _MOVES and layer.name not in self.exact:
                found = self.rounded(layer.output, found)
            values[layer.output] = found

    def fitted(self) -> FloatNetwork:
        """The network with the weights as they are now, their steps and all scales fixed."""
        weights = dict(self.network.weights)
        weights |= {name: value.detach().cpu().numpy() for name, value in self.values.items()}
        steps = {}
        for layer, log_step in self.steps.items():
            steps[layer] = log_step.detach().exp().cpu().numpy().astype(np.float64)
            most = self.limit_of(layer) * steps[layer].reshape(-1, 1, 1, 1)
            own = f"{layer}.weights"
            weights[own] = np.clip(weights[own], -most, most)
        return replace(self.network, weights=weights, weight_steps=steps,
                       fixed_scales=dict(self.scales))


_MOVES = frozenset({Operator.UPSAMPLE, Operator.CONCAT, Operator.TRANSPOSE})
Rule = Callable[[RoundedNetwork, Layer, list[Tensor], Values], Tensor]


def _convolution(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                 weights: Values) -> Tensor:
    bias, kernel = net.values[f"{layer.name}.bias"], weights[layer.name]
    if inputs[0].shape[2:] == (1, 1):
        return functional.linear(inputs[0].flatten(1), kernel.flatten(1), bias)[:, :, None, None]
    return functional.conv2d(inputs[0], kernel, bias, layer.window.stride, layer.window.padding)


def _matmul(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    left, right = inputs
    total = right.flatten(2) @ left.flatten(2)
    factor = net.values.get(f"{layer.name}.factor")
    total = total if factor is None else total * factor
    return total.reshape(*total.shape[:2], *left.shape[2:])


def _group_norm(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                weights: Values) -> Tensor:
    scale, offset = (net.values[f"{layer.name}.{role}"] for role in ("scale", "offset"))
    epsilon = float(net.network.weights[f"{layer.name}.epsilon"][0])
    plain = functional.group_norm(inputs[0], layer.window.groups, scale, offset, epsilon)
    return plain if len(inputs) == 1 else plain * inputs[1] + inputs[2]


def _transpose(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    return inputs[0].flatten(2).transpose(1, 2)[:, :, None]


_RULES: Mapping[Operator, Rule] = {
    Operator.CONVOLUTION: _convolution,
    Operator.MATMUL: _matmul,
    Operator.GROUP_NORM: _group_norm,
    Operator.TRANSPOSE: _transpose,
    Operator.LOOKUP: lambda net, layer, inputs, weights: functional.silu(inputs[0]),
    Operator.SOFTMAX: lambda net, layer, inputs, weights: inputs[0].softmax(1),
    Operator.ADD: lambda net, layer, inputs, weights: inputs[0] + inputs[1],
    Operator.CONCAT: lambda net, layer, inputs, weights: torch.cat(inputs, 1),
    Operator.UPSAMPLE: lambda net, layer, inputs, weights: functional.interpolate(
        inputs[0], scale_factor=2, mode="nearest"),
    Operator.REQUANTIZE: lambda net, layer, inputs, weights: inputs[0],
    Operator.SAMPLER: lambda net, layer, inputs, weights: (
        inputs[2][:, :1] * inputs[0] + inputs[2][:, 1:] * inputs[1]),
}
