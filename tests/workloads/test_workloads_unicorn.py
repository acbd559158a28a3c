"""Checks the Unicorn graph and its operators against torch, and the sampler loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workloads import arithmetic, library
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.convolution import accumulate, exact_matmul
from workloads.graph import Graph, GraphError, Layer, Operator, Phase, TensorSpec, Window
from workloads.graph import multiply_accumulates as macs
from workloads.quantization.balance import balance
from workloads.quantization.float_network import FloatNetwork, execute_real
from workloads.quantization.observe import observe
from workloads.quantization.post_training import Recipe
from workloads.reference import execute, execute_layer
from workloads.training.unicorn.quantize import float_networks, quantized_unicorn, trajectory
from workloads.unicorn.config import UnicornConfig, signal_and_noise
from workloads.unicorn.graph import OUTPUT, unicorn_graph
from workloads.unicorn.run import (
    coefficients,
    decode,
    index_vector,
    looped,
    starting_values,
    steps,
)
from workloads.unicorn.torch import UnicornDecoder, build_unicorn
from workloads.verify import verify

TINY = UnicornConfig(
    images=4, width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=16,
    groups=4, embedding=32, latent_rows=8, latent_cols=12, decoder_widths=(16, 8), steps=3,
)


def test_a_step_costs_what_the_module_costs() -> None:
    """0.604 GMAC a step at width 32 on a 32 x 32 latent, attention included."""
    graph = unicorn_graph(UnicornConfig())
    verify(graph)
    step = graph.phase(Phase.STEP)
    assert round(sum(macs(graph, layer) for layer in step) / 1e6) == 605
    products = [layer for layer in step if layer.operator is Operator.MATMUL]
    assert round(sum(macs(graph, layer) for layer in products) / 1e6) == 48


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 4]), st.floats(0.5, 40))
def test_group_norm_is_near_torch(seed: int, groups: int, spread: float) -> None:
    """Rounding once costs half a step; sums are exact, the square root is a floor."""
    random = np.random.default_rng(seed)
    value = np.clip(np.rint(random.normal(3, spread, (8, 6, 5))), -128, 127).astype(np.int8)
    in_step, out_step = 2.0**-4, 2.0**-5
    gamma, beta = random.uniform(0.5, 1.5, 8), random.normal(0, 0.3, 8)
    shape = (8, 6, 5)
    layer = Layer("norm", Operator.GROUP_NORM, ("x",), "y", Window(groups=groups),
                  constants={role: role for role in ("scale", "offset", "epsilon")})
    count = value.size // groups
    graph = Graph(
        "one", ("x",), ("y",),
        {"x": TensorSpec("x", *shape, scale=in_step), "y": TensorSpec("y", *shape, scale=out_step)},
        (layer,),
        {"scale": np.rint(gamma / out_step * 4096).astype(np.int32),
         "offset": np.rint(beta / out_step * 4096).astype(np.int32),
         "epsilon": np.array([round(1e-5 / in_step**2 * count**2)], np.int64)})
    verify(graph)
    found = execute_layer(graph, layer, [value]) * out_step
    real = functional.group_norm(
        torch.from_numpy(value[None] * in_step), groups, torch.from_numpy(gamma),
        torch.from_numpy(beta), 1e-5)[0].numpy()
    real = np.clip(real, -128 * out_step, 127 * out_step)
    # The floor of a root r costs up to 1 / r of the slope, which matters for tiny groups only.
    root = 16 * count * value.reshape(groups, -1).std(axis=1).min()
    limit = 0.52 + 160 / max(root, 1)
    assert np.abs(found - real).max() <= limit * out_step


def test_group_norm_entries_fit_their_fields() -> None:
    """Also for a constant group, whose root is the least there is."""
    for sums in ((1, 5, 25), (1 << 18, 0, 0), (1 << 18, -(1 << 25), 1 << 32), (64, 3, 9)):
        multiplier, offset, shift = arithmetic.group_norm_entries(
            sums, np.array([1 << 19, -5, 0]), np.array([1 << 19, -(1 << 19), 7]), 1)
        assert multiplier.dtype == np.int16 and offset.dtype == np.int32
        assert (shift >= 0).all() and (shift <= 24).all()


def test_matmul_and_transpose_equal_torch() -> None:
    random = np.random.default_rng(0)
    query, key = (random.integers(-128, 128, (16, 4, 5)).astype(np.int8) for _ in range(2))
    turned = Layer("turn", Operator.TRANSPOSE, ("k",), "t")
    graph = unicorn_graph(TINY)
    flipped = execute_layer(graph, turned, [key])
    assert flipped.shape == (20, 1, 16)
    total = exact_matmul(flipped.reshape(20, 16).astype(np.float32),
                         query.reshape(16, 20).astype(np.float32))
    wanted = torch.einsum("dj,di->ji", *(torch.from_numpy(array.reshape(16, 20).astype(np.int32))
                                         for array in (key, query)))
    assert np.array_equal(total, wanted.numpy())


def test_softmax_may_have_finer_steps() -> None:
    """Over 256 tokens a share is far below 2 ** -7, so the output's scale is chosen."""
    random = np.random.default_rng(1)
    logits = random.integers(-40, 40, (256, 3, 3)).astype(np.int8)
    found = arithmetic.softmax(logits, arithmetic.exp_table(2.0**-4), 12) / 4096
    real = functional.softmax(torch.from_numpy(logits / 16), 0).numpy()
    real = np.minimum(real, 127 / 4096)
    assert np.abs(found - real).max() <= 0.55 / 4096


