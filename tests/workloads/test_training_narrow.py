"""Is an AGC decoder that is fine-tuned at 4 bits what the integer graph then computes?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from tests.support.threads import one_thread
from workloads.agc.torch import AgcDecoder, load_agc
from workloads.quantization.narrow import LIMIT
from workloads.quantization.post_training import quantize, quantized_inputs
from workloads.reference import execute
from workloads.training.agc import finetune as job
from workloads.training.agc.quantize import real_inputs
from workloads.training.metrics import psnr_db
from workloads.training.pictures.clips import calibration_clips

NETWORK = "t32b4"


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    return real_inputs(calibration_clips(1, 0, NETWORK)[0])


@pytest.fixture(scope="module")
def even(given: dict[str, np.ndarray]) -> AgcDecoder:
    with one_thread():
        return job.equalized_decoder(NETWORK, [given])


def tensors(given: dict[str, np.ndarray]) -> list[torch.Tensor]:
    points = [given[name][..., 0].T for name in ("keypoints_source", "keypoints_driving")]
    return [torch.from_numpy(array[None].copy()) for array in (given["source"], *points)]


def test_the_decoder_that_training_starts_from_is_the_trained_one(
        even: AgcDecoder, given: dict[str, np.ndarray]) -> None:
    inputs = tensors(given)
    with torch.no_grad(), one_thread():
        difference = even(*inputs) - load_agc(NETWORK)[1](*inputs)
    assert difference.abs().max() < 1e-4


def test_weights_are_whole_steps_and_gradients_pass(even: AgcDecoder) -> None:
    found = job.rounded(even)
    assert len(found) == len(even.convs())
    for name, weights in found.items():
        most = weights.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(job.LEAST_STEP)
        codes = weights / most * LIMIT
        assert (codes - codes.round()).abs().max() < 1e-4, name
        given = even.get_parameter(name)
        slopes, = torch.autograd.grad(weights.sum(), given, retain_graph=True)
        assert torch.allclose(slopes, torch.ones_like(slopes), atol=1e-5), name


def test_what_is_trained_is_what_the_integers_compute(
        even: AgcDecoder, given: dict[str, np.ndarray]) -> None:
    """The frame in training, all rounding in it, against that of the graph."""
    with one_thread():
        scales = job.output_scales(even, [given])
        network = job.four_bit_network(even, scales, "narrow")
        graph = quantize(network, [given], job.BEHIND)
        assert graph.narrow_layers == set(even.convs())
        for layer, scale in scales.items():
            assert graph.tensors[graph.layer(layer).output].scale == scale
        hooks = job.round_outputs(even, scales)
        with torch.no_grad():
            trained = functional_call(even, job.rounded(even), tuple(tensors(given)))[0].numpy()
        for hook in hooks:
            hook.remove()
        whole = execute(graph, quantized_inputs(graph, given))["picture"]
    frames = trained, whole * graph.tensors["picture"].scale
    assert psnr_db(*((255 * frame).clip(0, 255).astype(np.uint8) for frame in frames)) > 30


def test_a_fine_tuned_decoder_is_a_graph_of_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TEST_PAIRS", 1)
    told: list[str] = []
    with one_thread():
        made = job.run(job.Request(NETWORK, 1.0, batch=1, bank=1, fresh=0, pairs=1), told.append)
    layers = made.provenance["four_bit_layers"]
    assert made.graph.name == f"agc-{NETWORK}-4bit" and len(made.graph.narrow_layers) == layers > 20
    assert made.provenance["int8_psnr_db"] > 15 and "bank ready" in told[0]
