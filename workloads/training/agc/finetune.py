"""Fine-tunes a trained AGC decoder with 4-bit weights in the loop (quantization-aware training).

Weights are rounded as hardware holds them, and what a convolution gives to the 8 bits that it had
before; gradients pass a rounding unchanged inside its range (straight-through estimator, Bengio et
al. 2013). All other tensors get their 8 bits after training (`post_training`). The keypoint
detector stays as it is, so the decoder reads the bitstream of the one that it starts from.
`cosim train fine-tune-agc` runs it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from workloads.agc.torch import AgcDecoder, ResidualBlock, folded, load_agc
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.narrow import LIMIT
from workloads.quantization.post_training import Recipe, Values, equalized, quantize
from workloads.training.agc.quantize import TEST_PAIRS, float_network, losses, real_inputs
from workloads.training.agc.train import (
    GRADIENT,
    KEPT_PAIRS,
    LEAST_RATE,
    TEACHER,
    Teacher,
    frame_terms,
)
from workloads.training.fitting import autocast, falling, shares, started, update
from workloads.training.losses import RandomFeatures, pyramid_loss
from workloads.training.made import Made
from workloads.training.pictures.batches import TRAIN_IDENTITIES, PairMaker, Replay
from workloads.training.pictures.clips import calibration_clips, test_clips

#: Steps of 4-bit weights are what they are, so what requantizes must be free.
BEFORE = Recipe(power_of_two=False)
#: The trained biases know what saturates; the means of a run that does not would move them off.
BEHIND = replace(BEFORE, balance=0.0, correct_bias=False)
#: A step of a channel without weights.
LEAST_STEP = 1e-12


@dataclass(frozen=True)
class Request:
    """What to fine-tune and how long: a trained decoder of `TRAINED`, `seconds` all in all.

    `batch`: pairs an update. `bank`: training heads that are drawn. `fresh`: pairs rendered a
    batch, the others are shown again. `pairs`: seeded pairs of frames that calibrate activations.
    """

    network: str
    seconds: float
    batch: int = 32
    bank: int = TRAIN_IDENTITIES
    rate: float = 4e-4
    seed: int = 7
    fresh: int = 8
    pairs: int = 8


def equalized_decoder(network: str, calibration: Sequence[Values]) -> AgcDecoder:
    """The trained decoder with its norms folded and its channels evened out as for 8 bits.

    That must come first: what moves a channel's scale from one layer to the next moves weights off
    their steps, so 4-bit weights are not touched again behind the training.
    """
    config, decoder = load_agc(network)
    even = equalized(float_network(config, decoder, network), calibration, BEFORE)[0].weights
    plain = folded(decoder)
    with torch.no_grad():
        for name, conv in plain.convs().items():
            conv.weight.copy_(torch.from_numpy(even[f"{name}.weights"]))
            assert conv.bias is not None
            conv.bias.copy_(torch.from_numpy(even[f"{name}.bias"]))
        for index, block in enumerate(plain.frame.residual):
            assert isinstance(block, ResidualBlock)
            norm = block.norm1
            norm.reset_running_stats()  # mean 0, variance 1
            norm.weight.copy_(torch.from_numpy(even[f"res{index}.norm.scale"])
                              * math.sqrt(1 + norm.eps))
            norm.bias.copy_(torch.from_numpy(even[f"res{index}.norm.offset"]))
    return plain


def output_scales(decoder: AgcDecoder, calibration: Sequence[Values]) -> dict[str, float]:
    """The step of what each convolution gives, as post-training chooses it for 8-bit weights."""
    graph = quantize(float_network(decoder.config, decoder, "even"), calibration, BEFORE)
    return {name: graph.tensors[graph.layer(name).output].scale for name in decoder.convs()}


def round_outputs(decoder: AgcDecoder, scales: Mapping[str, float]) -> list[RemovableHandle]:
    """From now on each convolution gives whole steps from -128 to 127, a ReLU behind or not.

    What it returns takes that back.
    """
    return [conv.register_forward_hook(
        lambda module, given, found, scale=scales[name]:
        torch.fake_quantize_per_tensor_affine(found.float(), scale, 0, -128, 127))
        for name, conv in decoder.convs().items()]


def rounded(decoder: AgcDecoder) -> dict[str, Tensor]:
    """The weights of every convolution in whole steps, by the name of the parameter.

    The greatest weight of an output channel is `LIMIT` steps.
    """
    found = {}
    for name, weights in decoder.named_parameters():
        if weights.ndim == 4:
            most = weights.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
            step = most.clamp_min(LEAST_STEP) / LIMIT
            scaled = weights / step
            found[name] = step * (scaled + (scaled.round() - scaled).detach())
    return found


def four_bit_network(decoder: AgcDecoder, scales: Mapping[str, float], name: str) -> FloatNetwork:
    """The decoder with its weights rounded, and the steps of each convolution's channels.

    `scales`: of what the convolutions give, which stay as they are.
    """
    plain = deepcopy(decoder).cpu()
    with torch.no_grad():
        values = dict(plain.named_parameters())
        for parameter, weights in rounded(plain).items():
            values[parameter].copy_(weights)
    network = float_network(plain.config, plain, name)
    steps = {layer: np.maximum(np.abs(network.weights[f"{layer}.weights"]).max(axis=(1, 2, 3)),
                               LEAST_STEP).astype(np.float64) / LIMIT
             for layer in plain.convs()}
    return replace(network, weight_steps=steps, fixed_scales={
        **network.fixed_scales,
        **{network.graph.layer(layer).output: scale for layer, scale in scales.items()}})


class Tuner:
    """A decoder that is fitted, and the float one that it follows and whose detector it has."""

    def __init__(self, decoder: AgcDecoder, teacher: str, device: str, rate: float) -> None:
        self.decoder, self.teacher = decoder.to(device), Teacher(teacher, device)
        self.features = RandomFeatures().to(device)
        self.device, self.rate = device, rate
        self.values = list(self.decoder.parameters())
        self.optimizer = torch.optim.AdamW(
            self.values, lr=rate, betas=(0.5, 0.99), weight_decay=0.0, fused=device == "cuda")

    def step(self, source: Tensor, driving: Tensor, share: float) -> dict[str, Tensor]:
        """Update once; `share` of the time budget is spent. The terms of the loss, weighted."""
        with autocast(self.device):
            points = self.teacher.points(source, driving)
            found = functional_call(self.decoder, rounded(self.decoder),
                                    (source, *points)).float()
            with torch.no_grad():
                wanted = self.teacher.decoder(source, *points).float()
        terms = {**frame_terms(self.features, found, driving, self.device),
                 "teacher": TEACHER * pyramid_loss(found, wanted)}
        update(self.optimizer, torch.stack(list(terms.values())).sum(),
               self.rate * falling(share, LEAST_RATE), self.values, GRADIENT)
        return {name: value.detach() for name, value in terms.items()}


def run(request: Request, told: Callable[[str], None]) -> Made:
    """Fine-tune for some seconds, quantize, measure; `told` gets a line now and then."""
    began, short = time.monotonic(), request.network
    device, config = started(request.seed), load_agc(short)[0]
    calibration = [real_inputs(pair) for pair in calibration_clips(request.pairs, 0, short)]
    decoder = equalized_decoder(short, calibration)
    scales = output_scales(decoder, calibration)
    round_outputs(decoder, scales)
    tuner = Tuner(decoder, short, device, request.rate)
    maker = PairMaker(request.bank, config.rows, config.cols, device)
    pairs = Replay(maker, request.fresh, KEPT_PAIRS) if request.fresh else maker
    told(f"{short} on {device}, bank ready {time.monotonic() - began:.0f} s")
    steps, shown = 0, 0.0
    for share in shares(request.seconds, began):
        terms = tuner.step(*pairs.draw(request.batch), share)
        steps += 1
        if share - shown > 0.04 or steps == 1:
            shown = share
            told(f"{short} {share:5.0%} step {steps}: " + " ".join(
                f"{term} {value.item():.3f}" for term, value in terms.items()))
    network = four_bit_network(tuner.decoder, scales, f"agc-{short}-4bit")
    graph = quantize(network, calibration, BEHIND)
    return Made(graph, {
        "weights": f"agc_{short}_float.safetensors, fine-tuned with 4-bit weights in the loop "
                   "(quantization-aware training)",
        "calibration": f"{request.pairs} seeded pairs of training identities",
        "measured_on": f"{TEST_PAIRS} seeded pairs of held-out identities",
        "network": short, "steps": steps, "seconds": request.seconds, "batch": request.batch,
        "rate": request.rate, "seed": request.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "four_bit_layers": len(network.weight_steps),
        "four_bit_weights": sum(graph.constant(graph.layer(name), "weights").size
                                for name in network.weight_steps),
        **losses(network, graph, test_clips(TEST_PAIRS, 0, short)),
    })
