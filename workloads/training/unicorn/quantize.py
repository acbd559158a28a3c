"""Quantizes a trained Unicorn decoder: torch module to float networks to one integer graph.

It trains nothing. Step and picture decoder are calibrated apart, each on what it really sees.
`cosim train quantize-unicorn` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from workloads.graph import Graph, Layer, Operator, Phase
from workloads.quantization.float_network import FloatNetwork, execute_real
from workloads.quantization.post_training import Recipe, quantize
from workloads.training.made import Made
from workloads.training.metrics import rounding_losses
from workloads.training.pictures.picture_set import picture_set
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.graph import INDEX_TABLE, INPUTS, NEXT_LATENT, OUTPUT, unicorn_structure
from workloads.unicorn.run import decode, fixed_inputs, step_inputs
from workloads.unicorn.torch import UnicornDecoder, load_unicorn
from workloads.verify import verify

#: Pictures whose embeddings are looked at, at three sampler steps each.
EMBEDDINGS = 128
#: Pictures on which a quantized decoder is measured.
TEST_PICTURES = 16


def layer_weights(decoder: UnicornDecoder, layer: Layer) -> dict[str, np.ndarray]:
    """The real weights of one layer, sliced from the module that its name points to."""
    modules = dict(decoder.named_modules())
    if layer.operator is Operator.MATMUL and "score" in layer.name:
        return {"factor": np.array(decoder.config.head_channels**-0.5, np.float32)}
    if layer.operator is Operator.GROUP_NORM:
        norm = modules[layer.name]
        assert isinstance(norm, nn.GroupNorm)
        return {"scale": _array(norm.weight), "offset": _array(norm.bias),
                "epsilon": np.array([norm.eps])}
    if layer.operator is not Operator.CONVOLUTION:
        return {}
    path, _, part = layer.name.rpartition(".")
    module = modules.get(layer.name, modules.get(path))
    assert isinstance(module, nn.Conv2d | nn.Linear)
    weights, bias = _array(module.weight), _array(module.bias)
    if weights.ndim == 2:
        weights = weights[:, :, None, None]
    latent = decoder.config.latent_channels
    if layer.name == "unet.conv_in.latent":
        weights, bias = weights[:, :latent], np.zeros_like(bias)
    elif layer.name == "unet.conv_in.position":
        weights = weights[:, latent:]
    elif path.endswith(".film"):
        half = len(bias) // 2
        rows = slice(0, half) if part == "gain" else slice(half, None)
        # The module multiplies by one more than the gain.
        weights, bias = weights[rows], bias[rows] + (1 if part == "gain" else 0)
    elif path.endswith(".query_key_value"):
        kind = part.rstrip("0123456789")
        size, head = decoder.config.head_channels, int(part.removeprefix(kind))
        first = ("query", "key", "value").index(kind) * (len(bias) // 3) + head * size
        weights, bias = weights[first : first + size], bias[first : first + size]
    elif layer.name == "picture.conv_out":
        bias = bias + 0.5
    return {"weights": weights, "bias": bias}


def _array(value: torch.Tensor | None) -> np.ndarray:
    assert value is not None
    return value.detach().float().numpy().copy()


def float_networks(
    config: UnicornConfig, decoder: UnicornDecoder, name: str, share_bits: int = 8
) -> tuple[FloatNetwork, FloatNetwork]:
    """The sampler step (with what comes before it) and the picture decoder."""
    whole = unicorn_structure(config, name, share_bits)
    weights = {f"{layer.name}.{role}": array for layer in whole.layers
               for role, array in layer_weights(decoder, layer).items()}
    functions = {layer.name: "silu" for layer in whole.layers
                 if layer.operator is Operator.LOOKUP}
    fixed = {tensor: whole.tensors[tensor].scale for tensor in ("time_code", "position", OUTPUT)}
    found = []
    for inputs, outputs, phases in (
        (INPUTS, (NEXT_LATENT,), (Phase.GROUP, Phase.STEP)),
        ((NEXT_LATENT,), (OUTPUT,), (Phase.FRAME,)),
    ):
        layers = whole.phase(*phases)
        used = {*inputs, *(layer.output for layer in layers)}
        tensors = {key: spec for key, spec in whole.tensors.items() if key in used}
        graph = replace(whole, inputs=inputs, outputs=outputs, layers=layers, tensors=tensors)
        found.append(FloatNetwork(
            graph, weights, functions, {key: fixed[key] for key in fixed if key in used}))
    return found[0], found[1]


def trajectory(
    step: FloatNetwork, config: UnicornConfig, vector: np.ndarray
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """The real inputs of every sampler step of one index vector, and the last latent."""
    values: dict[str, np.ndarray] = {
        **fixed_inputs(config), "index_vector": vector.reshape(-1, 1, 1)}
    rows = []
    for number in range(config.steps):
        rows.append(values | step_inputs(config, number))
        latent = execute_real(step, rows[-1])[NEXT_LATENT]
        values = values | {"latent": latent}
    return rows, values["latent"]


def quantized_unicorn(
    config: UnicornConfig, decoder: UnicornDecoder, name: str, indices: list[int],
    recipe: Recipe | None = None,
) -> Graph:
    """The integer graph, calibrated on the trajectories of the given picture numbers."""
    recipe = recipe or Recipe()
    step, picture = float_networks(config, decoder, name, recipe.activation_bits)
    table = _array(decoder.unet.index_table.weight)
    runs = [trajectory(step, config, table[index]) for index in indices]
    # Embeddings cost little and differ by picture: see all of them.
    codes = [{"index_vector": table[index].reshape(-1, 1, 1), **step_inputs(config, number)}
             for index in spread(EMBEDDINGS, config.images)
             for number in (0, config.steps // 2, config.steps - 1)]
    first = quantize(step, [row for rows, _ in runs for row in rows], recipe, codes)
    second = quantize(picture, [{NEXT_LATENT: latent} for _, latent in runs], recipe)
    return joined(config, name, first, second, table)


def joined(
    config: UnicornConfig, name: str, step: Graph, picture: Graph, table: np.ndarray
) -> Graph:
    """One graph of the sampler step, the picture decoder and the real index table."""
    scale = step.tensors["index_vector"].scale
    constants = {**step.constants, **picture.constants,
                 INDEX_TABLE: np.clip(np.rint(table / scale), -128, 127).astype(np.int8)}
    graph = Graph(name, INPUTS, (NEXT_LATENT, OUTPUT), {**step.tensors, **picture.tensors},
                  step.layers + picture.layers, constants, config.steps)
    verify(graph)
    return graph


def losses(
    config: UnicornConfig, decoder: UnicornDecoder, graph: Graph, indices: list[int]
) -> dict[str, float]:
    """Mean PSNR in dB of float and int8 against the pictures, and int8 against float."""
    pictures = []
    for index in indices:
        original = picture_set(1, first=index)[0].transpose(2, 0, 1).astype(np.float64) / 255
        with torch.no_grad():
            real = decoder(torch.tensor([index]))[0].numpy().astype(np.float64)
        pictures.append((original, real, decode(graph, config, index)
                         * graph.tensors[OUTPUT].scale))
    return rounding_losses(pictures)


def spread(count: int, total: int, first: int = 0) -> list[int]:
    """`count` picture numbers spread over the set."""
    return [(first + number * total // count) % total for number in range(count)]


@dataclass(frozen=True)
class Request:
    """What to quantize: a trained decoder of `TRAINED`, calibrated on so many of its pictures.

    `power_of_two`: the form of the requantization; multipliers if not. `activation_bits`: 8 or 16;
    8 lose several dB.
    """

    network: str
    power_of_two: bool = False
    pictures: int = 4
    activation_bits: int = 16


def run(request: Request) -> Made:
    """The integer graph of a trained decoder, and what was measured on other pictures."""
    config, decoder = load_unicorn(request.network)
    wide = "-w8a16" if request.activation_bits == 16 else ""
    recipe = Recipe(power_of_two=request.power_of_two, channel_tables=True,
                    activation_bits=request.activation_bits)
    graph = quantized_unicorn(config, decoder, f"unicorn-{request.network}{wide}",
                              spread(request.pictures, config.images), recipe)
    return Made(graph, {
        "weights": f"trained, unicorn_{request.network}_float.safetensors",
        "calibration": f"{request.pictures} pictures of the set, all sampler steps",
        "measured_on": f"{TEST_PICTURES} other pictures of the set",
        **losses(config, decoder, graph, spread(TEST_PICTURES, config.images, 3)),
    })
