"""Runs an integer graph in torch with real numbers that are rounded as the integers would be.

It is no second meaning of a graph: `workloads.reference` is. It serves fine-tuning and the search
for lossy tensors, and agrees with the reference up to ties and the digits of multipliers.

Every tensor is a batch [pictures, channels, rows, columns]; grids are in pixels and keypoints in
-1 .. 1, as in `float_network`. A rounding passes gradients through
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

from workloads.agc.torch import AgcFrame, GridSample, HeatMaps, own_places
from workloads.graph import Layer, Operator
from workloads.quantization.float_network import FloatNetwork, grid_of_displacements
from workloads.quantization.layer_constants import Recipe, least_steps, weight_scales

Values = dict[str, Tensor]
#: Roles of weights that are fitted; the others stay as they are.
FITTED = ("weights", "bias", "scale", "offset")
#: Weight steps (as logarithms) learn this many times as fast as weights.
STEP_RATE = 0.5


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
        self.filters = {layer.name: self._filter(layer, device)
                        for layer in network.graph.layers if layer.operator is Operator.DOWNSAMPLE}

    def _filter(self, layer: Layer, device: str) -> Tensor:
        """The weights [1, 1, rows, columns] of a downsampling, which no training moves."""
        weights, shift = (self.network.graph.constant(layer, role) for role in ("weights", "shift"))
        found = weights * 2.0 ** -int(shift[0])
        return torch.tensor(found[None, None], dtype=torch.float32, device=device)

    def _first_steps(self, layer: Layer, weights: np.ndarray) -> np.ndarray:
        least = least_steps(self.network.weights[f"{layer.name}.bias"].astype(np.float64),
                            self.scales[layer.inputs[0]], self.scales[layer.output])
        return weight_scales(weights, least, Recipe(power_of_two=False),
                             self.limit_of(layer.name))

    def limit_of(self, layer: str) -> int:
        """The greatest weight of a convolution in steps: 127 with 8 bits, 7 with 4."""
        return 2 ** (self.weight_bits.get(layer, 8) - 1) - 1

    def fitted_values(self) -> list[Tensor]:
        """The weights that a training moves."""
        return [value for value in self.values.values() if value.requires_grad]

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


def _downsample(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                weights: Values) -> Tensor:
    channels = inputs[0].shape[1]
    kernel = net.filters[layer.name].expand(channels, -1, -1, -1)
    return functional.conv2d(inputs[0], kernel, stride=layer.window.stride,
                             padding=layer.window.padding, groups=channels)


def _affine(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    scale, offset = (net.values[f"{layer.name}.{role}"][:, None, None]
                     for role in ("scale", "offset"))
    return inputs[0] * scale + offset


def _lookup(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    return _FUNCTIONS[str(net.network.functions[layer.name])](inputs[0])


def _points(value: Tensor) -> Tensor:
    """[N, 2, K, 1], as a graph holds x and y of keypoints, as the modules' [N, K, 2]."""
    return value[..., 0].transpose(1, 2)


def _identity(out: Tensor, rows: int, columns: int) -> Tensor:
    """[2, rows, columns]: column and row of every pixel, where `out` is."""
    return own_places(rows, columns).permute(2, 0, 1).to(out)


def _displacements(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                   weights: Values) -> Tensor:
    grid = grid_of_displacements(net.network.graph, layer)
    moved = AgcFrame.displacements(_points(inputs[0]), _points(inputs[1]),
                                   own_places(grid.rows, grid.columns))
    # The background stays where it is.
    return functional.pad(moved.transpose(1, 2)[..., None], (0, 0, 1, 0))


def _heat_maps(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    out = net.network.graph.tensors[layer.output]
    maps = HeatMaps(out.rows, out.columns).to(inputs[0].device)
    return maps(_points(inputs[0]), _points(inputs[1]))


def _sparse_flow(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                 weights: Values) -> Tensor:
    out = net.network.graph.tensors[layer.output]
    shift = _points(inputs[0])[..., None, None]
    return (_identity(shift, out.rows, out.columns) + shift).flatten(1, 2)


def _flow_sum(net: RoundedNetwork, layer: Layer, inputs: list[Tensor], weights: Values) -> Tensor:
    masks, shift = inputs
    moved = torch.einsum("nkrc,npk->nprc", masks, shift[..., 0])
    return _identity(moved, *moved.shape[2:]) + moved


def _grid_sample(net: RoundedNetwork, layer: Layer, inputs: list[Tensor],
                 weights: Values) -> Tensor:
    image, grids = inputs
    count = grids.shape[1] // 2
    places = grids.unflatten(1, (count, 2)).permute(0, 1, 3, 4, 2).flatten(0, 1)
    copies = image[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
    return GridSample()(copies, places).unflatten(0, (-1, count)).flatten(1, 2)


#: Functions of one variable that a lookup may stand for, by their names in a float network.
_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu, "sigmoid": torch.sigmoid}
_RULES: Mapping[Operator, Rule] = {
    Operator.CONVOLUTION: _convolution,
    Operator.MATMUL: _matmul,
    Operator.GROUP_NORM: _group_norm,
    Operator.TRANSPOSE: _transpose,
    Operator.LOOKUP: _lookup,
    Operator.SOFTMAX: lambda net, layer, inputs, weights: inputs[0].softmax(1),
    Operator.DOWNSAMPLE: _downsample,
    Operator.AVERAGE_POOL: lambda net, layer, inputs, weights: functional.avg_pool2d(
        inputs[0], layer.window.rows, layer.window.stride, layer.window.padding),
    Operator.AFFINE: _affine,
    Operator.DISPLACEMENTS: _displacements,
    Operator.HEAT_MAPS: _heat_maps,
    Operator.SPARSE_FLOW: _sparse_flow,
    Operator.FLOW_SUM: _flow_sum,
    Operator.GRID_SAMPLE: _grid_sample,
    Operator.MULTIPLY: lambda net, layer, inputs, weights: inputs[0] * inputs[1],
    Operator.ADD: lambda net, layer, inputs, weights: inputs[0] + inputs[1],
    Operator.CONCAT: lambda net, layer, inputs, weights: torch.cat(inputs, 1),
    Operator.UPSAMPLE: lambda net, layer, inputs, weights: functional.interpolate(
        inputs[0], scale_factor=2, mode="nearest"),
    Operator.REQUANTIZE: lambda net, layer, inputs, weights: inputs[0],
    Operator.SAMPLER: lambda net, layer, inputs, weights: (
        inputs[2][:, :1] * inputs[0] + inputs[2][:, 1:] * inputs[1]),
}
