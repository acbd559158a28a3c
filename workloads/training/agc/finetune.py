"""Fine-tunes a trained AGC decoder with 4-bit weights in the loop (quantization-aware training).

Every tensor and every weight is rounded as the integer graph rounds it (`rounded_network`). The
keypoint detector stays as it is, so the decoder reads the bitstream of the one that it starts from.
`cosim train fine-tune-agc` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from workloads.agc.torch import load_agc
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.post_training import (
    Recipe,
    Values,
    choose_scales,
    equalized,
    quantize,
)
from workloads.training.agc.quantize import TEST_PAIRS, float_network, losses, real_inputs
from workloads.training.agc.train import (
    GRADIENT,
    KEPT_PAIRS,
    LEAST_RATE,
    TEACHER,
    Teacher,
    frame_terms,
)
from workloads.training.fitting import falling, shares, started, update
from workloads.training.losses import RandomFeatures, pyramid_loss
from workloads.training.made import Made
from workloads.training.pictures.batches import TRAIN_IDENTITIES, PairMaker, Replay
from workloads.training.pictures.clips import calibration_clips, test_clips
from workloads.training.rounded_network import STEP_RATE, RoundedNetwork

#: Steps of 4-bit weights are what they are, so what requantizes must be free.
BEFORE = Recipe(power_of_two=False)
#: What was trained is what the integers are: nothing is moved behind it.
BEHIND = replace(BEFORE, balance=0.0, correct_bias=False)


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


class RoundedAgc:
    """An AGC decoder as a rounded network, every convolution's weights at 4 bits.

    `real`: the float decoder, its channels evened out as for 8 bits; the steps of its tensors are
    those that post-training chooses on the calibration inputs.
    """

    def __init__(self, network: str, calibration: Sequence[Values], device: str = "cpu") -> None:
        config, decoder = load_agc(network)
        self.real, observed = equalized(
            float_network(config, decoder, f"agc-{network}-4bit"), calibration, BEFORE)
        scales = choose_scales(self.real, observed.samples, BEFORE)
        self.rounded = RoundedNetwork(self.real, scales, dict.fromkeys(decoder.convs(), 4), device)

    def frame(self, source: Tensor, source_points: Tensor, driving_points: Tensor) -> Tensor:
        """The frame [N, 3, rows, cols] of a source frame and keypoints [N, K, 2]."""
        return self.tensors(source, source_points, driving_points)["picture"]

    def tensors(
        self, source: Tensor, source_points: Tensor, driving_points: Tensor
    ) -> dict[str, Tensor]:
        """Every tensor of the graph, for the same inputs."""
        given = {"source": source,
                 "keypoints_source": source_points.transpose(1, 2)[..., None],
                 "keypoints_driving": driving_points.transpose(1, 2)[..., None]}
        values = {name: self.rounded.rounded(name, value) for name, value in given.items()}
        self.rounded.run(self.real.graph.layers, values, self.rounded.rounded_weights())
        return values

    def fitted(self) -> FloatNetwork:
        """The network with the weights as they are now; `quantize` it by `BEHIND`."""
        return self.rounded.fitted()


class Tuner:
    """A rounded decoder that is fitted, and the float one that it follows and whose detector it
    has."""

    def __init__(self, decoder: RoundedAgc, teacher: str, device: str, rate: float) -> None:
        self.decoder, self.teacher = decoder, Teacher(teacher, device)
        self.features = RandomFeatures().to(device)
        self.device, self.rate = device, rate
        weights, steps = decoder.rounded.fitted_values(), list(decoder.rounded.steps.values())
        self.values = [*weights, *steps]
        groups: list[dict[str, Any]] = [
            {"params": weights}, {"params": steps, "factor": STEP_RATE}]
        self.optimizer = torch.optim.AdamW(
            groups, rate, betas=(0.5, 0.99), weight_decay=0.0, fused=device == "cuda")

    def step(self, source: Tensor, driving: Tensor, share: float) -> dict[str, Tensor]:
        """Update once; `share` of the time budget is spent. The terms of the loss, weighted."""
        points = self.teacher.points(source, driving)
        found = self.decoder.frame(source, *points)
        with torch.no_grad():
            wanted = self.teacher.decoder(source, *points)
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
    decoder = RoundedAgc(short, calibration, device)
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
    graph = quantize(decoder.fitted(), calibration, BEHIND)
    return Made(graph, {
        "weights": f"agc_{short}_float.safetensors, fine-tuned with 4-bit weights in the loop "
                   "(quantization-aware training)",
        "calibration": f"{request.pairs} seeded pairs of training identities",
        "measured_on": f"{TEST_PAIRS} seeded pairs of held-out identities",
        "network": short, "steps": steps, "seconds": request.seconds, "batch": request.batch,
        "rate": request.rate, "seed": request.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "four_bit_layers": len(decoder.rounded.steps),
        "four_bit_weights": sum(graph.constant(graph.layer(name), "weights").size
                                for name in decoder.rounded.steps),
        **losses(decoder.real, graph, test_clips(TEST_PAIRS, 0, short)),
    })
