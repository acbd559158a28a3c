"""What training makes small: pyramids, structure, random features, keypoint equivariance.

It holds no trained network: the feature net is seeded and stays random. `metrics` has the measures
that are reported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RandomFeatures(nn.Module):
    """A VGG-like stack with seeded orthogonal weights, in place of a downloaded perceptual net.

    Random filters followed by ReLU still tell textures and edges apart, only less well than
    trained ones do.
    """

    def __init__(self, seed: int = 11, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layers, before = [], 3
        for width in widths:
            conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
            with torch.no_grad():
                conv.weight.normal_(0, (2 / (9 * before)) ** 0.5, generator=generator)
                # Zero-mean filters answer to structure, not to brightness.
                conv.weight.sub_(conv.weight.mean(dim=(1, 2, 3), keepdim=True))
            layers.append(conv)
            before = width
        self.layers = nn.ModuleList(layers)
        self.requires_grad_(False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Return one feature map per scale of [N, 3, rows, cols]."""
        found, value = [], picture - 0.5
        for index, layer in enumerate(self.layers):
            value = functional.relu(layer(value))
            found.append(value)
            if index + 1 < len(self.layers):
                value = functional.avg_pool2d(value, 2)
        return found


def feature_loss(net: RandomFeatures, found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute feature difference, each scale relative to its own size."""
    with torch.no_grad():
        targets = net(wanted)
    total = found.new_zeros(())
    for one, other in zip(net(found), targets, strict=True):
        total = total + (one - other).abs().mean() / other.abs().mean().clamp(min=1e-4)
    return total


def pyramid_loss(found: Tensor, wanted: Tensor, scales: int = 4) -> Tensor:
    """Return the mean absolute difference summed over `scales` halvings."""
    total = found.new_zeros(())
    for scale in range(scales):
        if scale:
            found, wanted = functional.avg_pool2d(found, 2), functional.avg_pool2d(wanted, 2)
        total = total + (found - wanted).abs().mean()
    return total


def structure_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - SSIM with 8x8 uniform windows at stride 4."""

    def mean(value: Tensor) -> Tensor:
        return functional.avg_pool2d(value, 8, stride=4)

    first, second = mean(found), mean(wanted)
    variance = mean(found**2) + mean(wanted**2) - first**2 - second**2
    shared = mean(found * wanted) - first * second
    ssim = (2 * first * second + 1e-4) * (2 * shared + 9e-4)
    return 1 - (ssim / ((first**2 + second**2 + 1e-4) * (variance + 9e-4))).mean()


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the PSNR in dB of each picture of [N, 3, rows, cols] in 0..1."""
    return -10 * torch.log10(((found - wanted) ** 2).mean(dim=(1, 2, 3)))


class RandomWarp:
    """A random affine plus thin-plate warp per frame (FOMM's equivariance transform)."""

    def __init__(self, count: int, device: torch.device, affine: float = 0.05) -> None:
        noise = torch.randn(count, 2, 3, device=device) * affine
        self.theta = noise + torch.eye(2, 3, device=device)
        axis = torch.linspace(-1, 1, 5, device=device)
        self.knots = torch.cartesian_prod(axis, axis)
        self.bend = torch.randn(count, 1, 25, device=device) * 0.005

    def points(self, where: Tensor) -> Tensor:
        """Move points [N, P, 2]."""
        moved = where @ self.theta[:, :, :2].transpose(1, 2) + self.theta[:, None, :, 2]
        apart = (where[:, :, None, :] - self.knots[None, None]).abs().sum(-1)
        return moved + (apart**2 * torch.log(apart + 1e-6) * self.bend).sum(-1, keepdim=True)

    def frame(self, picture: Tensor) -> Tensor:
        """Return the picture [N, 3, r, c] whose point z shows the input's point `points(z)`."""
        rows, cols = picture.shape[-2:]
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, rows, device=picture.device),
            torch.linspace(-1, 1, cols, device=picture.device), indexing="ij",
        )
        grid = torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(len(picture), -1, -1)
        place = self.points(grid).reshape(-1, rows, cols, 2)
        return functional.grid_sample(picture, place, padding_mode="reflection", align_corners=True)
