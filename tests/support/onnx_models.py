"""Builds ONNX models for tests: ResNet-18, MobileNetV2 and U-Nets, float and static int8.

Weights are seeded; inputs are small, so that a test takes seconds, and no power of two. As a
command, NAME SIZE FOLDER, it writes one of them in int8 for pictures of another size.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn
from torch.nn import functional

SIZE = 40


class BasicBlock(nn.Module):
    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.skip = nn.Identity() if entering == leaving else nn.Sequential(
            nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, value: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(value)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.skip(value))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1)]
    now = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(now, width, stride), BasicBlock(width, width, 1)]
        now = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class InvertedResidual(nn.Module):
    def __init__(self, entering: int, leaving: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = entering * expand
        self.add = stride == 1 and entering == leaving
        steps: list[nn.Module] = []
        if expand > 1:
            steps += [nn.Conv2d(entering, hidden, 1, bias=False), nn.BatchNorm2d(hidden),
                      nn.ReLU6()]
        steps += [nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
                  nn.BatchNorm2d(hidden), nn.ReLU6(),
                  nn.Conv2d(hidden, leaving, 1, bias=False), nn.BatchNorm2d(leaving)]
        self.steps = nn.Sequential(*steps)

    def forward(self, value: Tensor) -> Tensor:
        return value + self.steps(value) if self.add else self.steps(value)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    now = 32
    for expand, width, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, 2), (6, 320, 1, 1),
    ):
        for index in range(count):
            layers.append(InvertedResidual(now, width, stride if index == 0 else 1, expand))
            now = width
    layers += [nn.Conv2d(now, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.unit(3, 16), self.unit(16, 32)
        self.middle, self.up = self.unit(32, 32), self.unit(64, 16)
        self.last = nn.Conv2d(32, 3, 1)
        self.raise2 = nn.Upsample(scale_factor=2, mode="nearest")
        self.pool = nn.AvgPool2d(2)

    @staticmethod
    def unit(entering: int, leaving: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(entering, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.SiLU(),
            nn.Conv2d(leaving, leaving, 3, padding=1), nn.ReLU())

    def forward(self, value: Tensor) -> Tensor:
        first = self.down1(value)
        second = self.down2(self.pool(first))
        middle = self.raise2(self.middle(self.pool(second)))
        up = self.up(torch.cat([middle, second], 1))
        return torch.sigmoid(self.last(torch.cat([self.raise2(up), first], 1)))


class Attention(nn.Module):
    """Self-attention over the places of a picture, as diffusion decoders have it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, width)
        self.mixed, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        batch, width, rows, columns = value.shape
        parts = self.mixed(self.norm(value)).chunk(3, 1)
        query, key, held = (part.reshape(batch, self.heads, width // self.heads, -1).transpose(2, 3)
                            for part in parts)
        found = functional.scaled_dot_product_attention(query, key, held)
        return value + self.out(found.transpose(2, 3).reshape(batch, width, rows, columns))


class AttentionUNet(nn.Module):
    """A U-Net with group norm, attention in one and in two heads, odd sizes and a token block."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, 2, 1)
        self.norm1, self.norm2 = nn.GroupNorm(4, 16), nn.GroupNorm(4, 24)
        self.attend1, self.attend2 = Attention(24, 1), Attention(24, 2)
        self.tokens = nn.LayerNorm(24)
        self.wide, self.narrow = nn.Linear(24, 40), nn.Linear(40, 24)
        self.up = nn.ConvTranspose2d(24, 16, 4, 2, 1)
        self.last = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, value: Tensor) -> Tensor:
        first = functional.silu(self.norm1(self.enter(value)))
        inner = self.attend2(self.attend1(functional.silu(self.norm2(self.down(first)))))
        batch, width, rows, columns = inner.shape
        tokens = inner.flatten(2).transpose(1, 2)
        tokens = tokens + self.narrow(functional.gelu(self.wide(self.tokens(tokens))))
        inner = tokens.transpose(1, 2).reshape(batch, width, rows, columns)
        raised = self.up(inner)[:, :, : first.shape[2], : first.shape[3]]
        return torch.tanh(self.last(torch.cat([functional.hardswish(raised), first], 1)))


class Moves(nn.Module):
    """What exporters write for reshapes, heads, interpolation, sampling and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=(1, 0), dilation=(1, 2))
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.depth = nn.Conv2d(16, 16, 3, stride=(2, 1), padding=1, groups=16)
        self.norm, self.leaky = nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.1)
        self.gate, self.place = nn.Linear(16, 16), nn.Parameter(torch.randn(1, 63, 16))

    def forward(self, value: Tensor) -> Tensor:
        first = self.leaky(self.norm(self.enter(value)))
        batch, width, rows, columns = first.shape
        tokens = first.flatten(2).transpose(1, 2) + self.place
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        inner = tokens.transpose(1, 2).reshape(batch, width, rows, columns)
        gates = torch.sigmoid(self.gate(inner.mean((2, 3)))).reshape(1, width, 1, 1)
        inner = functional.relu6(self.depth(inner * gates))
        inner = functional.interpolate(inner, (11, 10), mode="bilinear", align_corners=True)
        grid = torch.tanh(inner[:, :2]).permute(0, 2, 3, 1)
        sampled = functional.grid_sample(inner, grid, align_corners=False)
        sampled = functional.pad(sampled, (1, 0, 0, 2))
        return functional.max_pool2d(sampled, 3, 2, ceil_mode=True) - 0.5


