"""Is an AGC decoder that is fine-tuned at 4 bits what the integer graph then computes?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.rounding import assert_rounds_as_integers
from tests.support.threads import one_thread
from workloads.agc.torch import load_agc
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
def decoder(given: dict[str, np.ndarray]) -> job.RoundedAgc:
    with one_thread():
        return job.RoundedAgc(NETWORK, [given])


def tensors(given: dict[str, np.ndarray]) -> list[torch.Tensor]:
    points = [given[name][..., 0].T for name in ("keypoints_source", "keypoints_driving")]
    return [torch.from_numpy(array[None].copy()) for array in (given["source"], *points)]


def test_without_rounding_it_is_the_trained_decoder(
        decoder: job.RoundedAgc, given: dict[str, np.ndarray]) -> None:
    inputs, rounded = tensors(given), decoder.rounded
    layers = frozenset(layer.name for layer in decoder.real.graph.layers)
    rounded.exact = rounded.exact_weights = layers
    with torch.no_grad(), one_thread():
        found, wanted = decoder.frame(*inputs), load_agc(NETWORK)[1](*inputs)
    rounded.exact = rounded.exact_weights = frozenset()
    # The inputs are rounded still: half a step of 1 / 128, and the white of 1 is 127 / 128.
    assert (found - wanted).abs().mean() < 0.004


def test_every_layer_rounds_as_the_integers_do(
        decoder: job.RoundedAgc, given: dict[str, np.ndarray]) -> None:
    with one_thread(), torch.no_grad():
        graph = quantize(decoder.fitted(), [given], job.BEHIND)
        values = decoder.tensors(*tensors(given))
    assert graph.narrow_layers == set(decoder.rounded.steps)
    assert all(np.abs(graph.constant(graph.layer(name), "weights")).max() <= LIMIT
               for name in graph.narrow_layers)
    assert_rounds_as_integers(graph, graph.layers, values)


def test_what_is_trained_is_what_the_integers_compute(
        decoder: job.RoundedAgc, given: dict[str, np.ndarray]) -> None:
    """The frame in training, all rounding in it, against that of the graph."""
    with one_thread(), torch.no_grad():
        graph = quantize(decoder.fitted(), [given], job.BEHIND)
        trained = decoder.frame(*tensors(given))[0].numpy()
        whole = execute(graph, quantized_inputs(graph, given))["picture"]
    frames = trained, whole * graph.tensors["picture"].scale
    assert psnr_db(*((255 * frame).clip(0, 255).astype(np.uint8) for frame in frames)) > 35


def test_a_fine_tuned_decoder_is_a_graph_of_4_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TEST_PAIRS", 1)
    told: list[str] = []
    with one_thread():
        made = job.run(job.Request(NETWORK, 1.0, batch=1, bank=1, fresh=0, pairs=1), told.append)
    layers = made.provenance["four_bit_layers"]
    assert made.graph.name == f"agc-{NETWORK}-4bit" and len(made.graph.narrow_layers) == layers > 20
    assert made.provenance["int8_psnr_db"] > 15 and "bank ready" in told[0]
