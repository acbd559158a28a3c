"""Checks the quantizer: structure equal to torch, exact rescaling, error bounds, repeats."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import cosim
from workloads import library
from workloads.agc.config import AgcConfig
from workloads.agc.graph import frame_bytes, frame_inputs
from workloads.agc.torch import load_agc
from workloads.graph import Graph, Operator
from workloads.quantization.balance import balance, channel_groups
from workloads.quantization.equalize import movable, readers, rescale, root
from workloads.quantization.float_network import FloatNetwork, execute_real
from workloads.quantization.observe import observe
from workloads.quantization.post_training import (
    Recipe,
    best_scale,
    equalized,
    quantize,
    quantized_inputs,
)
from workloads.reference import execute
from workloads.training.agc.quantize import (
    float_network,
    lively_agc,
    losses,
    seeded_inputs,
)
from workloads.training.metrics import psnr_db
from workloads.training.pictures import clips

TINY = AgcConfig(
    width=8, blocks=2, motion_width=8, motion_max=32, motion_blocks=3, keypoints=4,
    rows=64, cols=96,
)


@cache
def network() -> FloatNetwork:
    return float_network(TINY, lively_agc(TINY, 3), "tiny")


@cache
def quantized(power_of_two: bool, bias: bool = True) -> Graph:
    recipe = Recipe(power_of_two=power_of_two, correct_bias=bias)
    return quantize(network(), seeded_inputs(TINY, 3, 10), recipe)


@pytest.mark.parametrize("config", [
    TINY, replace(TINY, motion_factor=8, motion_blocks=2, trunk=24, half=12, full=4, head_kernel=3,
                  final_kernel=5)], ids=["uniform", "sizes by layer"])
def test_the_float_graph_is_the_torch_module(config: AgcConfig) -> None:
    """The walk by names misses no step: the same picture within float32 noise."""
    decoder = lively_agc(config, 3)
    inputs = seeded_inputs(config, 1, 5)[0]
    points = [torch.from_numpy(inputs[name])[None, :, :, 0].transpose(1, 2)
              for name in ("keypoints_source", "keypoints_driving")]
    with torch.no_grad():
        picture = decoder(torch.from_numpy(inputs["source"])[None], *points)[0].numpy()
    found = execute_real(float_network(config, decoder, "tiny"), inputs)["picture"]
    assert np.abs(found - picture).max() < 1e-3
    assert picture.std() > 0.05


def test_rescaling_changes_no_output() -> None:
    """Powers of two commute exactly with everything on the way."""
    plain = network()
    inputs = seeded_inputs(TINY, 1, 5)[0]
    scaled = rescale(plain, {"dec2": 4.0, "enc0": 0.5, "dec0": 0.25})
    before, after = execute_real(plain, inputs), execute_real(scaled, inputs)
    assert np.array_equal(before["picture"], after["picture"])
    assert np.array_equal(before["dec2"], after["dec2"] * 4)


def test_only_positive_chains_are_rescaled() -> None:
    graph = network().graph
    assert movable(graph, "dec0") and movable(graph, "enc0.pool")
    assert not movable(graph, "hourglass_input") and not movable(graph, "res0.add")
    assert readers(graph, "down1") is None
    producer = root(graph, "enc1.pool")
    assert producer is not None and producer.name == "enc1"
    found = readers(graph, "enc0")
    assert found is not None
    # dec1 makes 8 * 2 channels, which lie before the skip in the concatenation.
    assert [(item.layer.name, item.first_channel) for item in found] == [("enc1", 0), ("dec2", 16)]


@pytest.mark.parametrize("power_of_two", [True, False])
def test_each_layer_alone_is_near_its_float_form(power_of_two: bool) -> None:
    """One quantized layer on the exact integers' real values: a few per cent of the deviation."""
    from workloads.quantization.float_network import execute_real_layer

    graph = quantized(power_of_two, bias=False)
    recipe = Recipe(power_of_two=power_of_two, correct_bias=False)
    same, _ = equalized(network(), seeded_inputs(TINY, 3, 10), recipe)
    inputs = seeded_inputs(TINY, 1, 5)[0]
    values = execute(graph, quantized_inputs(graph, inputs))
    for layer in graph.layers:
        if graph.tensors[layer.output].bits != 8:
            continue
        reals = [values[name] * np.float32(graph.tensors[name].scale) for name in layer.inputs]
        wanted = execute_real_layer(replace(same, graph=graph), layer, reals)
        step = graph.tensors[layer.output].scale
        wanted = np.clip(wanted, -128 * step, 127 * step)
        error = values[layer.output] * step - wanted
        limit = 0.08 * wanted.std() + 0.6 * step
        assert np.sqrt(np.mean(error**2)) < limit, layer.name


@pytest.mark.parametrize("power_of_two", [True, False])
def test_the_picture_is_near_the_float_one(power_of_two: bool) -> None:
    graph = quantized(power_of_two)
    for inputs in seeded_inputs(TINY, 2, 20):
        wanted = execute_real(network(), inputs)["picture"]
        found = execute(graph, quantized_inputs(graph, inputs))["picture"] / 128
        # A picture unrelated to this one, but with its mean and deviation, would be 3 dB below.
        noise_db = -10 * np.log10(wanted.var())
        assert psnr_db(wanted, found) > noise_db + 4


def test_scale_forms_are_what_they_say() -> None:
    graph = quantized(True)
    for name, spec in graph.tensors.items():
        assert np.log2(spec.scale) % 1 == 0, name
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            assert (graph.constant(layer, "multiplier") == 1).all(), layer.name
    other = quantized(False)
    some = other.constant(other.layer("up0"), "multiplier")
    assert (some >= 1 << 13).all() and (some < 1 << 15).all()