BUILDERS = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2, "unet": UNet}
#: Networks with attention, and the size of their picture.
ATTENTIVE = {"attention_unet": (AttentionUNet, (19, 13)), "moves": (Moves, (9, 11))}


def export(network: nn.Module, picture: Tensor, path: Path, dynamo: bool) -> Path:
    """Write a network in one of torch's two ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(network, (picture,), str(path), dynamo=True, verbose=False,
                              input_names=["input"], output_names=["output"])
        else:
            torch.onnx.export(network, (picture,), str(path), dynamo=False, opset_version=18,
                              input_names=["input"], output_names=["output"])
    return path


def attentive_model(name: str, folder: Path, dynamo: bool) -> tuple[Path, np.ndarray]:
    """A seeded network with attention, and an input."""
    build, size = ATTENTIVE[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build().eval()
        picture = torch.randn(1, 3, *size)
    return export(network, picture, folder / f"{name}.onnx", dynamo), picture.numpy()


def random_pictures(count: int, seed: int, size: int = SIZE) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 1, (1, 3, size, size)).astype(np.float32) for _ in range(count)]


def float_model(name: str, folder: Path, dynamo: bool = False, size: int = SIZE) -> Path:
    """Export a seeded network, its norm statistics measured on random pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = BUILDERS[name]()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, generator=torch.Generator().manual_seed(module.weight.numel()))
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.from_numpy(np.concatenate(random_pictures(4, 5, size))))
    return export(network.eval(), torch.from_numpy(random_pictures(1, 0, size)[0]),
                  folder / f"{name}.onnx", dynamo)


class Reader(CalibrationDataReader):
    def __init__(self, shape: tuple[int, ...]) -> None:
        random = np.random.default_rng(9)
        self.left = iter([{"input": random.normal(0, 1, shape).astype(np.float32)}
                          for _ in range(2)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def int8_model(name: str, folder: Path, source: Path, symmetric: bool = True,
               activation: QuantType = QuantType.QInt8,
               shape: tuple[int, ...] = (1, 3, SIZE, SIZE)) -> Path:
    """A float network in static int8, quantize-dequantize form, as onnxruntime makes it."""
    path = folder / f"{name}_int8.onnx"
    quantize_static(
        str(source), str(path), Reader(shape), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=activation, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True})
    return path


def model_of(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int | str, ...]],
             output: str, constants: dict[str, np.ndarray] | None = None,
             opset: int = 20) -> onnx.ModelProto:
    """A model of some nodes with float inputs of these shapes."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "some",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def one_node(operator: str, inputs: int = 1, shape: tuple[int, ...] = (1, 4, 8, 8),
             constants: dict[str, np.ndarray] | None = None, **attributes: object
             ) -> onnx.ModelProto:
    """A model of one node named `one`; constants follow the inputs, in their order."""
    names = [f"x{index}" for index in range(inputs)]
    node = onnx.helper.make_node(
        operator, [*names, *(constants or {})], ["y"], name="one", **attributes)
    return model_of([node], dict.fromkeys(names, shape), "y", constants)


def three_convolutions(path: Path) -> None:
    """A float file of three convolutions on 3 x 16 x 16."""
    draw = np.random.default_rng(1)
    weights = [numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
               for name, shape in (("a", (8, 3, 3, 3)), ("b", (8, 8, 3, 3)), ("c", (4, 8, 1, 1)))]
    nodes = [helper.make_node("Conv", [source, name], [target], pads=[side] * 4)
             for source, name, target, side in (("x", "a", "y", 1), ("y", "b", "z", 1),
                                                ("z", "c", "out", 0))]
    graph = helper.make_graph(
        nodes, "three", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 4, 16, 16))], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)],
                                ir_version=8), path)


if __name__ == "__main__":
    _name, _size, _folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    _folder.mkdir(parents=True, exist_ok=True)
    print(int8_model(_name, _folder, float_model(_name, _folder, size=_size),
                     shape=(1, 3, _size, _size)))
