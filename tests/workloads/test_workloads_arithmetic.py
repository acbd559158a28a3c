"""Checks the rounding rule and the fixed-point forms against exact fractions and torch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workloads import arithmetic
from workloads.agc.config import HEAT_VARIANCE
from workloads.agc.torch import GridSample, HeatMaps


@settings(max_examples=500, deadline=None)
@given(st.integers(-(2**46), 2**46), st.integers(0, arithmetic.MAX_SHIFT))
def test_round_shift_is_half_to_even(value: int, shift: int) -> None:
    """Python rounds a fraction half to even."""
    assert int(arithmetic.round_shift(value, shift)) == round(Fraction(value, 2**shift))


@settings(max_examples=300, deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 2**15 - 1),
       st.integers(0, arithmetic.MAX_SHIFT), st.sampled_from([8, 16]))
def test_requantize_saturates_the_exact_value(
    value: int, multiplier: int, shift: int, bits: int
) -> None:
    least, greatest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    exact = round(Fraction(value * multiplier, 2**shift))
    found = arithmetic.requantize(np.array([value]), multiplier, shift, bits)
    assert int(found[0]) == min(max(exact, least), greatest)
    assert found.dtype == np.dtype(f"int{bits}")


@pytest.mark.parametrize("shift", [-1, arithmetic.MAX_SHIFT + 1])
def test_a_shift_out_of_range_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match="shift"):
        arithmetic.round_shift(np.array([1]), shift)


@settings(max_examples=300, deadline=None)
@given(st.floats(2.0**-30, 2.0**14))
def test_multiplier_and_shift_hold_a_ratio(ratio: float) -> None:
    """15 bits give a relative error below 2 ** -14; a power of two is within a factor sqrt 2."""
    multiplier, shift = arithmetic.multiplier_and_shift(ratio, power_of_two=False)
    assert 0 < multiplier < 2**15 and 0 <= shift <= arithmetic.MAX_SHIFT
    held = multiplier / 2**shift
    assert abs(held - ratio) <= max(ratio * 2.0**-15, 0.5 / 2**shift)
    multiplier, shift = arithmetic.multiplier_and_shift(ratio, power_of_two=True)
    assert multiplier == 1 or shift == 0
    assert 0.7 < multiplier / 2**shift / ratio < 1.42


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 32), st.sampled_from([2.0**-6, 2.0**-4, 0.1, 0.5]), st.integers(0, 2**32))
def test_softmax_is_within_its_bound(channels: int, scale: float, seed: int) -> None:
    """Half a step of rounding and the error of a 15-bit exp: below 0.52 of a step.

    A probability above 127.5 / 128 saturates, which costs up to one step.
    """
    random = np.random.default_rng(seed)
    logits = random.integers(-128, 128, (channels, 4, 4)).astype(np.int8)
    found = arithmetic.softmax(logits, arithmetic.exp_table(scale)) / 128
    real = functional.softmax(torch.from_numpy(logits.astype(np.float64)) * scale, 0).numpy()
    limit = np.where(real > 127.4 / 128, 1.0, 0.52) / 128
    assert (np.abs(found - real) <= limit).all()


def test_sigmoid_and_silu_tables_are_rounded_values() -> None:
    values = torch.arange(-128, 128, dtype=torch.float64) / 16
    sigmoid = arithmetic.lookup_table(arithmetic.sigmoid, 1 / 16, 1 / 128) / 128
    exact = torch.sigmoid(values).numpy()
    assert (np.abs(sigmoid - exact) <= np.where(exact > 127.4 / 128, 1, 0.5) / 128 + 1e-12).all()
    silu = arithmetic.lookup_table(arithmetic.silu, 1 / 16, 1 / 8) / 8
    assert np.abs(silu - functional.silu(values).numpy()).max() <= 0.5 / 8


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(2, 9), st.integers(4, 7))
def test_bilinear_agrees_with_torch(seed: int, rows: int, columns: int, digits: int) -> None:
    """On positions that the grid holds exactly, only the last rounding differs: half a step."""
    random = np.random.default_rng(seed)
    image = random.integers(-128, 128, (3, rows, columns)).astype(np.int8)
    reach = np.array([columns, rows]).reshape(2, 1, 1) << digits
    grid = random.integers(-reach, 2 * reach, (2, 5, 6)).astype(np.int16)
    found = arithmetic.bilinear(image, grid, digits)
    positions = torch.from_numpy(grid.astype(np.float64) / 2**digits).permute(1, 2, 0)[None]
    real = GridSample()(torch.from_numpy(image).double()[None], positions)[0].numpy()
    assert np.abs(found - real).max() <= 0.5 + 1e-6


def test_whole_positions_return_the_pixel_and_zero_outside() -> None:
    image = np.arange(-12, 12).reshape(2, 3, 4).astype(np.int8)
    grid = arithmetic.identity_grid(3, 4, 7).astype(np.int16)
    assert np.array_equal(arithmetic.bilinear(image, grid, 7), image)
    far = grid + np.array([4 << 7, 0], np.int16).reshape(2, 1, 1)
    assert not arithmetic.bilinear(image, far, 7).any()


def test_heat_maps_are_near_the_float_ones() -> None:
    """Table steps and 14-bit keypoints cost less than half a step more than rounding."""
    random = np.random.default_rng(3)
    points = random.uniform(-0.9, 0.9, (2, 10, 2))
    source, driving = (arithmetic.fixed_keypoints(item) for item in points)
    found = arithmetic.heat_maps(
        source, driving, arithmetic.gaussian_table(HEAT_VARIANCE),
        arithmetic.axis_coordinates(64), arithmetic.axis_coordinates(48))
    held = [torch.from_numpy(item[:, :, 0].T / 2.0**14).double()[None]
            for item in (source, driving)]
    real = HeatMaps(64, 48).double()(*held)[0].numpy()
    limit = np.where(np.abs(real) > 127 / 128, 1.5, 1.0) / 128
    assert (np.abs(found / 128 - real) <= limit).all()
    assert not found[0].any()


def test_flows_are_near_the_float_ones() -> None:
    """Displacements cost half a grid step, the mask sum another half."""
    random = np.random.default_rng(4)
    points = random.uniform(-1, 1, (2, 10, 2))
    source, driving = (arithmetic.fixed_keypoints(item) for item in points)
    shift = arithmetic.displacements(source, driving, 64, 48, 7)
    pixels = (source - driving.astype(np.int64))[:, :, 0] / 2.0**14 * [[47 / 2], [63 / 2]]
    assert np.abs(shift[:, 1:, 0] / 128 - pixels).max() <= 0.5 / 128
    grids = arithmetic.sparse_flow(shift, 64, 48, 7).reshape(11, 2, 64, 48)
    assert np.array_equal(grids[0], arithmetic.identity_grid(64, 48, 7))
    assert np.array_equal(grids[3] - grids[0], np.broadcast_to(shift[:, 3, :, None], (2, 64, 48)))
    masks = random.integers(0, 12, (11, 64, 48)).astype(np.int8)
    flow = arithmetic.flow_sum(masks, shift, 7) / 128
    row, column = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    real = np.stack([column, row]) + np.einsum(
        "krc,pk->prc", masks / 128, shift[:, :, 0] / 128)
    assert np.abs(flow - real).max() <= 0.5 / 128 + 1e-9


def test_keypoints_are_read_as_half_precision() -> None:
    points = np.array([[0.3333, -1.0], [1.0, 0.00001]])
    found = arithmetic.fixed_keypoints(points)
    half = np.float16(0.3333)
    assert found.shape == (2, 2, 1)
    assert found[0, 0, 0] == round(float(half) * 2**14) and found[1, 0, 0] == -(2**14)
    with pytest.raises(ValueError, match="finite"):
        arithmetic.fixed_keypoints(np.array([[np.nan, 0.0]]))