def test_the_coefficients_rotate_from_noise_to_picture() -> None:
    """c0 and c1 are the cosine and minus the sine of the angle between two times."""
    for step in range(TINY.steps):
        first, second = coefficients(TINY, step).reshape(-1)
        assert first == pytest.approx(math.cos(math.pi / 2 / TINY.steps))
        assert second == pytest.approx(-math.sin(math.pi / 2 / TINY.steps))
    assert signal_and_noise(0.0) == (1.0, 0.0)


def test_the_sampler_moves_the_latent_as_the_formula_says() -> None:
    graph = unicorn_graph(TINY)
    latent = graph.tensors["latent"]
    for step, values in enumerate(steps(graph, TINY, 2)):
        velocity = values["unet.conv_out"] * graph.tensors["unet.conv_out"].scale
        first, second = coefficients(TINY, step).reshape(-1)
        wanted = first * values["latent"] * latent.scale + second * velocity
        found = values["latent_next"] * latent.scale
        inside = np.abs(wanted) < 7.9
        # Coefficients are rounded to 2 ** -14, the sum to one latent step.
        assert np.abs(found - wanted)[inside].max() < 8 * 2.0**-14 + 2 * latent.scale


def test_pictures_differ_by_index_and_repeat() -> None:
    graph = unicorn_graph(TINY)
    first, second = decode(graph, TINY, 0), decode(graph, TINY, 1)
    assert first.shape == (3, TINY.rows, TINY.cols) and first.min() >= 0
    assert np.array_equal(first, decode(unicorn_graph(TINY), TINY, 0))
    assert not np.array_equal(first, second)


def test_an_index_beyond_the_table_is_refused() -> None:
    with pytest.raises(GraphError, match="index is 4, must be from 0 to 3"):
        index_vector(unicorn_graph(TINY), 4)


def test_the_library_knows_unicorn() -> None:
    graph = library.load("unicorn-n256")
    assert graph.constants["unet.index_table"].shape == (256, 256)


