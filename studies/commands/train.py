"""`cosim train`: fit the two decoders to pictures, quantize them, and measure the float ones.

It parses and writes; what is fitted, and how, is in `workloads.training`. What a file says of its
making is the command that makes it again, whatever folder it went to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.commands.options import Json
from studies.plain.errors import UserError, unknown
from studies.plain.files import (
    check_writable,
    check_writables,
    output_folder,
    write_json,
    write_whole,
)

if TYPE_CHECKING:
    from workloads.training.made import Made

Seconds = Annotated[float, typer.Option(min=1, help="How long, all in all.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures an update.")]
Rate = Annotated[float, typer.Option(min=0, help="The greatest learning rate.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of weights and drawn pictures.")]
Weights = Annotated[Path, typer.Option(
    "--out", "-o", help="The folder of the weights; made if missing.")]
Resume = Annotated[Path | None, typer.Option(
    exists=True, dir_okay=False, help="A weight file to go on from.", show_default=False)]
Images = Annotated[int, typer.Option(min=1, max=2**20, help="Pictures of the set, from the first.")]
Graphs = Annotated[Path | None, typer.Option(
    "--out", "-o", help="The folder to write to.", show_default="workloads/data")]
Networks = Annotated[list[str] | None, typer.Argument(
    help="Trained decoders.", show_default="all that ship")]
SCALES = ("power-of-two", "multiplier")
Count = Annotated[int, typer.Option(min=1, max=10**4, help="Pictures a network.")]


def agc(
    network: Annotated[str, typer.Argument(help="A size, for example w16 or t32b4.")],
    out: Weights,
    seconds: Seconds = 500.0,
    batch: Batch = 32,
    bank: Annotated[int, typer.Option(min=1, help="Rendered heads to draw from.")] = 3000,
    rate: Rate = 8e-4,
    seed: Seed = 1,
    start: Annotated[str | None, typer.Option(
        help="A trained decoder that is cut to this size.", show_default=False)] = None,
    teacher: Annotated[str | None, typer.Option(
        help="A trained decoder whose frames are followed.", show_default=False)] = None,
    fresh: Annotated[int, typer.Option(
        min=0, help="Pairs rendered a batch; the others are shown again. 0: all.")] = 0,
    photos: Annotated[float, typer.Option(
        min=0, max=0.875, help="Share of warped photographs.")] = 0.0,
    resume: Resume = None,
) -> None:
    """Train an AGC decoder with its keypoint detector on rendered heads (docs/training.md)."""
    from workloads.agc.config import SIZES, TRAINED

    _known("size of the AGC decoder", [network], SIZES)
    _known("trained AGC decoder", [name for name in (start, teacher) if name], TRAINED)
    from workloads.training.agc import train as job

    output_folder(out)
    done = job.run(job.Request(network, out, seconds, batch, bank, rate, seed, start, teacher,
                               fresh, photos, resume), _told)
    _told(f"{network} done: {done.updates} updates, psnr {done.psnr_db:.2f} dB on heads that it "
          f"was trained on; wrote {_names(done.paths)}")


def autoencoder(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write (.safetensors).")],
    seconds: Seconds = 105.0,
    batch: Batch = 32,
    seed: Seed = 3,
    resume: Annotated[Path | None, typer.Option(
        exists=True, dir_okay=False, show_default=False,
        help="A decoder's weights; its picture part stays, the encoder is fitted to it.")] = None,
) -> None:
    """Train the autoencoder whose latents Unicorn learns to make (docs/training.md)."""
    from safetensors.torch import save

    from workloads.training.unicorn import autoencoder as job

    check_writable(out)
    tensors = job.run(job.Request(images, seconds, batch, seed, resume), _told)
    write_whole(out, lambda file: file.write(save(tensors)))
    _told(f"wrote {out.name}")


def unicorn(
    images: Images,
    autoencoder: Annotated[Path, typer.Option(
        exists=True, dir_okay=False, help="What `cosim train autoencoder` wrote.")],
    out: Weights,
    seconds: Seconds = 430.0,
    batch: Batch = 32,
    latent_batch: Annotated[int, typer.Option(min=1, help="Latents an update.")] = 256,
    rate: Rate = 1.5e-3,
    seed: Seed = 3,
    resume: Resume = None,
) -> None:
    """Train a Unicorn decoder on the latents of an autoencoder (docs/training.md)."""
    from workloads.training.unicorn import train as job

    output_folder(out)
    done = job.run(job.Request(images, seconds, autoencoder, out, batch, latent_batch, rate, seed,
                               resume), _told)
    _told(f"n{images}: latent error {done.latent_error:.4f}, psnr {done.before_db:.2f} then "
          f"{done.after_db:.2f} dB, {done.weights} weights; wrote {_names(done.paths)}")


def fine_tune(
    network: Annotated[str, typer.Argument(help="A trained Unicorn decoder, for example n256.")],
    seconds: Annotated[float, typer.Option(min=1, help="Of fine-tuning alone.")],
    out: Graphs = None,
    batch: Batch = 24,
    rate: Rate = 4e-4,
    seed: Seed = 5,
    narrow: Annotated[float, typer.Option(
        min=0, max=1, help="Share of the weights that get 4 bits.")] = 0.0,
    steps: Annotated[int, typer.Option(
        min=1, max=64, help="Sampler steps of the decoder that is made.")] = 8,
    suffix: Annotated[str, typer.Option(help="Of the network's name.")] = "int8",
) -> None:
    """Fine-tune a Unicorn decoder with its int8 rounding in the loop."""
    _known_unicorn([network])
    from workloads.training.unicorn import finetune as job

    folder = _graphs(out)
    made = job.run(job.Request(network, seconds, batch, rate, seed, narrow, steps, suffix), _told)
    _save(made, folder, f"cosim train fine-tune {network} --seconds {seconds:g} --batch {batch} "
          f"--rate {rate:g} --seed {seed} --narrow {narrow:g} --steps {steps} --suffix {suffix}")


def fine_tune_agc(
    network: Annotated[str, typer.Argument(help="A trained AGC decoder, for example t32b4.")],
    seconds: Annotated[float, typer.Option(min=1, help="All in all, but for the measuring.")],
    out: Graphs = None,
    batch: Batch = 32,
    bank: Annotated[int, typer.Option(min=1, help="Rendered heads to draw from.")] = 3000,
    rate: Rate = 4e-4,
    seed: Seed = 7,
    fresh: Annotated[int, typer.Option(
        min=0, help="Pairs rendered a batch; the others are shown again. 0: all.")] = 8,
) -> None:
    """Fine-tune an AGC decoder with 4-bit weights in the loop, quantize and measure it."""
    from workloads.agc.config import TRAINED

    _known("trained AGC decoder", [network], TRAINED)
    from workloads.training.agc import finetune as job

    folder = _graphs(out)
    made = job.run(job.Request(network, seconds, batch, bank, rate, seed, fresh), _told)
    _save(made, folder, f"cosim train fine-tune-agc {network} --seconds {seconds:g} "
          f"--batch {batch} --bank {bank} --rate {rate:g} --seed {seed} --fresh {fresh}")


def quantize_agc(
    network: Annotated[str, typer.Argument(help="A trained AGC decoder, for example w16.")],
    scales: Annotated[str, typer.Option(
        help="Form of the requantization: power-of-two or multiplier.")] = "power-of-two",
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="Calibration pairs.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=99, help="Of the calibration pairs.")] = 0,
    out: Graphs = None,
) -> None:
    """Quantize a trained AGC decoder to int8 and measure what that loses."""
    from workloads.agc.config import TRAINED

    _known("trained AGC decoder", [network], TRAINED)
    _known("form of scales", [scales], SCALES)
    from workloads.training.agc import quantize as job

    folder = _graphs(out)
    made = job.run(job.Request(network, scales == SCALES[0], pairs, seed))
    _save(made, folder, f"cosim train quantize-agc {network} --scales {scales} --pairs {pairs} "
          f"--seed {seed}")


def quantize_unicorn(
    network: Annotated[str, typer.Argument(help="A trained Unicorn decoder, for example n256.")],
    scales: Annotated[str, typer.Option(
        help="Form of the requantization: power-of-two or multiplier.")] = "multiplier",
    pictures: Annotated[int, typer.Option(min=1, max=1000, help="Calibration pictures.")] = 4,
    activations: Annotated[int, typer.Option(
        help="Bits of activations: 8 or 16; 8 lose several dB.")] = 16,
    out: Graphs = None,
) -> None:
    """Quantize a trained Unicorn decoder without training it and measure what that loses."""
    _known_unicorn([network])
    _known("form of scales", [scales], SCALES)
    if activations not in (8, 16):
        raise UserError(f"--activations is {activations}; must be 8 or 16.")
    from workloads.training.unicorn import quantize as job

    folder = _graphs(out)
    made = job.run(job.Request(network, scales == SCALES[0], pictures, activations))
    _save(made, folder, f"cosim train quantize-unicorn {network} --scales {scales} --pictures "
          f"{pictures} --activations {activations}")


def measure_agc(networks: Networks = None, count: Count = 48,
                seed: Annotated[int, typer.Option(min=0, max=99, help="Of heads and motions.")] = 0,
                json: Json = None) -> None:
    """Measure the float AGC decoders on held-out heads and motions."""
    from workloads.agc.config import TRAINED

    _known("trained AGC decoder", networks or (), TRAINED)
    from workloads.training.agc import evaluate as job

    check_writables(json)
    _shown(job.run(networks or TRAINED, count, seed), json)


def measure_unicorn(networks: Networks = None, count: Count = 64, json: Json = None) -> None:
    """Measure the float Unicorn decoders on their first pictures, JPEG and WebP beside them."""
    known = _known_unicorn(networks or ())
    from workloads.training.unicorn import evaluate as job

    check_writables(json)
    _shown(job.run(networks or known, count), json)


def frame(out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="The file to write.", show_default="workloads/agc/frame.npz")] = None,
) -> None:
    """Make the real frame anew that AGC is emitted and checked with."""
    from workloads.frames import AGC_FRAME
    from workloads.training.pictures.clips import write_shipped_pair

    path = check_writable(out or AGC_FRAME)
    write_shipped_pair(path)
    _told(f"wrote {path.name}")


def _known(kind: str, names: Iterable[str], choices: Iterable[str]) -> None:
    """`UserError` for a name that is none of the choices."""
    known = list(choices)
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _known_unicorn(names: Iterable[str]) -> list[str]:
    """The trained Unicorn decoders; `UserError` for a name that is none of them."""
    from workloads.unicorn.torch import TRAINED

    known = sorted(TRAINED, key=TRAINED.__getitem__)
    _known("trained Unicorn decoder", names, known)
    return known


def _graphs(out: Path | None) -> Path:
    from workloads.library import DATA

    return output_folder(out or DATA)


def _save(made: Made, folder: Path, command: str) -> None:
    from workloads.library import save_graph

    for name, value in made.provenance.items():
        if isinstance(value, float):
            _told(f"{name}: {value:g}")
    stem = folder / made.graph.name.replace("-", "_")
    save_graph(made.graph, stem, {"command": command, **made.provenance})
    _told(f"wrote {stem.name}.safetensors and {stem.name}.json")


def _shown(rows: Iterable[dict[str, object]], json: Path | None) -> None:
    """Print each row as it comes, and write all as JSON if asked."""
    kept = []
    for row in rows:
        kept.append(row)
        _told("  ".join(f"{value:.4f} {name}" if isinstance(value, float) else str(value)
                        for name, value in row.items()))
    if json is not None:
        write_json(json, kept)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _told(line: str) -> None:
    print(line, flush=True)
