"""Checks the AGC decoder's shapes, totals and arithmetic against the published layer table.

It does not judge pictures; that is the quality study's work.
"""

from __future__ import annotations

import pytest
import torch

from workloads.agc.config import AgcConfig, conv_macs, conv_table, folded_parameters
from workloads.agc.torch import AgcDecoder, AntiAlias, GridSample, build_agc, folded

TINY = AgcConfig(
    width=4, blocks=2, motion_width=4, motion_max=16, motion_blocks=3, keypoints=3,
    rows=64, cols=96,
)


def tiny_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a random source frame and two sets of keypoints for TINY."""
    generator = torch.Generator().manual_seed(5)
    source = torch.rand(2, 3, TINY.rows, TINY.cols, generator=generator)
    points = torch.rand(2, 2, TINY.keypoints, 2, generator=generator) - 0.5
    return source, points[0], points[1]


def test_full_width_totals() -> None:
    """The totals are those computed from the public reference modules."""
    config = AgcConfig()
    assert len(conv_table(config)) == 30
    assert round(conv_macs(config) / 1e6) == 53_643
    assert round(conv_macs(config, "frame") / 1e6) == 43_363
    assert conv_macs(config, "source") + conv_macs(config, "frame") == conv_macs(config)
    assert folded_parameters(config) == 45_558_111


@pytest.mark.parametrize(
    ("sizes", "giga", "giga_frame"),
    [((64, 3, 64, 1024, 5), 39.15, 28.87), ((32, 6, 32, 512, 5), 13.89, 11.17),
     ((32, 4, 32, 256, 4), 11.25, 8.52), ((16, 6, 16, 256, 5), 3.75, 2.99),
     ((16, 3, 16, 256, 4), 2.81, 2.05)],
)
def test_variant_totals(sizes: tuple[int, ...], giga: float, giga_frame: float) -> None:
    """Narrow and shallow variants cost what the table of variants says."""
    config = AgcConfig(*sizes)
    assert conv_macs(config) / 1e9 == pytest.approx(giga, abs=0.006)
    assert conv_macs(config, "frame") / 1e9 == pytest.approx(giga_frame, abs=0.006)


@pytest.mark.parametrize("config", [AgcConfig(), TINY], ids=["full", "tiny"])
def test_module_agrees_with_table(config: AgcConfig) -> None:
    """The torch module has exactly the table's convolutions, and as many folded parameters."""
    with torch.device("meta"):
        decoder = AgcDecoder(config)
    convs = decoder.convs()
    table = conv_table(config)
    assert list(convs) == [shape.name for shape in table]
    for shape in table:
        conv = convs[shape.name]
        size = (conv.in_channels, conv.out_channels, *conv.kernel_size)
        assert size == (shape.in_channels, shape.out_channels, shape.kernel, shape.kernel)
    every = [module for module in decoder.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(every) == len(table)
    count = sum(value.numel() for conv in every for value in conv.parameters())
    assert count == folded_parameters(config)


def test_convs_run_at_the_tabled_sizes() -> None:
    """Hooks on a real run see the output sizes that the MAC count assumes."""
    decoder = build_agc(TINY)
    seen: dict[str, tuple[int, int]] = {}
    for name, conv in decoder.convs().items():
        conv.register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output.shape[-2:]})
        )
    assert decoder(*tiny_inputs()).shape == (2, 3, TINY.rows, TINY.cols)
    assert seen == {shape.name: (shape.rows, shape.cols) for shape in conv_table(TINY)}


def test_folding_keeps_the_output() -> None:
    """Folding removes 15 + 6 batch norms (here 9 + 2 + 2) and changes only rounding."""
    decoder = build_agc(TINY)
    generator = torch.Generator().manual_seed(9)
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                value.data = torch.rand(value.shape, generator=generator) + 0.5
    small = folded(decoder)
    left = [module for module in small.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(left) == TINY.blocks
    count = sum(value.numel() for value in small.parameters())
    assert count == folded_parameters(TINY) + TINY.blocks * 2 * TINY.feature_channels
    inputs = tiny_inputs()
    with torch.no_grad():
        torch.testing.assert_close(small(*inputs), decoder(*inputs), atol=2e-5, rtol=1e-4)


def test_grid_sample_positions_are_pixels() -> None:
    """Whole positions copy, halves average, and outside is zero."""
    value = torch.arange(12.0).reshape(1, 1, 3, 4)
    row, col = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    identity = torch.stack([col, row], dim=-1)[None]
    torch.testing.assert_close(GridSample()(value, identity), value)
    shifted = GridSample()(value, identity + torch.tensor([0.5, 1.0]))
    assert shifted[0, 0, 0].tolist() == pytest.approx([4.5, 5.5, 6.5, 3.5])
    assert shifted[0, 0, 2].tolist() == [0, 0, 0, 0]


def test_flow_is_the_mask_weighted_sum_of_grids() -> None:
    """Identity plus weighted displacements equals the weighted sum of the K+1 grids."""
    frame = build_agc(TINY).frame
    _, first, second = tiny_inputs()
    masks = torch.softmax(torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(1)), 1)
    shift = frame.displacements(first, second, frame.identity)
    grids = torch.cat([frame.identity.expand(2, 1, -1, -1, -1),
                       frame.identity + shift[:, :, None, None, :]], dim=1)
    expected = (masks[..., None] * grids).sum(1)
    torch.testing.assert_close(frame.flow(masks, first, second), expected, atol=1e-4, rtol=1e-5)


def test_equal_keypoints_mean_no_motion() -> None:
    """With the source's own keypoints the heat maps are zero and every copy is the source."""
    frame = build_agc(TINY).frame
    source, points, _ = tiny_inputs()
    small = AntiAlias()(source)
    value = frame.hourglass_input(small, points, points)
    assert value.shape[1] == TINY.hourglass_channels
    assert not value[:, :4].any()
    for copy in range(4):
        found = value[:, 4 + 3 * copy : 7 + 3 * copy]
        torch.testing.assert_close(found, small, atol=1e-5, rtol=1e-4)


def test_a_frame_that_does_not_divide_is_refused() -> None:
    """The message names the size that the hourglass needs."""
    with pytest.raises(ValueError, match="divide by 128"):
        AgcConfig(rows=240)
