"""Says which convolutions the AGC decoder has at a given width, depth, resolution and keypoints.

It holds no weights and runs nothing; the torch module and the integer graph are built elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The features that are warped are this many times smaller than the frame, on each axis.
FEATURE_FACTOR = 4
#: Variance of the keypoint heat maps in squared [-1, 1] units (the FOMM value).
HEAT_VARIANCE = 0.01


def anti_alias(factor: int) -> tuple[float, int]:
    """Standard deviation in pixels, and taps, of FOMM's filter before it keeps every n-th pixel."""
    sigma = (factor - 1) / 2
    return sigma, 2 * round(4 * sigma) + 1


@dataclass(frozen=True)
class AgcConfig:
    """Sizes of one AGC decoder; the defaults are FOMM/DAC vox-256 without Jacobians.

    `width`: channels after the first convolution. `blocks`: residual blocks. `motion_width`,
    `motion_max`, `motion_blocks`: base width, widest layer and levels of the motion hourglass.
    `rows`, `cols`: frame size in pixels.

    Sizes that a decoder for a small board changes: `trunk`, `half`, `full`: channels of the warped
    features and residual blocks, at half size, and at full size (None: 4, 2 and 1 times `width`).
    `head_kernel`, `final_kernel`: of mask and occlusion, and of the last convolution.
    `motion_factor`: how many times smaller than the frame the motion network's input is (4 or 8).

    Raises ValueError when a size is not positive, a kernel is even, or the frame does not divide by
    motion_factor * 2 ** motion_blocks.
    """

    width: int = 64
    blocks: int = 6
    motion_width: int = 64
    motion_max: int = 1024
    motion_blocks: int = 5
    keypoints: int = 10
    rows: int = 256
    cols: int = 256
    trunk: int | None = None
    half: int | None = None
    full: int | None = None
    head_kernel: int = 7
    final_kernel: int = 7
    motion_factor: int = FEATURE_FACTOR

    def __post_init__(self) -> None:
        """Refuse sizes that no decoder can have."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
            if name.endswith("kernel") and value % 2 == 0:
                raise ValueError(f"{name} must be odd, not {value}; nearest {value + 1}")
        if self.motion_factor not in (FEATURE_FACTOR, 2 * FEATURE_FACTOR):
            raise ValueError(f"motion_factor must be {FEATURE_FACTOR} or {2 * FEATURE_FACTOR}, "
                             f"not {self.motion_factor}")
        step = self.motion_factor * 2**self.motion_blocks
        if self.rows % step or self.cols % step:
            raise ValueError(
                f"a {self.rows}x{self.cols} frame does not divide by {step}, which "
                f"{self.motion_blocks} motion blocks need"
            )

    @property
    def feature_rows(self) -> int:
        """Rows of the feature map, the flow and the masks."""
        return self.rows // FEATURE_FACTOR

    @property
    def feature_cols(self) -> int:
        """Columns of the feature map, the flow and the masks."""
        return self.cols // FEATURE_FACTOR

    @property
    def motion_rows(self) -> int:
        """Rows of the small source, its warped copies and the hourglass's first level."""
        return self.rows // self.motion_factor

    @property
    def motion_cols(self) -> int:
        """Columns of the small source, its warped copies and the hourglass's first level."""
        return self.cols // self.motion_factor

    @property
    def coarse_motion(self) -> bool:
        """Whether masks and occlusion are made at twice the size of the hourglass."""
        return self.motion_factor != FEATURE_FACTOR

    @property
    def feature_channels(self) -> int:
        """Channels of the source features that the flow warps, and of the residual blocks."""
        return 4 * self.width if self.trunk is None else self.trunk

    @property
    def half_channels(self) -> int:
        """Channels at half the frame's size, behind the residual blocks."""
        return 2 * self.width if self.half is None else self.half

    @property
    def full_channels(self) -> int:
        """Channels at the frame's size, before the last convolution."""
        return self.width if self.full is None else self.full

    @property
    def hourglass_channels(self) -> int:
        """Input channels of the hourglass: K+1 heat maps, then 3 colours of K+1 copies."""
        return 4 * (self.keypoints + 1)

    @property
    def head_channels(self) -> int:
        """Channels that the mask and the occlusion head read."""
        return self.motion_width + self.hourglass_channels

    def motion_channels(self, level: int) -> int:
        """Channels of the hourglass after `level` halvings (level 0 is the last decoder stage)."""
        return min(self.motion_max, self.motion_width * 2**level)


