"""Checks that cutting a trained AGC decoder keeps what the cut promises to keep.

It trains nothing: whether a cut decoder is worth anything is measured in docs/training.md.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workloads.agc.config import SIZES, AgcConfig
from workloads.agc.torch import AgcDecoder
from workloads.training.agc.prune import pruned
from workloads.training.agc.quantize import lively_agc, seeded_inputs

WIDE = AgcConfig(width=8, blocks=2, motion_width=8, motion_max=32, motion_blocks=3, keypoints=4,
                 rows=64, cols=96)


def picture(decoder: AgcDecoder) -> torch.Tensor:
    """The decoder's answer to one seeded input, as inference gives it."""
    given = seeded_inputs(decoder.config, 1, 5)[0]
    points = [torch.from_numpy(given[name])[None, :, :, 0].transpose(1, 2)
              for name in ("keypoints_source", "keypoints_driving")]
    with torch.no_grad():
        return decoder.eval()(torch.from_numpy(given["source"])[None], *points)


def test_a_cut_to_the_same_size_changes_nothing() -> None:
    decoder = lively_agc(WIDE, 3)
    assert torch.equal(picture(pruned(decoder, WIDE)), picture(decoder))


def test_channels_that_nothing_reads_go_first() -> None:
    """Three of 32 trunk, 16 half and 8 full channels are unread; without them nothing changes."""
    decoder = lively_agc(WIDE, 3)
    frame = decoder.frame
    with torch.no_grad():
        unread = [0, 7, 20]
        for conv in (frame.up0.conv, *(block.conv1 for block in frame.residual)):
            conv.weight[:, unread] = 0
        frame.up1.conv.weight[:, [1, 2, 9]] = 0
        frame.final.conv.weight[:, [0, 3, 7]] = 0
    # Inside a block all channels stay in the wide decoder; here none may be needed either.
    with torch.no_grad():
        for block in frame.residual:
            block.conv2.weight[:, unread] = 0
    small = pruned(decoder, replace(WIDE, trunk=29, half=13, full=5))
    assert torch.allclose(picture(small), picture(decoder), atol=1e-5)


def test_motion_channels_that_nothing_reads_go_first() -> None:
    """The innermost level loses half of its channels, which its one reader ignores."""
    wide = replace(WIDE, motion_max=64)
    decoder = lively_agc(wide, 3)
    with torch.no_grad():
        decoder.frame.decoder[0].conv.weight[:, ::2] = 0
    assert wide.motion_channels(3) == 64
    small = pruned(decoder, replace(wide, motion_max=32))
    assert torch.allclose(picture(small), picture(decoder), atol=1e-5)


def test_the_last_blocks_go_and_the_middle_of_a_kernel_stays() -> None:
    decoder = lively_agc(WIDE, 3)
    with torch.no_grad():
        decoder.frame.residual[1].conv2.weight.zero_()
        decoder.frame.residual[1].conv2.bias.zero_()
        edge = torch.ones(7, 7)
        edge[2:5, 2:5] = 0
        decoder.frame.final.conv.weight[..., edge.bool()] = 0
    small = pruned(decoder, replace(WIDE, blocks=1, final_kernel=3))
    assert torch.allclose(picture(small), picture(decoder), atol=1e-5)


def test_the_sizes_that_are_trained_can_be_cut_from_width_16() -> None:
    wide = AgcDecoder(SIZES["w16"])
    for name in ("t48b3", "t32b4", "t32b3"):
        assert picture(pruned(wide, SIZES[name])).shape == (1, 3, 256, 256)


@pytest.mark.parametrize(("field", "value"), [
    ("trunk", 64), ("blocks", 3), ("keypoints", 5), ("motion_width", 16), ("motion_max", 64)])
def test_a_cut_never_adds(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="must"):
        pruned(AgcDecoder(WIDE), replace(WIDE, **{field: value}))
