"""Saves and loads trained tensors as safetensors files that each stay small.

It knows nothing of any network; names and shapes are the caller's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

from safetensors.torch import load_file, save
from torch import Tensor, float16, nn

from arch_models.output import write_whole

#: Largest payload of one file in bytes; a hosted repository should hold no larger ones.
PART_BYTES = 11_000_000


def part_path(path: Path, part: int) -> Path:
    """Return where part 1, 2, ... of a weight file lies; part 1 keeps the plain name."""
    return path if part == 1 else path.with_name(f"{path.stem}_part{part}{path.suffix}")


def compact(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of named modules as "name.key".

    Weights of two and more dimensions become float16; biases and norm values stay float32,
    because a small variance does not survive half precision.
    """
    tensors = {}
    for prefix, module in modules.items():
        for key, value in module.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            value = value.detach().cpu().contiguous()
            tensors[f"{prefix}.{key}"] = value.to(float16) if value.ndim > 1 else value.float()
    return tensors


def save_parts(path: Path, tensors: dict[str, Tensor]) -> list[Path]:
    """Write the tensors in order into as few files as stay under PART_BYTES each."""
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if parts[-1] and filled + size > PART_BYTES:
            parts.append({})
            filled = 0
        parts[-1][name] = value
        filled += size
    paths = [part_path(path, index) for index in range(1, len(parts) + 1)]
    for where, part in zip(paths, parts, strict=True):
        write_whole(where, partial(_fill, part))
    return paths


def _fill(part: dict[str, Tensor], file: BinaryIO) -> None:
    file.write(save(part))


def load_parts(path: Path) -> dict[str, Tensor]:
    """Read all parts of a weight file as float32; FileNotFoundError if part 1 is not there."""
    if not path.exists():
        raise FileNotFoundError(f"no weight file {path.name} in {path.parent.name}")
    tensors: dict[str, Tensor] = {}
    part = 1
    while (where := part_path(path, part)).exists():
        tensors |= {name: value.float() for name, value in load_file(where).items()}
        part += 1
    return tensors


def fill(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load the tensors "prefix.key" into a module; ValueError when they do not fit it."""
    start = len(prefix) + 1
    own = {name[start:]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
    missing, unexpected = module.load_state_dict(own, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights do not fit {prefix}: missing {missing}, unknown {unexpected}")
