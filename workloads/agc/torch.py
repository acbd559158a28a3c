"""Builds the AGC decoder as a torch module whose steps a quantizer can walk one by one.

It trains nothing and quantizes nothing; weights come from the data folder or stay random.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads.agc.config import (
    FEATURE_FACTOR,
    HEAT_VARIANCE,
    SIZES,
    TRAINED,
    AgcConfig,
    anti_alias,
)
from workloads.weights_torch import fill, load_parts

DATA = Path(__file__).parents[1] / "data"


class ConvUnit(nn.Module):
    """Optional nearest x2, convolution, optional batch norm + ReLU, optional 2x2 average pool.

    The parts are attributes `upsample`, `conv`, `norm`, `relu`, `pool`; an absent one is None.
    """

    def __init__(
        self, entering: int, leaving: int, kernel: int = 3, *, upsample: bool = False,
        norm: bool = True, pool: bool = False,
    ) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest") if upsample else None
        self.conv = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(leaving) if norm else None
        self.relu = nn.ReLU() if norm else None
        self.pool = nn.AvgPool2d(2) if pool else None

    def forward(self, value: Tensor) -> Tensor:
        """Map [N, entering, rows, cols] to [N, leaving, rows * scale, cols * scale]."""
        for step in (self.upsample, self.conv, self.norm, self.relu, self.pool):
            if step is not None:
                value = step(value)
        return value


class ResidualBlock(nn.Module):
    """Pre-activation residual block: norm1 (not foldable), ReLU, conv1, norm2, ReLU, conv2, add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2: nn.Module | None = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        """Keep the shape [N, channels, rows, cols]."""
        inner = self.conv1(self.relu1(self.norm1(value)))
        if self.norm2 is not None:
            inner = self.norm2(inner)
        return value + self.conv2(self.relu2(inner))


class AntiAlias(nn.Module):
    """Depthwise Gaussian, then every n-th sample: the small source of the motion network."""

    kernel: Tensor

    def __init__(self, factor: int = FEATURE_FACTOR) -> None:
        super().__init__()
        self.factor = factor
        sigma, count = anti_alias(factor)
        taps = torch.arange(count, dtype=torch.float64) - count // 2
        line = torch.exp(-(taps**2) / (2 * sigma**2))
        square = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", square.float().expand(3, 1, -1, -1).clone(), False)

    def forward(self, source: Tensor) -> Tensor:
        """Map [N, 3, rows, cols] to [N, 3, rows / n, cols / n], zeros outside the frame."""
        half = self.kernel.shape[-1] // 2
        return functional.conv2d(source, self.kernel, stride=self.factor, padding=half, groups=3)


class GridSample(nn.Module):
    """Bilinear sampling at positions in pixels of the sampled map, zero outside it."""

    def forward(self, value: Tensor, positions: Tensor) -> Tensor:
        """Sample [N, C, rows, cols] at [N, out_rows, out_cols, 2] (column, row) positions.

        A whole-number position returns the pixel itself.
        """
        rows, cols = value.shape[-2:]
        scale = positions.new_tensor([2.0 / (cols - 1), 2.0 / (rows - 1)])
        return functional.grid_sample(
            value, positions * scale - 1, mode="bilinear", padding_mode="zeros", align_corners=True
        )


class HeatMaps(nn.Module):
    """Difference of driving and source Gaussians per keypoint, behind an all-zero background."""

    row_axis: Tensor
    col_axis: Tensor

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.register_buffer("row_axis", torch.linspace(-1, 1, rows), False)
        self.register_buffer("col_axis", torch.linspace(-1, 1, cols), False)

    def gaussian(self, points: Tensor) -> Tensor:
        """Map [N, K, 2] points (x, y in -1..1) to [N, K, rows, cols] maps with peak 1."""
        col = torch.exp(-((self.col_axis - points[..., 0:1]) ** 2) / (2 * HEAT_VARIANCE))
        row = torch.exp(-((self.row_axis - points[..., 1:2]) ** 2) / (2 * HEAT_VARIANCE))
        return row[..., :, None] * col[..., None, :]

    def forward(self, source_points: Tensor, driving_points: Tensor) -> Tensor:
        """Return [N, K+1, rows, cols]: zeros, then driving minus source for each keypoint."""
        maps = self.gaussian(driving_points) - self.gaussian(source_points)
        return torch.cat([torch.zeros_like(maps[:, :1]), maps], dim=1)


