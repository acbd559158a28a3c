"""Builds the integer graph of the AGC decoder from its sizes; the same code at every width.

It neither trains nor calibrates: numbers come from a seed, or from
`workloads.training.agc.quantize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workloads import arithmetic
from workloads.agc.config import (
    HEAT_VARIANCE,
    AgcConfig,
    ConvShape,
    anti_alias,
    conv_table,
)
from workloads.graph import Graph, Layer, Operator, Phase, TensorSpec, Window
from workloads.seeded import SeededConstants, Uniform

#: Real value of one step of heat maps, masks, pictures and everything that shares their scale.
UNIT_SCALE = 2.0**-arithmetic.MASK_FRACTION_BITS
#: Nominal scale of the other tensors when weights are random integers.
SEEDED_SCALE = 2.0**-4
#: Weights of the anti-alias filter have this many fraction bits.
ANTI_ALIAS_BITS = 15
INPUTS = ("source", "keypoints_source", "keypoints_driving")
OUTPUT = "picture"


def grid_fraction_bits(config: AgcConfig) -> int:
    """Fraction bits of grid coordinates: at most 7, and twice the map's size fits 16 bits."""
    reach = 2 * max(config.feature_rows, config.feature_cols)
    return min(7, 15 - (reach - 1).bit_length())


