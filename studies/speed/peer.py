"""Times the public simulator SCALE-Sim v3 on a list of convolutions, in an environment of its own.

It does not interpret the peer's figures beyond cycles and seconds.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from rich.console import Console

from studies.plain.errors import UserError

#: The generator of the AGC decoder at 256x256: name, output rows, kernel, in and out channels.
LAYERS: tuple[tuple[str, int, int, int, int], ...] = (
    ("first", 256, 7, 3, 64),
    ("down0", 128, 3, 64, 128),
    ("down1", 64, 3, 128, 256),
    *((f"res{index}", 64, 3, 256, 256) for index in range(12)),
    ("up0", 128, 3, 256, 128),
    ("up1", 256, 3, 128, 64),
    ("final", 256, 7, 64, 3),
)
#: The peer simulates this many output rows and columns of each layer: it takes hours and tens of
#: gigabytes for whole layers, and its cycles a second do not depend on the picture's size.
CROP = 8
LAYOUT = "Layer name, a,\n{layer}, " + "1, " * 18 + "\n"
SCRIPT = """
import sys, time
from scalesim.scale_sim import scalesim
config, topology, layout, out = sys.argv[1:]
s = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology,
             layout=layout, input_type_gemm=False)
start = time.perf_counter()
s.run_scale(top_path=out)
print("seconds", time.perf_counter() - start)
"""
CONFIGURATION = """[general]
run_name = peer

[architecture_presets]
ArrayHeight: 16
ArrayWidth: 8
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 32
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 8
Dataflow: os
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40

[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: False
"""


def peer_cycles_per_s(console: Console, limit_s: float = 1200) -> list[float]:
    """Simulated cycles a second of the peer on crops, one value a layer, within the limit.

    Installs `scalesim` from the package index into a temporary environment. `UserError` when that
    or the run fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print("installing scalesim into an environment of its own")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        _run([str(python), "-m", "pip", "install", "-q", "scalesim==3.0.0",
              "numpy>=2.0.2,<2.4", "setuptools<81"], 600)
        rates = []
        began = time.perf_counter()
        seen: dict[tuple[int, int, int, int], float] = {}
        for layer, size, kernel, in_channels, out_channels in LAYERS:
            shape = (size, kernel, in_channels, out_channels)
            if shape not in seen:
                if time.perf_counter() - began > limit_s:
                    console.print(f"stopped before {layer}: {limit_s:.0f} s are over")
                    break
                seen[shape] = _one(python, folder, layer, shape, limit_s)
                console.print(f"scalesim {layer}: {seen[shape]:.4g} cycles a second")
            rates.append(seen[shape])
        return rates


def _one(python: Path, folder: Path, layer: str, shape: tuple[int, int, int, int],
         limit_s: float) -> float:
    size, kernel, in_channels, out_channels = shape
    padded = min(size, CROP) + kernel - 1  # the peer's convolutions are unpadded
    (folder / "peer.cfg").write_text(CONFIGURATION, encoding="utf-8")
    (folder / "layers.csv").write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides,\n"
        f"{layer}, {padded}, {padded}, {kernel}, {kernel}, {in_channels}, {out_channels}, 1,\n",
        encoding="utf-8")
    (folder / "layout.csv").write_text(LAYOUT.format(layer=layer), encoding="utf-8")
    out = folder / f"out_{layer}"
    text = _run([str(python), "-c", SCRIPT, str(folder / "peer.cfg"), str(folder / "layers.csv"),
                 str(folder / "layout.csv"), str(out)], limit_s)
    spent = float(text.rpartition("seconds")[2])
    for report in out.rglob("COMPUTE_REPORT.csv"):
        rows = list(csv.reader(report.read_text(encoding="utf-8").splitlines()))
        column = next(index for index, title in enumerate(rows[0]) if "Total Cycles" in title)
        return float(rows[1][column]) / spent
    raise UserError(f"scalesim wrote no compute report for {layer}")


def _run(command: list[str], limit_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]} took more than {limit_s:.0f} s") from error
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise UserError(f"{command[0]} failed; see above")
    return done.stdout
