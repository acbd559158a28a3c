"""Fine-tunes a trained Unicorn with its rounding in the loop (quantization-aware training).

It writes the integer graph of what it fitted, and starts from the shipped float weights. The whole
decode is unrolled, all sampler steps and the picture decoder, and the loss is on the picture, as in
`train`. With `--steps` fewer are unrolled than the float weights were trained for: the weights
learn to do in them what all steps did; the pictures themselves teach. On a GPU one
update is captured once and replayed, since it is thousands of small kernels. `cosim train
fine-tune` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads.training.fitting import falling, shares, started
from workloads.training.losses import RandomFeatures, psnr
from workloads.training.made import Made
from workloads.training.pictures.picture_set import picture_set
from workloads.training.rounded_network import STEP_RATE
from workloads.training.unicorn.autoencoder import batch_of, picture_loss
from workloads.training.unicorn.rounded import RoundedUnicorn, calibrated
from workloads.training.unicorn.train import TABLE_RATE
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.torch import load_unicorn


def wide_layers(rounded: RoundedUnicorn, share: float) -> list[str]:
    """The convolutions with the most weights, until they hold that share of all; they go to 4 bits.

    Each weight of a layer of many is worth less: its sum averages more rounding errors.
    """
    sizes = {layer: value.numel() for part in rounded.parts()
             for layer in part.steps for value in (part.values[f"{layer}.weights"],)}
    chosen: list[str] = []
    total = 0
    for layer in sorted(sizes, key=lambda name: -sizes[name]):
        if total >= share * sum(sizes.values()):
            break
        chosen.append(layer)
        total += sizes[layer]
    return chosen


@torch.no_grad()
def each_psnr(decode: Callable[[Tensor], Tensor], pictures: Tensor, batch: int = 16) -> Tensor:
    """PSNR in dB of each picture of the set."""
    found = []
    for index in torch.arange(len(pictures), device=pictures.device).split(batch):
        found.append(psnr(decode(index).clamp(0, 1), batch_of(pictures, index)))
    return torch.cat(found)


class Update:
    """One step of the optimizer; captured as a CUDA graph where there is a GPU."""

    def __init__(self, rounded: RoundedUnicorn, pictures: Tensor, batch: int, rate: float) -> None:
        self.rounded, self.pictures, self.rate = rounded, pictures, rate
        device = pictures.device
        fitted = [value for part in rounded.parts() for value in part.fitted_values()]
        steps = [value for part in rounded.parts() for value in part.steps.values()]
        self.all = [*fitted, *steps, rounded.table]
        self.factors = (1.0, STEP_RATE, TABLE_RATE)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": torch.tensor(rate, device=device)}
             for group in (fitted, steps, [rounded.table])],
            betas=(0.9, 0.99), weight_decay=0.0, capturable=device.type == "cuda",
            fused=device.type == "cuda")
        self.net = RandomFeatures().to(device)
        self.index = torch.arange(batch, device=device) % len(pictures)
        self.error = torch.zeros((), device=device)
        self.replay: Callable[[], None] = self._update
        if device.type == "cuda":
            self.replay = self._captured()

    def _update(self) -> None:
        wanted = batch_of(self.pictures, self.index)
        found = self.rounded(self.index)
        loss = picture_loss(self.net, found, wanted)
        self.error.copy_(functional.mse_loss(found.detach(), wanted))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.all, 1.0, foreach=True)
        self.optimizer.step()

    def _captured(self) -> Callable[[], None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.set_rate(1e-3)
            for _ in range(3):
                self._update()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self._update()
        return graph.replay

    def set_rate(self, share: float) -> None:
        """The learning rate at that share of the training, 0 to 1."""
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"].fill_(self.rate * falling(share) * factor)

    def __call__(self, share: float) -> None:
        """Draw a batch and take one step."""
        self.index.copy_(torch.randint(len(self.pictures), self.index.shape,
                                       device=self.index.device))
        self.set_rate(share)
        self.replay()


@dataclass(frozen=True)
class Request:
    """What to fine-tune and how long: a trained decoder of `TRAINED`, `seconds` of updates alone.

    `narrow`: share of the weights that get 4 bits. `steps`: sampler steps of the decoder that is
    made. `suffix`: of its name.
    """

    network: str
    seconds: float
    batch: int = 24
    rate: float = 4e-4
    seed: int = 5
    narrow: float = 0.0
    steps: int = UnicornConfig.steps
    suffix: str = "int8"


def fitted_for(update: Update, seconds: float, told: Callable[[str], None]) -> int:
    """Update until that many seconds are spent, and say how often."""
    began, count = time.monotonic(), 0
    for share in shares(seconds, began):
        update(share)
        count += 1
        if count % 50 == 0:
            error = update.error.item()
            if count % 200 == 0:
                told(f"{share:4.0%} step {count}: mse {error:.6f}, "
                     f"{(time.monotonic() - began) / count * 1e3:.0f} ms a step")
    return count


def weights_of(rounded: RoundedUnicorn, bits: Mapping[str, int]) -> dict[str, int]:
    """How many weights there are, and how many of them have 4 bits."""
    return {
        "parameters": sum(value.numel() for part in rounded.parts()
                          for value in part.fitted_values()) + rounded.table.numel(),
        "four_bit_layers": len(bits),
        "four_bit_weights": sum(part.values[f"{layer}.weights"].numel()
                                for part in rounded.parts() for layer in part.steps
                                if layer in bits),
    }


def run(request: Request, told: Callable[[str], None]) -> Made:
    """Calibrate, fine-tune for some seconds, measure; `told` gets a line now and then."""
    device = started(request.seed)
    whole, decoder = load_unicorn(request.network)
    config = decoder.config = replace(whole, steps=request.steps)
    began = time.monotonic()
    pictures = torch.from_numpy(picture_set(config.images, device)).to(device)
    indices = [number * config.images // 16 for number in range(16)]
    rounded = calibrated(config, decoder, indices, device=device)
    bits = dict.fromkeys(wide_layers(rounded, request.narrow), 4)
    if bits:
        rounded = calibrated(config, decoder, indices, weight_bits=bits, device=device)
    decoder = decoder.to(device)
    real, before = each_psnr(decoder, pictures), each_psnr(rounded, pictures)
    told(f"{request.network}: float {real.mean():.3f} dB, rounded {before.mean():.3f} dB, "
         f"ready in {time.monotonic() - began:.0f} s")
    update = Update(rounded, pictures, request.batch, request.rate)
    told(f"captured, {len(update.all)} tensors")
    steps = fitted_for(update, request.seconds, told)
    after = each_psnr(rounded, pictures)
    return Made(rounded.graph(f"unicorn-{request.network}-{request.suffix}"), {
        "weights": f"unicorn_{request.network}_float.safetensors, fine-tuned with rounding in the "
                   "loop (quantization-aware training)",
        "calibration": "16 pictures of the set, all sampler steps",
        "network": request.network, "steps": steps, "seconds": request.seconds,
        "batch": request.batch, "rate": request.rate, "seed": request.seed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "pictures": config.images, "sampler_steps": config.steps, **weights_of(rounded, bits),
        "float_psnr_db": round(real.mean().item(), 3),
        "post_training_psnr_db": round(before.mean().item(), 3),
        "fine_tuned_psnr_db": round(after.mean().item(), 3),
        "fine_tuned_psnr_db_of_the_first_64": round(after[:64].mean().item(), 3),
        "float_psnr_db_of_the_first_64": round(real[:64].mean().item(), 3),
    })
