"""Steps that every training takes: its device, its clock, a falling rate, one clipped update.

It knows no network and no loss. A training is bounded by seconds, not by steps, so a repeat on
another machine gives a like network and not the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


def started(seed: int) -> str:
    """Seed torch, let a GPU take its fastest kernels, and name the device: "cuda" or "cpu"."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: str) -> torch.autocast:
    """The mixed-precision context: bfloat16 on a GPU, nothing on a CPU."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def shares(seconds: float, began: float | None = None) -> Iterator[float]:
    """The share of the seconds that is spent, until it is all; nothing where none is left.

    `began`: when the clock (`time.monotonic`) was started; now if left out.
    """
    began = time.monotonic() if began is None else began
    while (spent := time.monotonic() - began) < seconds:
        yield spent / seconds


def falling(share: float, least: float = 0.003) -> float:
    """The learning rate's factor: a short rise, then a cosine down to `least`."""
    return min(1.0, share / 0.02 + 0.02) * max(0.5 * (1 + math.cos(math.pi * share)), least)


def update(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float,
           values: Sequence[Tensor], most: float = 1.0) -> None:
    """Take one step at that rate, times each group's own factor.

    `most`: the greatest norm of the gradient of all `values`; a longer one is shortened to it.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(values, most, foreach=True)
    optimizer.step()
