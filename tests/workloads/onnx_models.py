"""Builds ONNX models for tests: ResNet-18, MobileNetV2 and a U-Net, float and static int8.

Weights are seeded; inputs are 64 x 64, so that a test takes seconds.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

SIZE = 64


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


BUILDERS = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2, "unet": UNet}


def random_pictures(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 1, (1, 3, SIZE, SIZE)).astype(np.float32) for _ in range(count)]


def float_model(name: str, folder: Path) -> Path:
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
        network.train()(torch.from_numpy(np.concatenate(random_pictures(4, 5))))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(), (torch.from_numpy(random_pictures(1, 0)[0]),), buffer, dynamo=False,
            opset_version=18, input_names=["input"], output_names=["output"])
    path = folder / f"{name}.onnx"
    path.write_bytes(buffer.getvalue())
    return path


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = iter([{"input": picture} for picture in random_pictures(3, 9)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def int8_model(name: str, folder: Path) -> Path:
    """The same network in static symmetric int8, quantize-dequantize form."""
    source, path = float_model(name, folder), folder / f"{name}_int8.onnx"
    quantize_static(
        str(source), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True})
    return path


def one_node(operator: str, inputs: int = 1, **attributes: object) -> onnx.ModelProto:
    """A model of one node on (1, 4, 8, 8) tensors."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = [f"x{index}" for index in range(inputs)]
    node = helper.make_node(operator, names, ["y"], name="one", **attributes)
    graph = helper.make_graph(
        [node], "single",
        [helper.make_tensor_value_info(name, kind, [1, 4, 8, 8]) for name in names],
        [helper.make_tensor_value_info("y", kind, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