def _small(trunk: int, half: int, blocks: int) -> AgcConfig:
    """A decoder for a small board: coarse motion, small kernels, all else width 16's."""
    return AgcConfig(width=16, blocks=blocks, motion_width=16, motion_max=128, motion_blocks=4,
                     trunk=trunk, half=half, full=8, head_kernel=3, final_kernel=3,
                     motion_factor=2 * FEATURE_FACTOR)


#: Decoders that can be trained, by short name.
SIZES: Mapping[str, AgcConfig] = {
    "w16": AgcConfig(width=16, motion_width=16, motion_max=256),
    "w32": AgcConfig(width=32, motion_width=32, motion_max=512),
    "t48b3": _small(48, 32, 3),
    "t32b4": _small(32, 16, 4),
    "t32b3": _small(32, 16, 3),
}
#: Those whose weights ship, as `agc_NAME_float.safetensors`.
TRAINED = ("w16", "w32", "t32b4")


@dataclass(frozen=True)
class ConvShape:
    """One stride-1 same-padded convolution with bias.

    `rows` and `cols` are where it runs: after an upsample in front, before a pool behind.
    `part` is "source" (once per group of pictures) or "frame" (once per inter frame).
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    rows: int
    cols: int
    part: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.rows * self.cols * self.out_channels * self.in_channels * self.kernel**2

    @property
    def parameters(self) -> int:
        """Weights and biases, with any batch norm behind it folded in."""
        return self.out_channels * (self.in_channels * self.kernel**2 + 1)


def conv_table(config: AgcConfig) -> tuple[ConvShape, ...]:
    """Return every convolution in the order it runs, named as in the torch module."""
    width, rows, cols = config.width, config.rows, config.cols
    small_rows, small_cols = config.motion_rows, config.motion_cols
    deep = config.feature_channels
    table = [
        ConvShape("first", 3, width, 7, rows, cols, "source"),
        ConvShape("down0", width, 2 * width, 3, rows, cols, "source"),
        ConvShape("down1", 2 * width, deep, 3, rows // 2, cols // 2, "source"),
    ]
    levels = config.motion_blocks
    for level in range(levels):
        entering = config.hourglass_channels if level == 0 else config.motion_channels(level)
        leaving = config.motion_channels(level + 1)
        size = (small_rows >> level, small_cols >> level)
        table.append(ConvShape(f"enc{level}", entering, leaving, 3, *size, "frame"))
    for step, level in enumerate(reversed(range(levels))):
        # Every stage but the first reads the stage before it and the encoder's skip.
        entering = config.motion_channels(level + 1) * (1 if step == 0 else 2)
        leaving = config.motion_channels(level)
        size = (small_rows >> level, small_cols >> level)
        table.append(ConvShape(f"dec{step}", entering, leaving, 3, *size, "frame"))
    heads = config.head_channels
    small, kernel = (config.feature_rows, config.feature_cols), config.head_kernel
    table.append(ConvShape("mask", heads, config.keypoints + 1, kernel, *small, "frame"))
    table.append(ConvShape("occlusion", heads, 1, kernel, *small, "frame"))
    for block in range(config.blocks):
        for half in (1, 2):
            table.append(ConvShape(f"res{block}.conv{half}", deep, deep, 3, *small, "frame"))
    table += [
        ConvShape("up0", deep, config.half_channels, 3, rows // 2, cols // 2, "frame"),
        ConvShape("up1", config.half_channels, config.full_channels, 3, rows, cols, "frame"),
        ConvShape("final", config.full_channels, 3, config.final_kernel, rows, cols, "frame"),
    ]
    return tuple(table)


def conv_macs(config: AgcConfig, part: str | None = None) -> int:
    """Return the multiply-accumulates of all convolutions, or of one part only.

    `part` is None, "source" or "frame"; anything else raises ValueError.
    """
    if part not in (None, "source", "frame"):
        raise ValueError(f'part must be "source" or "frame", not {part!r}')
    return sum(conv.macs for conv in conv_table(config) if part in (None, conv.part))


def folded_parameters(config: AgcConfig) -> int:
    """Return weights plus biases of all convolutions after batch-norm folding.

    The scales and shifts in front of the residual blocks, which cannot be folded, are left out.
    """
    return sum(conv.parameters for conv in conv_table(config))
