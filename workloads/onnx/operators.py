"""Says which rule makes layers and views of each ONNX operator.

It has no rule itself: they are in `rules`, a module for each family. Operators that stand for
several others are in `rules.expansions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workloads.onnx.read import Node
from workloads.onnx.rules import (
    curves,
    functions,
    matrices,
    moves,
    norms,
    sampling,
    stated,
    windows,
)
from workloads.onnx.walk import Walk

Rule = Callable[[Walk, Node], None]
RULES: Mapping[str, Rule] = {
    "Conv": windows.conv, "ConvTranspose": windows.conv_transpose, "Gemm": matrices.gemm,
    "MatMul": matrices.matmul, "BatchNormalization": functions.batch_norm,
    "Relu": functions.relu, "Clip": functions.clip, "Min": functions.clip, "Max": functions.clip,
    "Add": functions.add, "Sub": functions.add, "Mul": functions.mul, "Div": functions.mul,
    "Pow": functions.power, "Neg": functions.negative, "PRelu": functions.slope,
    **dict.fromkeys(curves.ONE, functions.one),
    "MaxPool": windows.pool, "AveragePool": windows.pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum",
                     "ReduceMax"), norms.reduce),
    "Softmax": norms.softmax,
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"),
                    norms.norm),
    "Normalize over axes": norms.axes_norm, "Root mean square": norms.root_mean_square,
    "Resize": sampling.resize, "Upsample": sampling.resize, "GridSample": sampling.grid_sample,
    "Concat": moves.concat, "Where": moves.where,
    **dict.fromkeys(("ScatterND", "ScatterElements"), moves.scatter),
    **dict.fromkeys((
        "Identity", "Dropout", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
        "Transpose", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand", "Tile",
        "Pad", "DepthToSpace", "SpaceToDepth", "Trilu", "CenterCropPad", "Compress",
        "ReverseSequence"), moves.move),
    "QuantizeLinear": stated.quantize_linear, "DequantizeLinear": stated.dequantize_linear,
}
