"""`cosim validate onnx`: an imported network beside onnxruntime, at its outputs and by layers.

It compares nothing itself; `outputs` and `layers` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from rich.table import Table

from studies.evaluation.inputs import PLAIN, Reading
from studies.evaluation.losses import MOST_INPUTS, LayerLoss, feeds_of, read, run_both
from studies.plain.errors import UserError
from studies.plain.files import write_json
from studies.plain.records import encode
from studies.plain.terminal import grid, terminal
from studies.validate.onnx.layers import (
    NEAR_HALF_STEPS,
    WANTED_SHARE,
    Agreement,
    agreement,
    by_operator,
    share_within_one,
)
from studies.validate.onnx.outputs import OutputAgreement, outputs


class OnnxFile(TypedDict):
    """What `cosim validate onnx --json` writes. `quantizer`: why onnxruntime's could not be
    compared, empty if it was; `share_within_one_step`: None where no layer was compared."""

    file: str
    note: str
    outputs: Sequence[OutputAgreement]
    quantizer: str
    share_within_one_step: float | None
    int8_beside_float: Sequence[LayerLoss]
    operators: dict[str, dict[str, int]]
    layers: Sequence[Agreement]


def run(path: Path, reading: Reading = PLAIN, seed: int = 0, json: Path | None = None) -> int:
    """Print the comparison; 0 if everything agrees as far as is asked, else 1."""
    imported = read(path, reading)
    both = run_both(imported, feeds_of(imported.model, reading, seed)[:MOST_INPUTS])
    ends, reason = outputs(path, imported, reading, seed, both)
    layers, apart = list[Agreement](), ""
    lost = [] if imported.stated else both.layers
    if imported.stated:
        try:
            layers = agreement(imported, path, seed)
        except UserError as error:  # partly quantized: its outputs are compared all the same
            apart = str(error)
    if json is not None:
        document: OnnxFile = {
            "file": path.name, "note": imported.note, "outputs": encode(ends),
            "quantizer": reason, "share_within_one_step": share_within_one(layers),
            "int8_beside_float": encode(lost),
            "operators": by_operator(layers), "layers": encode(layers)}
        write_json(json, document)
    console = terminal()
    console.print(f"{path.name}: {imported.note}")
    console.print(_outputs_table(ends))
    if reason:
        console.print(f"onnxruntime's quantizer does not take the file: {reason}", markup=False)
    if apart:
        console.print(f"not compared layer by layer: {apart}", markup=False)
    good = all(item.good for item in ends)
    if lost:
        console.print(_losses_table(lost))
        console.print("SQNR: of a layer's output, with all that was lost before it", soft_wrap=True)
    share = share_within_one(layers)
    if share is not None:
        console.print(_layers_table(path, layers))
        console.print(f"{100 * share:.4f} % of the values within one step, {100 * WANTED_SHARE} "
                      "wanted")
        good = good and share >= WANTED_SHARE
    return 0 if good else 1


def _outputs_table(found: list[OutputAgreement]) -> Table:
    table = grid("outputs of the file as given, beside onnxruntime", (
        "output", "values", "float, error", "int8, dB", "its quantizer, dB", "with zero points",
        "as asked"))
    for item in found:
        table.add_row(
            item.output, str(item.values),
            "" if item.float_error is None else f"{item.float_error:.1e}", f"{item.int8_db:.1f}",
            *("" if value is None else f"{value:.1f}"
              for value in (item.quantizer_db, item.zero_points_db)),
            "yes" if item.good else "no")
    return table


def _losses_table(found: list[LayerLoss]) -> Table:
    """The layers in their order; the lowest are where int8 costs most."""
    table = grid("int8 beside float", ("layer", "operator", "SQNR, dB"), ("operator",))
    for item in found:
        table.add_row(item.layer, item.operator, f"{item.int8_db:.1f}")
    return table


def _layers_table(path: Path, found: list[Agreement]) -> Table:
    table = grid(f"{path.name}: reference against onnxruntime, layer by layer", (
        "operator", "layers", "values", "equal, %", "one step", "further",
        f"within {NEAR_HALF_STEPS} of a half"))
    for operator, own in by_operator(found).items():
        table.add_row(operator, str(own["layers"]), str(own["values"]),
                      f"{100 * own['equal'] / own['values']:.4f}", str(own["one_step"]),
                      str(own["further"]), str(own["near_half"]))
    return table