def test_bias_correction_removes_the_mean_error() -> None:
    inputs = seeded_inputs(TINY, 3, 10)
    errors = []
    for corrected in (False, True):
        graph = quantized(True, corrected)
        found = []
        for item in inputs:
            wanted = execute_real(network(), item)["up0"]
            real = execute(graph, quantized_inputs(graph, item))["up0"]
            found.append((real * graph.tensors["up0"].scale - wanted).mean(axis=(1, 2)))
        errors.append(np.abs(np.mean(found, axis=0)).mean())
    assert errors[1] < errors[0]


def test_quantizing_is_repeatable() -> None:
    again = quantize(network(), seeded_inputs(TINY, 3, 10), Recipe())
    first = quantized(True)
    assert again.tensors == first.tensors and again.layers == first.layers
    for name, array in first.constants.items():
        assert np.array_equal(array, again.constants[name]), name


def test_best_scale_clips_an_outlier_and_keeps_a_plain_range() -> None:
    random = np.random.default_rng(0)
    samples = random.normal(0, 1, 10_000)
    plain = best_scale(samples, Recipe())
    assert plain == 2.0**-5
    outlier = np.append(samples, 40.0)
    assert best_scale(outlier, Recipe()) < best_scale(outlier, Recipe(search=False))


def test_no_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        quantize(network(), [])


@pytest.mark.long
def test_the_command_that_a_shipped_file_names_makes_it(tmp_path: Path) -> None:
    made_by = library.provenance("agc-w16")
    program, *words = str(made_by["command"]).split()
    assert program == "cosim" and cosim(*words, "--out", tmp_path) == 0
    shipped = json.loads((library.DATA / "agc_w16.json").read_text())
    assert json.loads((tmp_path / "agc_w16.json").read_text())["layers"] == shipped["layers"]
    first, second = library.load_graph(tmp_path / "agc_w16"), library.load("agc-w16")
    assert first.tensors == second.tensors
    apart = [np.abs(array.astype(np.int64) - first.constants[name])
             for name, array in second.constants.items()]
    # Float sums differ between processors: what lies near a half may round the other way.
    assert max(item.max(initial=0) for item in apart) <= 1
    assert sum(map(np.count_nonzero, apart)) <= sum(item.size for item in apart) / 10_000


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_balancing_changes_no_output_and_evens_ranges(strength: float) -> None:
    plain = network()
    inputs = seeded_inputs(TINY, 1, 5)[0]
    before = observe(plain, [inputs]).greatest["res1.add"]
    scaled = balance(plain, observe(plain, [inputs]), strength)[0]
    values = [execute_real(item, inputs)["picture"] for item in (plain, scaled)]
    assert np.array_equal(*values)
    after = observe(scaled, [inputs]).greatest["res1.add"]
    assert after.min() / after.max() > before.min() / before.max()
    assert after.max() <= before.max() * 1.42  # the exponent is rounded


@pytest.mark.parametrize("tables", [False, True])
def test_what_was_observed_is_that_of_the_balanced_network(tables: bool) -> None:
    """Divided by powers of two, and not computed anew: to the bit the same."""
    calibration = seeded_inputs(TINY, 2, 5)
    recipe = Recipe(channel_tables=tables)
    scaled, found = equalized(network(), calibration, recipe)
    anew = observe(scaled, calibration)
    assert any((scaled.weights[name] != item).any() for name, item in network().weights.items())
    for name, samples in anew.samples.items():
        assert np.array_equal(found.samples[name], samples), name
        assert np.array_equal(found.greatest[name], anew.greatest[name]), name
    for name, mean in anew.means.items():
        assert np.array_equal(found.means[name], mean), name


def test_channels_of_fixed_tensors_keep_their_factor() -> None:
    groups = channel_groups(network().graph)
    for name in ("source", "small", "hourglass_input", "mask", "occlusion", "final", "picture"):
        assert not groups.free[groups.ids[name]].any(), name
    for name in ("first", "features", "occlude", "res0.norm", "res1.add", "up1", "dec0"):
        assert groups.free[groups.ids[name]].all(), name
    assert np.array_equal(groups.ids["features"], groups.ids["res1.conv2"])
    heads = groups.ids["heads"]
    assert np.array_equal(heads, np.append(groups.ids["dec2"], groups.ids["hourglass_input"]))


def test_frames_become_steps_and_back() -> None:
    frame = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3) * 23
    inputs = frame_inputs(frame, np.zeros((4, 2)), np.full((4, 2), 0.5))
    assert inputs["source"].shape == (3, 2, 2) and inputs["keypoints_driving"].max() == 1 << 13
    back = frame_bytes(inputs["source"])
    assert np.abs(back.astype(int) - frame).max() <= 2
    with pytest.raises(ValueError, match="must be uint8"):
        frame_inputs(frame.astype(float), np.zeros((4, 2)), np.zeros((4, 2)))


@pytest.mark.parametrize("name", ["agc-w16", "agc-w16-multiplier", "agc-w32",
                                  "agc-t32b4"])
def test_shipped_decoders_lost_less_than_a_third_of_a_decibel(name: str) -> None:
    """What the command measured on held-out pairs stays below the bound set beforehand."""
    made_by = library.provenance(name)
    assert 0 <= made_by["float_psnr_db"] - made_by["int8_psnr_db"] <= 0.3


@pytest.mark.long
def test_a_shipped_decoder_still_measures_what_its_file_says() -> None:
    config, decoder = load_agc("w16")
    real = float_network(config, decoder, "agc-w16")
    measured = losses(real, library.load("agc-w16"), clips.test_clips(12, 0, "w16"))
    for key, value in measured.items():
        assert value == pytest.approx(library.provenance("agc-w16")[key], abs=0.02)
