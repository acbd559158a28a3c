"""Says which convolutions the AGC decoder has at a given width, depth, resolution and keypoints.

It holds no weights and runs nothing; the torch module and the integer graph are built elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The features and the small source are this many times smaller than the frame, on each axis.
FEATURE_FACTOR = 4
#: Variance of the keypoint heat maps in squared [-1, 1] units (the FOMM value).
HEAT_VARIANCE = 0.01
#: Standard deviation in pixels, and taps, of the source's anti-alias filter (FOMM, scale 1/4).
ANTI_ALIAS_SIGMA = 1.5
ANTI_ALIAS_TAPS = 13


@dataclass(frozen=True)
class AgcConfig:
    """Sizes of one AGC decoder; the defaults are FOMM/DAC vox-256 without Jacobians.

    `width`: channels after the first convolution. `blocks`: residual blocks. `motion_width`,
    `motion_max`, `motion_blocks`: base width, widest layer and levels of the motion hourglass.
    `rows`, `cols`: frame size in pixels. Raises ValueError when a size is not positive or the
    frame does not divide by 4 * 2 ** motion_blocks.
    """

    width: int = 64
    blocks: int = 6
    motion_width: int = 64
    motion_max: int = 1024
    motion_blocks: int = 5
    keypoints: int = 10
    rows: int = 256
    cols: int = 256

    def __post_init__(self) -> None:
        """Refuse sizes that no decoder can have."""
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        step = FEATURE_FACTOR * 2**self.motion_blocks
        if self.rows % step or self.cols % step:
            raise ValueError(
                f"a {self.rows}x{self.cols} frame does not divide by {step}, which "
                f"{self.motion_blocks} motion blocks need"
            )

    @property
    def feature_rows(self) -> int:
        """Rows of the feature map, the small source, the flow and the masks."""
        return self.rows // FEATURE_FACTOR

    @property
    def feature_cols(self) -> int:
        """Columns of the feature map, the small source, the flow and the masks."""
        return self.cols // FEATURE_FACTOR

    @property
    def feature_channels(self) -> int:
        """Channels of the source features that the flow warps."""
        return 4 * self.width

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
    small_rows, small_cols = config.feature_rows, config.feature_cols
    table = [
        ConvShape("first", 3, width, 7, rows, cols, "source"),
        ConvShape("down0", width, 2 * width, 3, rows, cols, "source"),
        ConvShape("down1", 2 * width, 4 * width, 3, rows // 2, cols // 2, "source"),
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
    small = (small_rows, small_cols)
    table.append(ConvShape("mask", heads, config.keypoints + 1, 7, *small, "frame"))
    table.append(ConvShape("occlusion", heads, 1, 7, *small, "frame"))
    deep = config.feature_channels
    for block in range(config.blocks):
        for half in (1, 2):
            table.append(ConvShape(f"res{block}.conv{half}", deep, deep, 3, *small, "frame"))
    table += [
        ConvShape("up0", 4 * width, 2 * width, 3, rows // 2, cols // 2, "frame"),
        ConvShape("up1", 2 * width, width, 3, rows, cols, "frame"),
        ConvShape("final", width, 3, 7, rows, cols, "frame"),
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