def tiny_networks() -> tuple[UnicornDecoder, FloatNetwork, FloatNetwork]:
    """A seeded decoder with norms that are not the identity, and its float networks."""
    decoder = build_unicorn(TINY, 2)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.weight.uniform_(0.3, 3.0, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return (decoder, *float_networks(TINY, decoder, "tiny"))


def test_the_float_graph_is_the_torch_module() -> None:
    """Sliced projections, folded gains and the sampler's coefficients: the same picture."""
    decoder, step, picture = tiny_networks()
    table = decoder.unet.index_table.weight.detach().numpy()
    _, latent = trajectory(step, TINY, table[3])
    with torch.no_grad():
        wanted = decoder.sample(torch.tensor([3]))[0].numpy()
        frame = decoder(torch.tensor([3]))[0].numpy()
    assert np.abs(latent - wanted).max() < 1e-4
    found = execute_real(picture, {"latent_next": latent})["picture"]
    assert np.abs(np.clip(found, 0, 1) - frame).max() < 1e-4


def test_tables_by_channel_change_no_output() -> None:
    decoder, step, _ = tiny_networks()
    table = decoder.unet.index_table.weight.detach().numpy()
    inputs = trajectory(step, TINY, table[1])[0][0]
    scaled = balance(step, observe(step, [inputs]), 0.75, channel_tables=True)[0]
    assert any(name.endswith(".in_factor") for name in scaled.weights)
    before, after = (execute_real(item, inputs) for item in (step, scaled))
    assert np.abs(before["latent_next"] - after["latent_next"]).max() < 1e-5


@pytest.mark.parametrize("power_of_two", [True, False])
def test_a_quantized_decoder_is_near_the_float_one(power_of_two: bool) -> None:
    decoder, _, _ = tiny_networks()
    recipe = Recipe(power_of_two=power_of_two, channel_tables=True)
    graph = quantized_unicorn(TINY, decoder, "tiny", [0, 2], recipe)
    tables = [graph.constant(layer, "table") for layer in graph.layers
              if layer.operator is Operator.LOOKUP]
    assert any(table.ndim == 2 for table in tables)
    with torch.no_grad():
        wanted = decoder(torch.tensor([1]))[0].numpy()
    error = decode(graph, TINY, 1) / 128 - wanted
    assert np.sqrt(np.mean(error**2)) < 0.5 * wanted.std()


def test_wide_activations_bring_the_picture_nearer() -> None:
    """int16 activations on int8 weights: a few per cent of the deviation are left."""
    decoder, _, _ = tiny_networks()
    recipe = Recipe(power_of_two=False, channel_tables=True, activation_bits=16)
    graph = quantized_unicorn(TINY, decoder, "tiny", [0, 2], recipe)
    with torch.no_grad():
        wanted = decoder(torch.tensor([1]))[0].numpy()
    error = decode(graph, TINY, 1) / 128 - wanted
    assert np.sqrt(np.mean(error**2)) < 0.12 * wanted.std()


def test_wide_tables_are_interpolated() -> None:
    """Between entries 2 ** -4 apart the chord of SiLU is off by less than 0.5 / 8 * 2 ** -8."""
    values = np.arange(-32768, 32768, 7).astype(np.int16).reshape(1, -1, 1)
    table = arithmetic.wide_table(arithmetic.silu, 2.0**-12, 2.0**-12)
    found = arithmetic.interpolate(values, table) * 2.0**-12
    wanted = functional.silu(torch.from_numpy(values * 2.0**-12)).numpy()
    assert np.abs(found - wanted).max() < 0.5 / 8 * 2.0**-8 + 2.0**-12
    both = arithmetic.interpolate(np.repeat(values, 2, 0), np.stack([table, table // 2]))
    assert np.array_equal(both[0], arithmetic.interpolate(values, table)[0])
    assert np.abs(both[1] - both[0] / 2).max() <= 1.5


def test_wide_convolutions_equal_torch() -> None:
    random = np.random.default_rng(3)
    value = random.integers(-32768, 32768, (40, 7, 9)).astype(np.int16)
    weights = random.integers(-127, 128, (5, 40, 3, 3)).astype(np.int8)
    wanted = functional.conv2d(
        torch.from_numpy(value.astype(np.int64))[None],
        torch.from_numpy(weights.astype(np.int64)), padding=1)[0].numpy()
    assert np.array_equal(accumulate(value, weights, 1, 1), wanted)


def test_a_looped_graph_decodes_as_the_caller_that_runs_the_steps() -> None:
    graph = unicorn_graph(TINY)
    whole = looped(graph)
    verify(whole)
    assert set(whole.inputs) == {"latent", "index_vector", "position", "step"}
    found = execute(whole, starting_values(graph, 1), [Phase.STEP, Phase.FRAME])
    assert np.array_equal(found[OUTPUT], decode(graph, TINY, 1))
    assert found["step_next"].item() == TINY.steps


def test_loops_that_cannot_be_are_refused() -> None:
    graph = looped(unicorn_graph(TINY))
    with pytest.raises(GraphError, match="'velocity' to 'latent'"):
        verify(replace(graph, carried=(("latent", "velocity"),)))
    with pytest.raises(GraphError, match="shape, bits and scale"):
        verify(replace(graph, carried=(("latent", "step_next"),)))
    with pytest.raises(GraphError, match="sampler loop is unknown"):
        looped(agc_graph(AgcConfig(width=8)))
