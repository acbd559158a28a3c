"""Compares an imported network with onnxruntime at the outputs of the file as it was given.

It looks at no layer; `layers` does. A fault of the import shows here whatever the import believes
of the file.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.evaluation.inputs import Reading
from studies.evaluation.losses import MOST_INPUTS, Both, decibels, feeds_of, joined, run_both
from studies.plain.errors import UserError
from workloads.onnx.importer import Imported, random_inputs
from workloads.onnx.read import has_halves, read_file

Arrays = Mapping[str, np.ndarray]
#: Greatest difference of a float file's network, as a share of the output's greatest value.
WANTED_FLOAT = 1e-5
#: The same of a file with numbers of 16 bits, each rounded to 11 digits in the runtime.
WANTED_HALF = 2.0**-9
#: Signal to error of a static int8 file: what differs is rounding near a half.
WANTED_STATED_DB = 20.0
#: How far below onnxruntime's own quantizer the int8 network of a float file may be.
WANTED_BEHIND_DB = 1.0
#: What these make reaches to 1; onnxruntime computes them to about 1e-7 of that.
OF_ONE = frozenset({"Sigmoid", "Softmax"})
#: A quantized network that is nearer than this was left in floats there: 8 bits can't be.
FLOAT_DB = 100.0


@dataclass(frozen=True)
class OutputAgreement:
    """One output over all inputs compared: the float network's greatest difference as a share of
    the greatest value (of 1 for what a sigmoid or softmax makes), and signal to error of the int8
    network and of onnxruntime's quantizer, with symmetric activations (all that the hardware counts
    in) and with zero points.

    None: not comparable (a file with integers of its own has no float values; its quantizer may
    leave an output in floats). `wanted_float`: the greatest difference that is as asked.
    """

    output: str
    values: int
    float_error: float | None
    int8_db: float
    quantizer_db: float | None
    zero_points_db: float | None
    wanted_float: float = WANTED_FLOAT

    @property
    def good(self) -> bool:
        """Is it as near as is asked?"""
        if self.float_error is None:
            return self.int8_db >= WANTED_STATED_DB
        behind = 0.0 if self.quantizer_db is None else self.quantizer_db - self.int8_db
        return self.float_error <= self.wanted_float and behind <= WANTED_BEHIND_DB


def outputs(path: Path, imported: Imported, reading: Reading, seed: int = 0,
            both: Both | None = None) -> tuple[list[OutputAgreement], str]:
    """Each output beside onnxruntime's, and why its quantizer could not be compared ("" if so).

    `both`: the networks on these inputs where they were run already."""
    feeds = feeds_of(imported.model, reading, seed)
    proto = read_file(path)
    model, limit = proto.SerializeToString(), WANTED_HALF if has_halves(proto) else WANTED_FLOAT
    names = list(imported.model.outputs)
    of_one = {name for node in proto.graph.node if node.op_type in OF_ONE for name in node.output}
    chosen = feeds[:MOST_INPUTS]
    wanted = run_model(model, names, chosen)
    others: list[list[dict[str, np.ndarray]] | None] = [None, None]
    reason = ""
    if not imported.counts:
        calibrated = feeds if reading.calibration else random_inputs(
            imported.model, MOST_INPUTS, 0)
        try:
            others = [run_model(_quantized(path, calibrated, symmetric), names, chosen)
                      for symmetric in (True, False)]
        except Exception as error:  # the quantizer raises anything
            reason = " ".join(str(error).split())[:160]
    both = both or run_both(imported, chosen)
    found = []
    for name in names:
        truth = joined(item[name] for item in wanted)
        ours, eight = (joined(item[name] for item in part)
                       for part in (both.real, both.counted))
        symmetric, pointed = (
            None if part is None else _rounded(truth, joined(item[name] for item in part))
            for part in others)
        greatest = 1.0 if name in of_one else max(float(np.abs(truth).max()), 1e-30)
        found.append(OutputAgreement(
            name, truth.size,
            None if imported.counts else float(np.abs(ours - truth).max()) / greatest,
            decibels(truth, eight), symmetric, pointed, limit))
    return found, reason


def _rounded(wanted: np.ndarray, found: np.ndarray) -> float | None:
    """Signal to error of a quantized network, None where it was left in floats."""
    apart = decibels(wanted, found)
    return None if apart > FLOAT_DB else apart


def run_model(model: bytes, names: Sequence[str],
              feeds: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """The named tensors as onnxruntime computes them, each operator by itself: fused kernels
    round less often than the file says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model, options)
        return [dict(zip(names, session.run(list(names), dict(item)), strict=True))
                for item in feeds]
    except Exception as error:  # onnxruntime has no common type of its own
        raise UserError("onnxruntime does not run the file: "
                        + " ".join(str(error).split())[:200]) from error


def _quantized(path: Path, feeds: Sequence[Arrays], symmetric: bool) -> bytes:
    """The float file as onnxruntime's static quantizer makes it int8: weights by channel,
    `symmetric` activations or such with zero points."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Given(CalibrationDataReader):
        left = iter([dict(item) for item in feeds])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(read_file(path).SerializeToString())
        quantize_static(str(source), str(target), Given(), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QInt8,
                        weight_type=QuantType.QInt8,
                        extra_options={"ActivationSymmetric": symmetric})
        return target.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's advice on the root logger and the runtime's on the terminal."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(2)