@dataclass
class _Builder:
    """Collects layers and tensors while the network is written down."""

    config: AgcConfig
    scales: Mapping[str, float]
    default_scale: float
    phase: Phase = Phase.GROUP
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)

    def tensor(self, name: str, shape: tuple[int, int, int], bits: int = 8,
               scale: float | None = None) -> str:
        step = scale if scale is not None else self.scales.get(name, self.default_scale)
        self.tensors[name] = TensorSpec(name, *shape, bits, step)
        return name

    def like(self, name: str) -> tuple[int, int, int]:
        return self.tensors[name].shape

    def scale_of(self, name: str) -> float:
        return self.tensors[name].scale

    def add(self, name: str, operator: Operator, inputs: tuple[str, ...], output: str,
            roles: tuple[str, ...] = (), **fields: Any) -> str:
        constants = {role: f"{name}.{role}" for role in roles}
        self.layers.append(Layer(name, operator, inputs, output, phase=self.phase,
                                 constants=constants, **fields))
        return output

    def convolution(self, value: str, shape: ConvShape, relu: bool) -> str:
        rows, columns = self.like(value)[1:]
        self.tensor(shape.name, (shape.out_channels, rows, columns))
        window = Window(shape.kernel, shape.kernel, 1, shape.kernel // 2)
        return self.add(shape.name, Operator.CONVOLUTION, (value,), shape.name,
                        ("weights", "bias", "multiplier", "shift"), window=window, relu=relu)

    def pool(self, value: str, output: str | None = None) -> str:
        name = f"{value}.pool"
        channels, rows, columns = self.like(value)
        self.tensor(output or name, (channels, rows // 2, columns // 2),
                    scale=self.scale_of(value))
        return self.add(name, Operator.AVERAGE_POOL, (value,), output or name,
                        window=Window(2, 2, 2))

    def upsample(self, value: str, name: str) -> str:
        channels, rows, columns = self.like(value)
        self.tensor(name, (channels, 2 * rows, 2 * columns), scale=self.scale_of(value))
        return self.add(name, Operator.UPSAMPLE, (value,), name)

    def concat(self, name: str, *parts: str) -> str:
        channels = sum(self.like(part)[0] for part in parts)
        self.tensor(name, (channels, *self.like(parts[0])[1:]), scale=self.scale_of(parts[0]))
        return self.add(name, Operator.CONCAT, parts, name)

    def affine(self, value: str, name: str) -> str:
        self.tensor(name, self.like(value))
        return self.add(name, Operator.AFFINE, (value,), name,
                        ("multiplier", "offset", "shift"), relu=True)


def build_graph(
    config: AgcConfig, constants: Mapping[str, np.ndarray], scales: Mapping[str, float],
    name: str, default_scale: float = SEEDED_SCALE,
) -> Graph:
    """The AGC graph with given constants (named layer.role) and tensor scales.

    `scales` may leave tensors out; they get `default_scale`. Tensors whose scale is fixed by
    their meaning (pictures, masks, grids, keypoints) or by their source take none.
    """
    builder = _Builder(config, scales, default_scale)
    shapes = {shape.name: shape for shape in conv_table(config)}
    for point in INPUTS[1:]:
        builder.tensor(point, (2, config.keypoints, 1), 16,
                       2.0**-arithmetic.KEYPOINT_FRACTION_BITS)
    features, small = _source(builder, shapes)
    builder.phase = Phase.FRAME
    grid, occlusion = _motion(builder, shapes, small)
    _generator(builder, shapes, features, grid, occlusion)
    return Graph(name, INPUTS, (OUTPUT,), builder.tensors, tuple(builder.layers), constants)


def _source(builder: _Builder, shapes: Mapping[str, ConvShape]) -> tuple[str, str]:
    config = builder.config
    source = builder.tensor("source", (3, config.rows, config.cols), scale=UNIT_SCALE)
    small = builder.tensor("small", (3, config.motion_rows, config.motion_cols),
                           scale=UNIT_SCALE)
    _, taps = anti_alias(config.motion_factor)
    window = Window(taps, taps, config.motion_factor, taps // 2)
    builder.add("anti_alias", Operator.DOWNSAMPLE, (source,), small, ("weights", "shift"),
                window=window)
    value = builder.convolution(source, shapes["first"], relu=True)
    value = builder.pool(builder.convolution(value, shapes["down0"], relu=True))
    value = builder.convolution(value, shapes["down1"], relu=True)
    return builder.pool(value, "features"), small


def _motion(builder: _Builder, shapes: Mapping[str, ConvShape], small: str) -> tuple[str, str]:
    config = builder.config
    maps, size = config.keypoints + 1, (config.motion_rows, config.motion_cols)
    digits = grid_fraction_bits(config)
    grid_scale = 2.0**-digits
    points = INPUTS[1:]
    shift = builder.tensor("displacements", (2, maps, 1), 16, grid_scale)
    builder.add("displacements", Operator.DISPLACEMENTS, points, shift, fraction_bits=digits)
    heat = builder.tensor("heat_maps", (maps, *size), scale=UNIT_SCALE)
    builder.add("heat_maps", Operator.HEAT_MAPS, points, heat,
                ("table", "row_axis", "column_axis"))
    grids = builder.tensor("sparse_flow", (2 * maps, *size), 16, grid_scale)
    builder.add("sparse_flow", Operator.SPARSE_FLOW, (shift,), grids, fraction_bits=digits)
    warped = builder.tensor("warp_source", (3 * maps, *size), scale=builder.scale_of(small))
    builder.add("warp_source", Operator.GRID_SAMPLE, (small, grids), warped,
                fraction_bits=digits)
    value = builder.concat("hourglass_input", heat, warped)
    heads = _hourglass(builder, shapes, value)
    size = (config.feature_rows, config.feature_cols)
    masks = _head(builder, shapes["mask"], heads)
    soft = builder.tensor("mask_softmax", (maps, *size), scale=UNIT_SCALE)
    builder.add("mask_softmax", Operator.SOFTMAX, (masks,), soft, ("table",))
    logits = _head(builder, shapes["occlusion"], heads)
    occlusion = builder.tensor("occlusion_sigmoid", (1, *size), scale=UNIT_SCALE)
    builder.add("occlusion_sigmoid", Operator.LOOKUP, (logits,), occlusion, ("table",))
    if config.coarse_motion:  # counted in steps of the flow's own size
        shift = builder.tensor("flow_displacements", (2, maps, 1), 16, grid_scale)
        builder.add("flow_displacements", Operator.DISPLACEMENTS, points, shift,
                    fraction_bits=digits)
    grid = builder.tensor("flow", (2, *size), 16, grid_scale)
    builder.add("flow", Operator.FLOW_SUM, (soft, shift), grid, fraction_bits=digits)
    return grid, occlusion


def _head(builder: _Builder, shape: ConvShape, heads: str) -> str:
    """The logits of mask or occlusion, at the size of the features."""
    if builder.config.coarse_motion:
        heads = builder.upsample(heads, f"{shape.name}.upsample")
    return builder.convolution(heads, shape, relu=False)


def _hourglass(builder: _Builder, shapes: Mapping[str, ConvShape], value: str) -> str:
    levels = builder.config.motion_blocks
    skips = [value]
    for level in range(levels):
        skips.append(builder.pool(
            builder.convolution(skips[-1], shapes[f"enc{level}"], relu=True)))
    value = skips.pop()
    for step in range(levels):
        raised = builder.upsample(value, f"dec{step}.upsample")
        new = builder.convolution(raised, shapes[f"dec{step}"], relu=True)
        name = "heads" if step == levels - 1 else f"dec{step}.concat"
        value = builder.concat(name, new, skips.pop())
    return value


def _generator(builder: _Builder, shapes: Mapping[str, ConvShape], features: str, grid: str,
               occlusion: str) -> None:
    config, digits = builder.config, grid_fraction_bits(builder.config)
    value = builder.tensor("warp_features", builder.like(features),
                           scale=builder.scale_of(features))
    builder.add("warp_features", Operator.GRID_SAMPLE, (features, grid), value,
                fraction_bits=digits)
    hidden = builder.tensor("occlude", builder.like(value))
    value = builder.add("occlude", Operator.MULTIPLY, (value, occlusion), hidden,
                        ("multiplier", "shift"))
    for block in range(config.blocks):
        inner = builder.affine(value, f"res{block}.norm")
        inner = builder.convolution(inner, shapes[f"res{block}.conv1"], relu=True)
        inner = builder.convolution(inner, shapes[f"res{block}.conv2"], relu=False)
        total = builder.tensor(f"res{block}.add", builder.like(value))
        value = builder.add(f"res{block}.add", Operator.ADD, (inner, value), total,
                            ("multiplier", "shift"))
    for name in ("up0", "up1"):
        raised = builder.upsample(value, f"{name}.upsample")
        value = builder.convolution(raised, shapes[name], relu=True)
    logits = builder.convolution(value, shapes["final"], relu=False)
    builder.tensor(OUTPUT, builder.like(logits), scale=UNIT_SCALE)
    builder.add("final_sigmoid", Operator.LOOKUP, (logits,), OUTPUT, ("table",))


def frame_inputs(
    source: np.ndarray, source_points: np.ndarray, driving_points: np.ndarray
) -> dict[str, np.ndarray]:
    """The graph's integer inputs from a uint8 (rows, cols, 3) frame and keypoints (K, 2).

    Keypoints are (x, y) in -1 .. 1. A pixel p becomes rint(p / 255 * 128), at most 127.
    """
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
        raise ValueError(f"source is {source.dtype} {source.shape}, must be uint8 (rows, cols, 3)")
    steps = np.rint(source.transpose(2, 0, 1) * (1 / (255 * UNIT_SCALE)))
    return {
        "source": arithmetic.saturate(steps),
        "keypoints_source": arithmetic.fixed_keypoints(source_points),
        "keypoints_driving": arithmetic.fixed_keypoints(driving_points),
    }


def frame_bytes(picture: np.ndarray) -> np.ndarray:
    """The int8 (3, rows, cols) picture as uint8 (rows, cols, 3)."""
    pixels = np.rint(picture.astype(np.float64) * (255 * UNIT_SCALE))
    return np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def anti_alias_weights(factor: int) -> np.ndarray:
    """int16 (taps, taps): the Gaussian of the small source; its sum is exactly 2 ** 15."""
    sigma, count = anti_alias(factor)
    half = count // 2
    taps = np.arange(count) - half
    line = np.exp(-(taps**2) / (2 * sigma**2))
    square = np.outer(line, line) / line.sum() ** 2
    weights = np.rint(square * (1 << ANTI_ALIAS_BITS)).astype(np.int16)
    weights[half, half] += (1 << ANTI_ALIAS_BITS) - weights.sum(dtype=np.int64)
    return weights


def fixed_constants(config: AgcConfig) -> dict[str, np.ndarray]:
    """The constants that depend on no weight: filter, axes and the Gaussian table."""
    return {
        "anti_alias.weights": anti_alias_weights(config.motion_factor),
        "anti_alias.shift": np.array([ANTI_ALIAS_BITS], np.int32),
        "heat_maps.table": arithmetic.gaussian_table(HEAT_VARIANCE),
        "heat_maps.row_axis": arithmetic.axis_coordinates(config.motion_rows),
        "heat_maps.column_axis": arithmetic.axis_coordinates(config.motion_cols),
    }


def agc_graph(config: AgcConfig, seed: int = 0) -> Graph:
    """The AGC graph with seeded random integer weights, made only when they are read.

    Shifts follow from the fan-in alone, so that activations stay alive (a standard deviation
    near 40 steps before a ReLU, 12 where there is none). The same config and
    seed give the same graph.
    """
    fixed = fixed_constants(config)
    drawn: dict[str, Uniform] = {}
    for shape in conv_table(config):
        out, kernel = shape.out_channels, shape.kernel
        fan_in = shape.in_channels * kernel * kernel
        # Uniform weights in +-127 have a deviation of 73; inputs are near 28 root mean square.
        small = shape.name.endswith(("conv2", "mask", "occlusion", "final"))
        shift = round(np.log2(73 * 28 * np.sqrt(fan_in) / (12 if small else 40)))
        drawn[f"{shape.name}.weights"] = Uniform(
            (out, shape.in_channels, kernel, kernel), "int8", -127, 127)
        drawn[f"{shape.name}.bias"] = Uniform((out,), "int32", -(8 << shift), 8 << shift)
        fixed[f"{shape.name}.multiplier"] = np.ones(out, np.int32)
        fixed[f"{shape.name}.shift"] = np.full(out, shift, np.int32)
    deep = config.feature_channels
    for block in range(config.blocks):
        drawn[f"res{block}.norm.multiplier"] = Uniform((deep,), "int32", 4096, 12288)
        drawn[f"res{block}.norm.offset"] = Uniform((deep,), "int32", -(8 << 13), 16 << 13)
        fixed[f"res{block}.norm.shift"] = np.full(deep, 13, np.int32)
        fixed[f"res{block}.add.multiplier"] = np.ones(2, np.int32)
        fixed[f"res{block}.add.shift"] = np.zeros(1, np.int32)
    fixed["occlude.multiplier"] = np.ones(1, np.int32)
    fixed["occlude.shift"] = np.full(1, arithmetic.MASK_FRACTION_BITS, np.int32)
    fixed["mask_softmax.table"] = arithmetic.exp_table(SEEDED_SCALE)
    for name in ("occlusion_sigmoid", "final_sigmoid"):
        fixed[f"{name}.table"] = arithmetic.lookup_table(
            arithmetic.sigmoid, SEEDED_SCALE, UNIT_SCALE)
    scales = {f"dec{config.motion_blocks - 1}": UNIT_SCALE}
    constants = SeededConstants(seed, fixed, drawn)
    return build_graph(config, constants, scales, f"agc-w{config.width}-seed{seed}")