def own_places(rows: int, cols: int) -> Tensor:
    """[rows, cols, 2]: the (column, row) of every pixel."""
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    return torch.stack([col, row], dim=-1).float()


class AgcSource(nn.Module):
    """The part that runs once per group of pictures, on the source frame alone."""

    def __init__(self, config: AgcConfig) -> None:
        super().__init__()
        width = config.width
        self.anti_alias = AntiAlias(config.motion_factor)
        self.first = ConvUnit(3, width, 7)
        self.down0 = ConvUnit(width, 2 * width, pool=True)
        self.down1 = ConvUnit(2 * width, config.feature_channels, pool=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, 3, r, c] in 0..1 to features [N, trunk, r/4, c/4] and the small source."""
        small = self.anti_alias(source)
        features = self.down1(self.down0(self.first(source)))
        return features, small


class AgcFrame(nn.Module):
    """The part that runs for each inter frame."""

    identity: Tensor
    small_identity: Tensor

    def __init__(self, config: AgcConfig) -> None:
        super().__init__()
        levels, coarse = config.motion_blocks, config.coarse_motion
        self.config = config
        self.heat_maps = HeatMaps(config.motion_rows, config.motion_cols)
        self.warp_source = GridSample()
        deep = config.motion_channels
        self.encoder = nn.ModuleList(
            ConvUnit(
                config.hourglass_channels if level == 0 else deep(level), deep(level + 1), pool=True
            )
            for level in range(levels)
        )
        self.decoder = nn.ModuleList(
            ConvUnit(
                deep(level + 1) * (1 if level == levels - 1 else 2), deep(level), upsample=True
            )
            for level in reversed(range(levels))
        )
        heads, kernel = config.head_channels, config.head_kernel
        self.mask = ConvUnit(heads, config.keypoints + 1, kernel, upsample=coarse, norm=False)
        self.mask_softmax = nn.Softmax(dim=1)
        self.occlusion = ConvUnit(heads, 1, kernel, upsample=coarse, norm=False)
        self.occlusion_sigmoid = nn.Sigmoid()
        self.warp_features = GridSample()
        self.residual = nn.ModuleList(
            ResidualBlock(config.feature_channels) for _ in range(config.blocks)
        )
        self.up0 = ConvUnit(config.feature_channels, config.half_channels, upsample=True)
        self.up1 = ConvUnit(config.half_channels, config.full_channels, upsample=True)
        self.final = ConvUnit(config.full_channels, 3, config.final_kernel, norm=False)
        self.final_sigmoid = nn.Sigmoid()
        self.register_buffer(
            "identity", own_places(config.feature_rows, config.feature_cols), False)
        self.register_buffer(
            "small_identity", own_places(config.motion_rows, config.motion_cols), False)

    @staticmethod
    def displacements(source_points: Tensor, driving_points: Tensor, places: Tensor) -> Tensor:
        """Return d_k = source - driving in pixels of a map of `places`, [N, K, 2] as (column, row).
        """
        rows, cols = places.shape[:2]
        scale = source_points.new_tensor([(cols - 1) / 2, (rows - 1) / 2])
        return (source_points - driving_points) * scale

    def hourglass_input(
        self, small: Tensor, source_points: Tensor, driving_points: Tensor
    ) -> Tensor:
        """Return [N, 4(K+1), r, c]: K+1 heat maps, the small source, its K warped copies."""
        batch, keypoints = driving_points.shape[:2]
        heat = self.heat_maps(source_points, driving_points)
        shift = self.displacements(source_points, driving_points, self.small_identity)
        positions = self.small_identity + shift[:, :, None, None, :]
        copies = small[:, None].expand(-1, keypoints, -1, -1, -1)
        warped = self.warp_source(copies.flatten(0, 1), positions.flatten(0, 1))
        warped = warped.reshape(batch, 3 * keypoints, *warped.shape[-2:])
        return torch.cat([heat, small, warped], dim=1)

    def hourglass(self, value: Tensor) -> Tensor:
        """Map [N, 4(K+1), r, c] of the small source's size to [N, motion_width + 4(K+1), r, c]."""
        skips = [value]
        for unit in self.encoder:
            skips.append(unit(skips[-1]))
        value = skips.pop()
        for unit in self.decoder:
            value = torch.cat([unit(value), skips.pop()], dim=1)
        return value

    def flow(self, masks: Tensor, source_points: Tensor, driving_points: Tensor) -> Tensor:
        """Return positions [N, r, c, 2] = z + sum_k mask_k(z) * d_k; the background's d is 0."""
        shift = self.displacements(source_points, driving_points, self.identity)
        moved = masks[:, 1:, :, :, None] * shift[:, :, None, None, :]
        return self.identity + moved.sum(dim=1)

    def motion(
        self, small: Tensor, source_points: Tensor, driving_points: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return masks [N, K+1, r, c], occlusion [N, 1, r, c] and positions [N, r, c, 2]."""
        heads = self.hourglass(self.hourglass_input(small, source_points, driving_points))
        masks = self.mask_softmax(self.mask(heads))
        occlusion = self.occlusion_sigmoid(self.occlusion(heads))
        return masks, occlusion, self.flow(masks, source_points, driving_points)

    def generate(self, features: Tensor, occlusion: Tensor, positions: Tensor) -> Tensor:
        """Warp, occlude and decode [N, trunk, r/4, c/4] features to a [N, 3, r, c] picture."""
        value = self.warp_features(features, positions)
        value = value * occlusion
        for block in self.residual:
            value = block(value)
        value = self.up1(self.up0(value))
        return self.final_sigmoid(self.final(value))

    def forward(
        self, features: Tensor, small: Tensor, source_points: Tensor, driving_points: Tensor
    ) -> Tensor:
        """Return the picture [N, 3, rows, cols] in 0..1.

        `features`, `small`: from AgcSource. Points: [N, K, 2] as (x, y), -1..1 across the frame.
        """
        _, occlusion, positions = self.motion(small, source_points, driving_points)
        return self.generate(features, occlusion, positions)


class AgcDecoder(nn.Module):
    """Both parts: `source` once per group of pictures, `frame` for each inter frame."""

    def __init__(self, config: AgcConfig) -> None:
        super().__init__()
        self.config = config
        self.source = AgcSource(config)
        self.frame = AgcFrame(config)

    def forward(self, source: Tensor, source_points: Tensor, driving_points: Tensor) -> Tensor:
        """Map a source frame [N, 3, rows, cols] and keypoints [N, K, 2] to the driven frame."""
        features, small = self.source(source)
        return self.frame(features, small, source_points, driving_points)

    def convs(self) -> dict[str, nn.Conv2d]:
        """Return the convolutions under the names and in the order of `conv_table`."""
        found = {name: getattr(self.source, name).conv for name in ("first", "down0", "down1")}
        frame = self.frame
        found |= {f"enc{index}": unit.conv for index, unit in enumerate(frame.encoder)}
        found |= {f"dec{index}": unit.conv for index, unit in enumerate(frame.decoder)}
        found |= {name: getattr(frame, name).conv for name in ("mask", "occlusion")}
        for index, block in enumerate(frame.residual):
            found[f"res{index}.conv1"], found[f"res{index}.conv2"] = block.conv1, block.conv2
        return found | {name: getattr(frame, name).conv for name in ("up0", "up1", "final")}


def fold_norm(conv: nn.Conv2d, norm: nn.Module | None) -> None:
    """Multiply a batch norm that follows a convolution into its weights and bias, in place."""
    assert isinstance(norm, nn.BatchNorm2d) and conv.bias is not None
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        conv.weight.mul_(scale[:, None, None, None])
        conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)


def folded(decoder: AgcDecoder) -> AgcDecoder:
    """Return an eval-mode copy whose 21 foldable batch norms are gone (`norm`, `norm2` = None).

    The `norm1` of each residual block stays: the skip path needs its un-normalized input.
    """
    result = copy.deepcopy(decoder).eval()
    for module in result.modules():
        if isinstance(module, ConvUnit) and module.norm is not None:
            fold_norm(module.conv, module.norm)
            module.norm = None
        if isinstance(module, ResidualBlock) and module.norm2 is not None:
            fold_norm(module.conv1, module.norm2)
            module.norm2 = None
    return result


def build_agc(config: AgcConfig, seed: int = 0) -> AgcDecoder:
    """Return an untrained eval-mode decoder with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AgcDecoder(config).eval()


def load_agc(name: str) -> tuple[AgcConfig, AgcDecoder]:
    """Return the trained decoder of that short name in `TRAINED`, in eval mode and float32.

    Raises ValueError for another name.
    """
    if name not in TRAINED:
        raise ValueError(f"no trained AGC decoder {name!r}; choose from {sorted(TRAINED)}")
    config = SIZES[name]
    decoder = AgcDecoder(config)
    fill(decoder, load_parts(DATA / f"agc_{name}_float.safetensors"), "decoder")
    return config, decoder.eval()
