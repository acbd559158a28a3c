"""Functions of one variable, by the operator of ONNX that computes them.

It makes no layers; `functions` puts them into tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from workloads.onnx.read import Node
from workloads.quantization.float_network import FUNCTIONS, Function

_ERF = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Linear:
    """x * scale + offset, as a function that later affine steps can take in."""

    scale: float
    offset: float = 0.0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The values."""
        return x * self.scale + self.offset


def _gelu(node: Node) -> Function:
    if node.text("approximate", "none") == "tanh":
        slope = math.sqrt(2 / math.pi)
        return lambda x: 0.5 * x * (1 + np.tanh(slope * (x + 0.044715 * x**3)))
    return lambda x: 0.5 * x * (1 + _ERF(x / math.sqrt(2)))


def _hard_sigmoid(node: Node) -> Function:
    slope, start = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return lambda x: np.clip(slope * x + start, 0, 1)


def _leaky(node: Node) -> Function:
    slope = node.attribute("alpha", 0.01)
    return lambda x: np.where(x < 0, slope * x, x)


def _elu(node: Node) -> Function:
    height = node.attribute("alpha", 1.0)
    return lambda x: np.where(x < 0, height * np.expm1(np.minimum(x, 0)), x)


def _swish(node: Node) -> Function:
    steep = node.attribute("alpha", 1.0)
    return lambda x: x * FUNCTIONS["sigmoid"](steep * x)


def _selu(node: Node) -> Function:
    height = node.attribute("alpha", 1.6732632423543772)
    gain = node.attribute("gamma", 1.0507009873554805)
    return lambda x: gain * np.where(x < 0, height * np.expm1(np.minimum(x, 0)), x)


def _celu(node: Node) -> Function:
    height = node.attribute("alpha", 1.0)
    return lambda x: np.where(x < 0, height * np.expm1(np.minimum(x, 0) / height), x)


def _thresholded(node: Node) -> Function:
    start = node.attribute("alpha", 1.0)
    return lambda x: np.where(x > start, x, 0)


def _shrink(node: Node) -> Function:
    width, bias = node.attribute("lambd", 0.5), node.attribute("bias", 0.0)
    return lambda x: np.where(x < -width, x + bias, np.where(x > width, x - bias, 0))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def safe(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Infinities and undefined values, where no activation should be, become finite."""
    def found(*values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            made = function(*(np.asarray(item, np.float64) for item in values))
            return np.nan_to_num(made, posinf=1e30, neginf=-1e30)
    return found


_SIMPLE: Mapping[str, Function] = {
    "Abs": np.abs, "Atan": np.arctan, "Asinh": np.arcsinh, "Ceil": np.ceil, "Cos": np.cos,
    "Erf": _ERF, "Floor": np.floor, "HardSwish": FUNCTIONS["hard_swish"], "Round": np.rint,
    "Sigmoid": FUNCTIONS["sigmoid"], "Sign": np.sign, "Sin": np.sin, "Softplus": _softplus,
    "Tanh": np.tanh, "Acos": safe(np.arccos), "Acosh": safe(np.arccosh),
    "Asin": safe(np.arcsin), "Atanh": safe(np.arctanh), "Cosh": safe(np.cosh),
    "Exp": safe(np.exp), "Log": safe(np.log), "Reciprocal": safe(lambda x: 1 / x),
    "Sinh": safe(np.sinh), "Sqrt": safe(np.sqrt), "Tan": safe(np.tan),
    # What comparisons and casts are made of (`expansions`, `moves`); no operators of ONNX.
    "Is above zero": lambda x: (x > 0).astype(np.float64),
    "Is not below zero": lambda x: (x >= 0).astype(np.float64),
    "Is zero": lambda x: (x == 0).astype(np.float64),
    "Is not zero": lambda x: (x != 0).astype(np.float64), "Cut to whole": np.trunc,
    "Mish": lambda x: x * np.tanh(_softplus(x)), "Softsign": lambda x: x / (1 + np.abs(x)),
}


def _always(function: Function) -> Callable[[Node], Function]:
    return lambda node: function


#: Functions of one variable, from a node's attributes.
ONE: Mapping[str, Callable[[Node], Function]] = {
    **{name: _always(function) for name, function in _SIMPLE.items()},
    "Celu": _celu, "Elu": _elu, "Gelu": _gelu, "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky, "Selu": _selu, "Shrink": _shrink, "Swish": _swish,
    "ThresholdedRelu": _thresholded,
}
