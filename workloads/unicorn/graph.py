"""Builds the integer graph of the Unicorn decoder: U-Net step, sampler, picture decoder.

It neither trains nor calibrates. The step loop is not unrolled: `unicorn_run` repeats one step.

Phases: `group` once before the steps (the map of positions), `step` for each
sampler step, `frame` once at the end (picture decoder). The latent is int16 between the steps;
its update and the step's two coefficients belong to the host unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workloads import arithmetic
from workloads.graph import Graph, Layer, Operator, Phase, TensorSpec, Window
from workloads.seeded import SeededConstants, Uniform
from workloads.unicorn.config import TIME_FREQUENCIES, UnicornConfig

#: `index_vector` is the picture's row of the constant INDEX_TABLE, int8 (images, embedding).
INPUTS = ("latent", "time_code", "index_vector", "position", "coefficients")
INDEX_TABLE = "unet.index_table"
NEXT_LATENT = "latent_next"
OUTPUT = "picture"
LATENT_SCALE = 2.0**-12  # int16: -8 .. 8
CODE_SCALE = 2.0**-7
SHARE_SCALE = {16: 2.0**-15, 8: 2.0**-7}  # attention shares by their bits: 0 .. below one
SEEDED_SCALE = 2.0**-4
_CONV_ROLES = ("weights", "bias", "multiplier", "shift")


@dataclass
class _Builder:
    """Collects layers and tensors; a layer's name is the torch module's path."""

    config: UnicornConfig
    share_bits: int
    phase: Phase = Phase.GROUP
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)

    def tensor(self, name: str, shape: tuple[int, int, int], scale: float = SEEDED_SCALE,
               bits: int = 8) -> str:
        self.tensors[name] = TensorSpec(name, *shape, bits, scale)
        return name

    def shape(self, name: str) -> tuple[int, int, int]:
        return self.tensors[name].shape

    def add(self, name: str, operator: Operator, inputs: tuple[str, ...],
            shape: tuple[int, int, int], roles: tuple[str, ...] = (), **fields: Any) -> str:
        keeps = operator in (Operator.UPSAMPLE, Operator.CONCAT, Operator.TRANSPOSE)
        scale = self.tensors[inputs[0]].scale if keeps else SEEDED_SCALE
        self.tensor(name, shape, scale)
        constants = {role: f"{name}.{role}" for role in roles}
        self.layers.append(Layer(name, operator, inputs, name, phase=self.phase,
                                 constants=constants, **fields))
        return name

    def conv(self, name: str, value: str, channels: int, kernel: int = 3, stride: int = 1,
             relu: bool = False) -> str:
        rows, columns = (size // stride for size in self.shape(value)[1:])
        return self.add(name, Operator.CONVOLUTION, (value,), (channels, rows, columns),
                        _CONV_ROLES, window=Window(kernel, kernel, stride, kernel // 2), relu=relu)

    def norm(self, name: str, value: str, film: tuple[str, ...] = ()) -> str:
        roles = ("scale", "offset", "epsilon", *(("film",) if film else ()))
        return self.add(name, Operator.GROUP_NORM, (value, *film), self.shape(value), roles,
                        window=Window(groups=self.config.groups))

    def silu(self, name: str, value: str) -> str:
        return self.add(name, Operator.LOOKUP, (value,), self.shape(value), ("table",))

    def sum(self, name: str, first: str, second: str) -> str:
        return self.add(name, Operator.ADD, (first, second), self.shape(first),
                        ("multiplier", "shift"))

    def upsample(self, name: str, value: str) -> str:
        channels, rows, columns = self.shape(value)
        return self.add(name, Operator.UPSAMPLE, (value,), (channels, 2 * rows, 2 * columns))

    def residual(self, path: str, value: str, channels: int, embedding: str = "") -> str:
        """norm1, SiLU, conv1, norm2 (modulated), SiLU, conv2, add."""
        inner = self.silu(f"{path}.silu1", self.norm(f"{path}.norm1", value))
        inner = self.conv(f"{path}.conv1", inner, channels)
        film = tuple(self.conv(f"{path}.film.{part}", embedding, channels, 1)
                     for part in ("gain", "offset")) if embedding else ()
        inner = self.silu(f"{path}.silu2", self.norm(f"{path}.norm2", inner, film))
        inner = self.conv(f"{path}.conv2", inner, channels)
        if self.shape(value)[0] != channels:
            value = self.conv(f"{path}.skip", value, channels, 1)
        return self.sum(f"{path}.add", inner, value)

    def attention(self, path: str, value: str) -> str:
        """One head after another: q, k, v by 1x1, softmax(q k) v; then 1x1 and add."""
        channels, rows, columns = self.shape(value)
        size, tokens = self.config.head_channels, rows * columns
        normed = self.norm(f"{path}.norm", value)
        mixed = []
        for head in range(channels // size):
            query, key, content = (
                self.conv(f"{path}.query_key_value.{part}{head}", normed, size, 1)
                for part in ("query", "key", "value"))
            turned = self.add(f"{path}.turn{head}", Operator.TRANSPOSE, (key,), (tokens, 1, size))
            score = self.add(f"{path}.score{head}", Operator.MATMUL, (query, turned),
                             (tokens, rows, columns), ("multiplier", "shift"))
            share = self.add(f"{path}.softmax{head}", Operator.SOFTMAX, (score,),
                             (tokens, rows, columns), ("table",))
            # A share of 256 tokens may be far below 2 ** -7 and still count in the sum.
            self.tensor(share, (tokens, rows, columns), SHARE_SCALE[self.share_bits],
                        self.share_bits)
            mixed.append(self.add(f"{path}.mix{head}", Operator.MATMUL, (share, content),
                                  (size, rows, columns), ("multiplier", "shift")))
        joined = mixed[0] if len(mixed) == 1 else self.add(
            f"{path}.join", Operator.CONCAT, tuple(mixed), (channels, rows, columns))
        return self.sum(f"{path}.add", self.conv(f"{path}.project", joined, channels, 1), value)


def unicorn_structure(config: UnicornConfig, name: str, share_bits: int = 16) -> Graph:
    """The graph without constants; layer names are paths in the torch module.

    `share_bits`: of the attention shares, 8 or 16. The fabric multiplies 8 bits only.
    """
    builder = _Builder(config, share_bits)
    latent = (config.latent_channels, config.latent_rows, config.latent_cols)
    builder.tensor("latent", latent, LATENT_SCALE, 16)
    builder.tensor("time_code", (2 * TIME_FREQUENCIES, 1, 1), CODE_SCALE)
    builder.tensor("index_vector", (config.embedding, 1, 1))
    builder.tensor("position", (config.position_channels, *latent[1:]), CODE_SCALE)
    builder.tensor("coefficients", (2, 1, 1), 2.0**-arithmetic.COEFFICIENT_FRACTION_BITS, 16)
    place = builder.conv("unet.conv_in.position", "position", config.width)
    builder.phase = Phase.STEP
    _step(builder, place)
    builder.phase = Phase.FRAME
    _picture(builder)
    return Graph(name, INPUTS, (NEXT_LATENT, OUTPUT), builder.tensors, tuple(builder.layers), {},
                 config.steps)


def _step(builder: _Builder, place: str) -> None:
    config = builder.config
    time = builder.conv("unet.time_linear1", "time_code", config.embedding, 1)
    time = builder.conv("unet.time_linear2", builder.silu("unet.time_silu", time),
                        config.embedding, 1)
    embedding = builder.silu("unet.embedding", builder.sum("unet.embed_sum", time, "index_vector"))
    small = builder.add("unet.latent8", Operator.REQUANTIZE, ("latent",),
                        builder.shape("latent"), ("multiplier", "shift"))
    value = builder.sum(
        "unet.conv_in.sum", builder.conv("unet.conv_in.latent", small, config.width), place)
    value = _unet(builder, value, embedding)
    value = builder.silu("unet.silu_out", builder.norm("unet.norm_out", value))
    velocity = builder.conv("unet.conv_out", value, config.latent_channels)
    builder.tensor(NEXT_LATENT, builder.shape("latent"), LATENT_SCALE, 16)
    builder.layers.append(Layer(
        "sampler", Operator.SAMPLER, ("latent", velocity, "coefficients"), NEXT_LATENT,
        phase=Phase.STEP,
        constants={role: f"sampler.{role}" for role in ("multiplier", "shift")}))


def _unet(builder: _Builder, value: str, embedding: str) -> str:
    config, blocks = builder.config, builder.config.blocks
    skips, last = [value], len(config.multipliers) - 1
    for level, multiplier in enumerate(config.multipliers):
        for number in range(level * blocks, (level + 1) * blocks):
            value = builder.residual(f"unet.down_units.{number}", value,
                                     config.width * multiplier, embedding)
            if 2**level in config.attention_factors:
                value = builder.attention(f"unet.down_attention.{number}", value)
            skips.append(value)
        if level < last:
            value = builder.conv(f"unet.down_convs.{level}", value, config.width * multiplier,
                                 stride=2)
            skips.append(value)
    channels = builder.shape(value)[0]
    value = builder.residual("unet.middle1", value, channels, embedding)
    value = builder.attention("unet.middle_attention", value)
    value = builder.residual("unet.middle2", value, channels, embedding)
    for step, level in enumerate(reversed(range(last + 1))):
        channels = config.width * config.multipliers[level]
        for number in range(step * (blocks + 1), (step + 1) * (blocks + 1)):
            parts = (value, skips.pop())
            total = sum(builder.shape(part)[0] for part in parts)
            value = builder.add(f"unet.up_join.{number}", Operator.CONCAT, parts,
                                (total, *builder.shape(value)[1:]))
            value = builder.residual(f"unet.up_units.{number}", value, channels, embedding)
            if 2**level in config.attention_factors:
                value = builder.attention(f"unet.up_attention.{number}", value)
        if step < last:
            value = builder.upsample(f"unet.upsample.{step}", value)
            value = builder.conv(f"unet.up_convs.{step}", value, channels)
    return value


def _picture(builder: _Builder) -> None:
    widths = builder.config.decoder_widths
    value = builder.add("picture.latent8", Operator.REQUANTIZE, (NEXT_LATENT,),
                        builder.shape(NEXT_LATENT), ("multiplier", "shift"))
    value = builder.conv("picture.conv_in", value, widths[0])
    value = builder.residual("picture.units.0", value, widths[0])
    for number, width in enumerate(widths[1:]):
        value = builder.upsample(f"picture.upsample.{number}", value)
        value = builder.conv(f"picture.up_convs.{number}", value, width)
        value = builder.residual(f"picture.units.{number + 1}", value, width)
    value = builder.silu("picture.silu", builder.norm("picture.norm_out", value))
    # The 0.5 that the module adds lies in the bias; ReLU and saturation clip to 0 .. 127 / 128.
    conv = builder.conv("picture.conv_out", value, 3, relu=True)
    layer = builder.layers.pop()
    builder.tensor(OUTPUT, builder.shape(conv), CODE_SCALE)
    del builder.tensors[conv]
    builder.layers.append(Layer(
        layer.name, layer.operator, layer.inputs, OUTPUT, layer.window, True,
        phase=layer.phase, constants=layer.constants))


def unicorn_graph(config: UnicornConfig, seed: int = 0, share_bits: int = 8) -> Graph:
    """The Unicorn graph with seeded random integer weights, made only when they are read."""
    structure = unicorn_structure(config, f"unicorn-seed{seed}", share_bits)
    fixed: dict[str, np.ndarray] = {}
    drawn = {INDEX_TABLE: Uniform((config.images, config.embedding), "int8", -32, 32)}

    def scalars(name: str, multiplier: list[int], shift: int) -> None:
        fixed[f"{name}.multiplier"] = np.array(multiplier, np.int32)
        fixed[f"{name}.shift"] = np.array([shift], np.int32)

    for layer in structure.layers:
        name, source = layer.name, structure.tensors[layer.inputs[0]]
        channels = structure.tensors[layer.output].channels
        match layer.operator:
            case Operator.CONVOLUTION:
                window = layer.window
                fan_in = source.channels * window.rows * window.columns
                shift = round(float(np.log2(73 * 20 * np.sqrt(fan_in) / 20)))
                drawn[f"{name}.weights"] = Uniform(
                    (channels, source.channels, window.rows, window.columns), "int8", -127, 127)
                drawn[f"{name}.bias"] = Uniform((channels,), "int32", -(8 << shift), 8 << shift)
                fixed[f"{name}.multiplier"] = np.ones(channels, np.int32)
                fixed[f"{name}.shift"] = np.full(channels, shift, np.int32)
            case Operator.GROUP_NORM:
                # A deviation of 16 steps; a modulating gain of 16 steps stands for one.
                drawn[f"{name}.scale"] = Uniform((channels,), "int32", 12 << 12, 20 << 12)
                drawn[f"{name}.offset"] = Uniform((channels,), "int32", -(4 << 12), 4 << 12)
                fixed[f"{name}.epsilon"] = np.ones(1, np.int64)
                fixed[f"{name}.film"] = np.array([1 << 20, 1 << 12], np.int32)
            case Operator.LOOKUP:
                fixed[f"{name}.table"] = arithmetic.lookup_table(
                    arithmetic.silu, SEEDED_SCALE, SEEDED_SCALE)
            case Operator.SOFTMAX:
                fixed[f"{name}.table"] = arithmetic.exp_table(SEEDED_SCALE)
            case Operator.ADD:
                scalars(name, [1, 1], 0)
            case Operator.MATMUL:
                scalars(name, [1], 7 if "score" in name else share_bits - 1)
            case Operator.REQUANTIZE | Operator.SAMPLER:
                scalars(name, [1 << 8 if name == "sampler" else 1],
                        0 if name == "sampler" else 8)
    constants = SeededConstants(seed, fixed, drawn)
    return Graph(structure.name, structure.inputs, structure.outputs, structure.tensors,
                 structure.layers, constants, structure.steps)
