"""Do typical networks come in as torch exports them: key points, a language block, text, faces?

Each is small and seeded; what it has of its family are the operators that its export writes.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.evaluation.losses import decibels
from workloads.onnx.importer import import_onnx
from workloads.quantization.float_network import execute_real
from workloads.quantization.post_training import quantized_inputs
from workloads.reference import execute


class KeyPoints(nn.Module):
    """A score for each pixel by softmax and pixel shuffle, descriptors of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 16, 3, 2, 1)
        self.score, self.describe = nn.Conv2d(16, 65, 1), nn.Conv2d(16, 32, 1)

    def forward(self, value: Tensor) -> Tensor:
        value = functional.relu(self.enter(value))
        scores = functional.pixel_shuffle(functional.softmax(self.score(value), 1)[:, :-1], 8)
        found = functional.normalize(self.describe(value), p=2.0, dim=1)
        return scores.mean((2, 3), keepdim=True) * found


class LanguageBlock(nn.Module):
    """Causal attention behind a root mean square norm, and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(32) + 0.5)
        self.mixed, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.gated, self.last = nn.Linear(32, 64), nn.Linear(32, 32)

    def forward(self, value: Tensor) -> Tensor:
        batch, count, width = value.shape
        norm = value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain
        query, key, held = self.mixed(norm).reshape(batch, count, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mask = torch.full((count, count), float("-inf")).triu(1)
        found = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5 + mask, -1) @ held
        value = value + self.out(found.transpose(1, 2).reshape(batch, count, width))
        gate, up = self.gated(value).chunk(2, -1)
        return value + self.last(functional.silu(gate) * up)


class Text(nn.Module):
    """A line of text: columns of a picture through a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 16, 3, (4, 2), 1)
        self.read = nn.LSTM(32, 24, bidirectional=True, batch_first=True)
        self.letters = nn.Linear(48, 20)

    def forward(self, value: Tensor) -> Tensor:
        value = functional.hardswish(self.enter(value))
        batch, channels, rows, columns = value.shape
        value = value.permute(0, 3, 1, 2).reshape(batch, columns, channels * rows)
        return functional.log_softmax(self.letters(self.read(value)[0]), -1)


class Face(nn.Module):
    """A volume of features moved by a flow of three axes, as face animation does."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.deep, self.norm = nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.flow = nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, value: Tensor, points: Tensor) -> Tensor:
        features = self.enter(value)
        batch, _, rows, columns = features.shape
        volume = functional.relu(self.norm(self.deep(
            features.reshape(batch, 4, 4, rows, columns))))
        axes = (torch.linspace(-1, 1, size) for size in (4, rows, columns))
        still = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)[None]
        flow = torch.tanh(self.flow(volume)).permute(0, 2, 3, 4, 1) * 0.1
        moved = functional.grid_sample(
            volume, still + flow + points[:, None, None, None], align_corners=False)
        raised = functional.interpolate(
            moved.reshape(batch, 16, rows, columns), scale_factor=2, mode="bilinear")
        return torch.sigmoid(self.out(raised))


FAMILIES = {"key_points": (KeyPoints, ((1, 1, 16, 16),)),
            "language": (LanguageBlock, ((1, 9, 32),)),
            "text": (Text, ((1, 1, 8, 20),)), "face": (Face, ((1, 3, 8, 8), (1, 3)))}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_as_torch_exports_it(name: str, tmp_path: Path) -> None:
    build, shapes = FAMILIES[name]
    path = tmp_path / f"{name}.onnx"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(2)
        values = [torch.randn(shape) * (0.05 if len(shape) == 2 else 1) for shape in shapes]
        torch.onnx.export(build().eval(), tuple(values), str(path), dynamo=False,
                          opset_version=20, input_names=["a", "b"][: len(values)],
                          output_names=["y"])
    inputs = {key: value.numpy() for key, value in zip("ab", values, strict=False)}
    wanted = onnxruntime.InferenceSession(str(path)).run(None, inputs)[0]
    found = import_onnx(path, [inputs])
    given = found.entered(inputs)
    real = found.real("y", execute_real(found.network, given))
    assert np.abs(real - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    whole = execute(found.graph, quantized_inputs(found.graph, given))
    counted = found.real("y", {key: array * found.graph.tensors[key].scale
                               for key, array in whole.items()})
    assert decibels(wanted, counted) > 28
