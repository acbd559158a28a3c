"""Quantizes the AGC decoder: torch module to float network to integer graph.

It calibrates nothing itself (`post_training` does) and trains nothing. `cosim train quantize-agc`
runs it.

The module is walked by the names of its convolutions, not traced: the graph builder already
says which step follows which, so the walk only fetches folded weights, and a test holds the two
structures equal in float32. Tracing (torchao pt2e) would find the same layers with more
machinery, leave the fixed-point steps in floating point, and could not tie the scales of a
concatenation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from workloads.agc.config import HEAT_VARIANCE, AgcConfig
from workloads.agc.graph import build_graph, fixed_constants
from workloads.agc.torch import (
    AgcDecoder,
    ConvUnit,
    ResidualBlock,
    build_agc,
    folded,
    load_agc,
)
from workloads.graph import Graph
from workloads.quantization.float_network import FloatNetwork, execute_real
from workloads.quantization.post_training import Recipe, quantize, quantized_inputs
from workloads.reference import execute
from workloads.training.made import Made
from workloads.training.metrics import rounding_losses
from workloads.training.pictures.clips import ClipPair, calibration_clips, test_clips

#: Held-out pairs on which a quantized decoder is measured.
TEST_PAIRS = 12
#: Tensors of 8 bits whose scale follows from their meaning.
FIXED = ("source", "small", "heat_maps", "mask_softmax", "occlusion_sigmoid", "picture")


def float_network(config: AgcConfig, decoder: AgcDecoder, name: str) -> FloatNetwork:
    """The decoder's folded weights in the AGC graph; the decoder is left as it is."""
    plain = folded(decoder)
    graph = build_graph(config, fixed_constants(config), {}, name)
    weights: dict[str, np.ndarray] = {"heat_maps.variance": np.array([HEAT_VARIANCE])}
    for conv_name, conv in plain.convs().items():
        weights[f"{conv_name}.weights"] = conv.weight.detach().numpy().copy()
        assert conv.bias is not None
        weights[f"{conv_name}.bias"] = conv.bias.detach().numpy().copy()
    for index, block in enumerate(plain.frame.residual):
        assert isinstance(block, ResidualBlock)
        norm = block.norm1
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        weights[f"res{index}.norm.scale"] = scale.numpy().copy()
        weights[f"res{index}.norm.offset"] = (
            (norm.bias - norm.running_mean * scale).detach().numpy().copy())
    functions = {"occlusion_sigmoid": "sigmoid", "final_sigmoid": "sigmoid"}
    fixed = {tensor: graph.tensors[tensor].scale for tensor in FIXED}
    return FloatNetwork(graph, weights, functions, fixed)


def lively_agc(config: AgcConfig, seed: int = 0) -> AgcDecoder:
    """An untrained decoder whose activations keep their size, so that pictures are not constant.

    He initialization, norm statistics measured on two seeded inputs, logits of the heads scaled
    to a deviation near one.
    """
    decoder = build_agc(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for conv in decoder.convs().values():
            fan_in = conv.weight[0].numel()
            conv.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            assert conv.bias is not None
            conv.bias.zero_()
        for module in decoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.uniform_(-0.3, 0.5, generator=generator)
        inputs = seeded_inputs(config, 2, seed + 1)
        source, first, second = (
            torch.from_numpy(np.stack([item[key] for item in inputs])).float()
            for key in ("source", "keypoints_source", "keypoints_driving"))
        points = [point[..., 0].transpose(1, 2) for point in (first, second)]
        decoder.train()
        decoder(source, *points)
        decoder.eval()
        for unit in (decoder.frame.mask, decoder.frame.occlusion, decoder.frame.final):
            _scale_head(decoder, unit, (source, *points))
    return decoder


def _scale_head(
    decoder: AgcDecoder, unit: ConvUnit, inputs: tuple[torch.Tensor, ...]
) -> None:
    seen: list[torch.Tensor] = []
    hook = unit.conv.register_forward_hook(lambda module, args, out: seen.append(out))
    decoder(*inputs)
    hook.remove()
    unit.conv.weight.div_(seen[0].std().item())


def seeded_inputs(config: AgcConfig, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Sets of real graph inputs: a smooth random picture, keypoints, and the same moved a little.

    Every value depends on the seed alone. Keypoints are (2, K, 1), x then y, in -1 .. 1.
    """
    found = []
    for index in range(count):
        random = np.random.default_rng([seed, index])
        picture = np.zeros((3, config.rows, config.cols))
        for size, weight in ((4, 0.22), (16, 0.1), (64, 0.05)):
            coarse = torch.from_numpy(random.normal(0, weight, (1, 3, size, size)))
            picture += nn.functional.interpolate(
                coarse, (config.rows, config.cols), mode="bicubic", align_corners=False
            )[0].numpy()
        points = random.uniform(-0.75, 0.75, (2, config.keypoints, 1))
        moved = np.clip(points + random.normal(0, 0.06, points.shape), -1, 1)
        found.append({
            "source": np.clip(picture + random.uniform(0.35, 0.65), 0, 1).astype(np.float32),
            "keypoints_source": points.astype(np.float32),
            "keypoints_driving": moved.astype(np.float32),
        })
    return found


def real_inputs(pair: ClipPair) -> dict[str, np.ndarray]:
    """The real graph inputs of a source and driving frame with their keypoints."""
    return {
        "source": (pair.source.astype(np.float32) / 255).transpose(2, 0, 1),
        "keypoints_source": pair.source_points.astype(np.float32).T[:, :, None],
        "keypoints_driving": pair.driving_points.astype(np.float32).T[:, :, None],
    }


def losses(network: FloatNetwork, graph: Graph, pairs: list[ClipPair]) -> dict[str, float]:
    """Mean PSNR in dB: float and int8 against the driving frame, and int8 against float."""
    pictures = []
    for pair in pairs:
        inputs = real_inputs(pair)
        driving = (pair.driving.astype(np.float32) / 255).transpose(2, 0, 1)
        real = execute_real(network, inputs)["picture"]
        whole = execute(graph, quantized_inputs(graph, inputs))["picture"]
        pictures.append((driving, real, whole * graph.tensors["picture"].scale))
    return rounding_losses(pictures)


@dataclass(frozen=True)
class Request:
    """What to quantize: a trained decoder of `TRAINED`, with `pairs` seeded pairs of frames.

    `power_of_two`: the form of the requantization; multipliers if not.
    """

    network: str
    power_of_two: bool = True
    pairs: int = 8
    seed: int = 0


def run(request: Request) -> Made:
    """The integer graph of a trained decoder, and what was measured on held-out pairs."""
    short = request.network
    config, decoder = load_agc(short)
    name = f"agc-{short}{'' if request.power_of_two else '-multiplier'}"
    network = float_network(config, decoder, name)
    calibration = [real_inputs(pair)
                   for pair in calibration_clips(request.pairs, request.seed, short)]
    graph = quantize(network, calibration, Recipe(power_of_two=request.power_of_two))
    return Made(graph, {
        "weights": f"trained, agc_{short}_float.safetensors",
        "calibration": f"{request.pairs} seeded pairs of training identities",
        "measured_on": f"{TEST_PAIRS} seeded pairs of held-out identities",
        **losses(network, graph, test_clips(TEST_PAIRS, 0, short)),
    })
