"""Does the network that is fine-tuned round as the integer graph does, and can it be fitted?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.support.rounding import assert_rounds_as_integers
from tests.support.threads import one_thread
from workloads.graph import Operator, Phase
from workloads.training.rounded_network import RoundedNetwork, Values
from workloads.training.unicorn.finetune import Update, wide_layers
from workloads.training.unicorn.rounded import RoundedUnicorn, calibrated, exact
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.torch import UnicornDecoder, build_unicorn

TINY = UnicornConfig(
    images=4, width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=16,
    groups=4, embedding=32, latent_rows=8, latent_cols=12, decoder_widths=(16, 8), steps=3,
)


@pytest.fixture(scope="module", autouse=True)
def small_tensors() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def decoder() -> UnicornDecoder:
    """A seeded decoder whose pictures are not flat."""
    found = build_unicorn(TINY, seed=2)
    with torch.no_grad():
        found.picture.conv_out.weight.mul_(4)
    return found


@pytest.fixture(scope="module")
def rounded(decoder: UnicornDecoder) -> RoundedUnicorn:
    return calibrated(TINY, decoder, [0, 1, 2])


def test_without_rounding_it_is_the_float_decoder(decoder: UnicornDecoder) -> None:
    index = torch.arange(2)
    with torch.no_grad():
        found = exact(calibrated(TINY, decoder, [0]))(index)
        wanted = decoder(index)
    assert torch.allclose(found.clamp(0, 1), wanted, atol=2e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_every_layer_rounds_as_the_integers_do(decoder: UnicornDecoder, bits: int) -> None:
    plain = calibrated(TINY, decoder, [0, 1, 2])
    narrow = dict.fromkeys(wide_layers(plain, 0.5), bits)
    rounded = calibrated(TINY, decoder, [0, 1, 2], weight_bits=narrow)
    graph = rounded.graph("tiny")
    seen: list[Values] = []
    with torch.no_grad():
        rounded(torch.tensor([1]), seen=seen)
    for layer in graph.layers:
        assert_rounds_as_integers(graph, [layer], seen[-1 if layer.phase is Phase.FRAME else 1])
        if layer.name in narrow:
            assert np.abs(graph.constant(layer, "weights")).max() <= 2 ** (bits - 1) - 1


def test_every_tensor_of_the_accelerator_has_eight_bits(rounded: RoundedUnicorn) -> None:
    graph = rounded.graph("tiny")
    wide = {name for name, spec in graph.tensors.items() if spec.bits != 8}
    assert wide == {"latent", "latent_next", "coefficients"}
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            assert graph.constant(layer, "multiplier").max() < 1 << 15


def test_a_gradient_passes_a_rounding_and_stops_at_saturation(rounded: RoundedUnicorn) -> None:
    network: RoundedNetwork = rounded.step
    step = network.scales["unet.conv_out"]
    value = torch.tensor([0.3, 5.4, 200.0, -300.0]) * step
    value.requires_grad_()
    found = network.rounded("unet.conv_out", value)
    found.sum().backward()
    assert torch.allclose(found / step, torch.tensor([0.0, 5.0, 127.0, -128.0]))
    assert value.grad is not None and value.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_an_update_lowers_the_error(decoder: UnicornDecoder) -> None:
    rounded = calibrated(TINY, decoder, [0, 1])
    pictures = torch.full((4, TINY.rows, TINY.cols, 3), 110, dtype=torch.uint8)
    update = Update(rounded, pictures, batch=2, rate=3e-3)
    errors = []
    for _ in range(4):
        update(0.1)
        errors.append(update.error.item())
    assert errors[-1] < 0.9 * errors[0]
