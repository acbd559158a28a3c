"""Makes a smaller AGC decoder of a trained one: whole channels, blocks and levels are left out.

It trains nothing. What is left starts far better than random weights and needs fine-tuning
(`train --start`).

A channel's worth is the sum of the magnitudes of all weights that read it, times the scale of the
norm that makes it, so a cut keeps what the next layers listen to (the L1 rule of Li et al.,
"Pruning filters for efficient convnets", 2017, on the reading side).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workloads.agc.config import AgcConfig
from workloads.agc.torch import AgcDecoder, ConvUnit, ResidualBlock

#: Channels of a tensor that stay, in order.
Kept = Tensor


@dataclass
class _Reader:
    """Where a convolution reads a tensor: its weights, and the first of its input channels."""

    conv: nn.Conv2d
    first: int = 0


def pruned(decoder: AgcDecoder, config: AgcConfig) -> AgcDecoder:
    """The trained decoder cut down to `config`, in training mode.

    `ValueError` if the new one is larger anywhere, or has other keypoints or another frame.
    """
    old = decoder.config
    for name in ("keypoints", "rows", "cols"):
        if getattr(old, name) != getattr(config, name):
            raise ValueError(f"{name} is {getattr(config, name)}, must stay {getattr(old, name)}")
    for name in ("width", "blocks", "motion_width", "motion_max", "motion_blocks",
                 "feature_channels", "half_channels", "full_channels", "head_kernel",
                 "final_kernel"):
        if getattr(config, name) > getattr(old, name):
            raise ValueError(f"{name} is {getattr(config, name)}, must be at most "
                             f"{getattr(old, name)}, as in the decoder that is cut")
    found = AgcDecoder(config)
    with torch.no_grad():
        _cut_generator(decoder, found)
        _cut_motion(decoder, found)
    return found


def _best(readers: list[_Reader], scale: Tensor, count: int) -> Kept:
    """The `count` channels of most worth, in order; `scale`: of the norm that makes each."""
    size = len(scale)
    worth = torch.stack([
        item.conv.weight[:, item.first: item.first + size].abs().sum(dim=(0, 2, 3))
        for item in readers]).sum(0) * scale.abs()
    return worth.topk(count).indices.sort().values


def _all(count: int) -> Kept:
    return torch.arange(count)


def _copy_conv(old: nn.Conv2d, new: nn.Conv2d, entering: Kept, leaving: Kept) -> None:
    """The weights of those channels; of a larger kernel the middle."""
    edge = (old.kernel_size[0] - new.kernel_size[0]) // 2
    size = new.kernel_size[0]
    weights = old.weight[leaving][:, entering, edge: edge + size, edge: edge + size]
    new.weight.copy_(weights)
    assert old.bias is not None and new.bias is not None
    new.bias.copy_(old.bias[leaving])


def _copy_norm(old: nn.Module | None, new: nn.Module | None, kept: Kept) -> None:
    assert isinstance(old, nn.BatchNorm2d) and isinstance(new, nn.BatchNorm2d)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(new, name).copy_(getattr(old, name)[kept])


def _copy_unit(old: ConvUnit, new: ConvUnit, entering: Kept, leaving: Kept) -> None:
    _copy_conv(old.conv, new.conv, entering, leaving)
    if new.norm is not None:
        _copy_norm(old.norm, new.norm, leaving)


def _units(found: nn.ModuleList) -> list[ConvUnit]:
    return [unit for unit in found if isinstance(unit, ConvUnit)]


def _blocks(found: nn.ModuleList) -> list[ResidualBlock]:
    return [block for block in found if isinstance(block, ResidualBlock)]


def _norm_scale(unit: ConvUnit) -> Tensor:
    assert isinstance(unit.norm, nn.BatchNorm2d)
    return unit.norm.weight


def _cut_generator(old: AgcDecoder, new: AgcDecoder) -> None:
    """Source branch, residual blocks and the way up to the picture."""
    config, before, after = new.config, old.frame, new.frame
    blocks = list(zip(_blocks(before.residual), _blocks(after.residual), strict=False))
    first = _best([_Reader(old.source.down0.conv)], _norm_scale(old.source.first), config.width)
    down = _best([_Reader(old.source.down1.conv)], _norm_scale(old.source.down0),
                 2 * config.width)
    trunk = _best([_Reader(before.up0.conv), *(_Reader(one.conv1) for one, _ in blocks)],
                  _norm_scale(old.source.down1), config.feature_channels)
    half = _best([_Reader(before.up1.conv)], _norm_scale(before.up0), config.half_channels)
    full = _best([_Reader(before.final.conv)], _norm_scale(before.up1), config.full_channels)
    _copy_unit(old.source.first, new.source.first, _all(3), first)
    _copy_unit(old.source.down0, new.source.down0, first, down)
    _copy_unit(old.source.down1, new.source.down1, down, trunk)
    for one, other in blocks:
        inner_norm = one.norm2
        assert isinstance(inner_norm, nn.BatchNorm2d)
        inner = _best([_Reader(one.conv2)], inner_norm.weight, len(trunk))
        _copy_norm(one.norm1, other.norm1, trunk)
        _copy_conv(one.conv1, other.conv1, trunk, inner)
        _copy_norm(inner_norm, other.norm2, inner)
        _copy_conv(one.conv2, other.conv2, inner, trunk)
    _copy_unit(before.up0, after.up0, trunk, half)
    _copy_unit(before.up1, after.up1, half, full)
    _copy_unit(before.final, after.final, full, _all(3))


def _cut_motion(old: AgcDecoder, new: AgcDecoder) -> None:
    """The hourglass, whose innermost levels go first, and both heads."""
    config, wide = new.config, old.config
    before, after, levels = old.frame, new.frame, config.motion_blocks
    down, new_down = _units(before.encoder), _units(after.encoder)
    up, new_up = _units(before.decoder), _units(after.decoder)
    lower = up[wide.motion_blocks - levels:]  # the decoder of each kept level
    heads = [before.mask.conv, before.occlusion.conv]
    # A decoder reads the one below it and then the encoder's skip; the innermost the skip alone.
    skip = [0 if step == 0 and levels == wide.motion_blocks else
            wide.motion_channels(levels - step) for step in range(levels)]
    encoded = [_all(config.hourglass_channels)]
    for level in range(1, levels + 1):
        step = levels - level
        readers = [_Reader(lower[step].conv, skip[step])]
        if level < levels:
            readers.append(_Reader(down[level].conv))
        unit = down[level - 1]
        encoded.append(_best(readers, _norm_scale(unit), config.motion_channels(level)))
        _copy_unit(unit, new_down[level - 1], encoded[level - 1], encoded[level])
    below = torch.zeros(0, dtype=torch.long)
    for step in range(levels):
        level = levels - 1 - step
        entering = torch.cat([below, skip[step] + encoded[level + 1]])
        readers = ([_Reader(conv) for conv in heads] if level == 0
                   else [_Reader(lower[step + 1].conv)])
        kept = _best(readers, _norm_scale(lower[step]), config.motion_channels(level))
        _copy_unit(lower[step], new_up[step], entering, kept)
        below = kept
    entering = torch.cat([below, wide.motion_channels(0) + _all(config.hourglass_channels)])
    for name in ("mask", "occlusion"):
        one, other = getattr(before, name), getattr(after, name)
        _copy_unit(one, other, entering, _all(other.conv.out_channels))
