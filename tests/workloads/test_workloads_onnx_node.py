"""Do the ONNX standard's own tests of single nodes come out right, or refused for a true reason?

Every operator that the importer knows. Each test runs with its first floating-point input as the
activation and the rest constant, with each other one, and with all of them.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from tests.support.source import ROOT
from workloads.graph import GraphError
from workloads.onnx.importer import entered, walked
from workloads.onnx.operators import RULES
from workloads.onnx.read import checked_model, read_model
from workloads.onnx.rules.expansions import EXPANSIONS
from workloads.onnx.walk import Walk
from workloads.quantization.float_network import execute_real

Variant = tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]
OPERATORS = sorted({*RULES, *EXPANSIONS})
FLOATS = (np.float16, np.float32, np.float64)
#: These take integers.
INTEGERS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DequantizeLinear"}
#: Reasons for a refusal, each with the operators that it may be given for.
TRUE_REASONS = {
    # Weights, scales, bounds, sizes and exponents are constants of the hardware.
    r"'[^']+' must be a constant": {
        "LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization",
        "Clip", "Conv", "ConvTranspose", "Pad", "Pow", "QuantizeLinear", "DequantizeLinear",
        "Resize", "Upsample", "LSTM", "GRU", "RNN", "RMSNormalization", *INTEGERS},
    r"the zero point must be": INTEGERS,
    r"its integers must be read by ConvInteger": {"DynamicQuantizeLinear"},
    r"peepholes must be left out|layout must be 0": {"LSTM", "GRU", "RNN"},
    r"has no elements: axis \d is 0": {*OPERATORS},
    r"would have no elements": {"Slice"},
    r"what counts in integers behind it|stay floating point, or become whole": {"Cast", "CastLike"},
    r"mode (nearest|cubic) must be linear": {"GridSample"},
    r"the mask must not be used": {"Dropout"},
    r"training_mode must be": {"BatchNormalization", "Dropout"},
    r"activations must have one scale": {"QuantizeLinear", "DequantizeLinear"},
    r"\w+ activations must be int8 or uint8": {"QuantizeLinear"},
    r"the exponent must be one number": {"Pow"},
    r"the indices of the greatest values must not be used": {"MaxPool"},
    r"u?int16 values must have 8 bits": {"DequantizeLinear"},
    r"no whole number: runtimes differ there": {"Resize"},
    r"reduction \w+ must be none": {"ScatterND", "ScatterElements"},
    r"extrapolation_value must be 0": {"Resize"},
    r"equation '[^']+' must be of one or two tensors": {"Einsum"},
}
#: Absolute error where a test's own numbers have few digits or a shorter type.
COARSE = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4,
          "FLOAT16": 1e-3, "BFLOAT16": 1e-2}
#: Outputs that an inference export leaves unread.
FIRST_OUTPUT = {"LayerNormalization"}


@functools.cache
def cases() -> dict[str, list[TestCase]]:
    found = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            nodes = case.model.graph.node
            tensors = all(item.type.HasField("tensor_type") for item in case.model.graph.input)
            if len(nodes) == 1 and nodes[0].domain in ("", "ai.onnx") and tensors:
                found[nodes[0].op_type].append(case)
    return found


def plain(value: object) -> np.ndarray:
    found = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
    return np.asarray(found)


def variants(case: TestCase) -> Iterator[Variant]:
    given, wanted = case.data_sets[0]
    values = {item.name: plain(array) for item, array in zip(
        case.model.graph.input, given, strict=False)}
    kinds = FLOATS if case.model.graph.node[0].op_type not in INTEGERS else (
        *FLOATS, np.int8, np.uint8)
    taken = [name for name, array in values.items() if array.dtype in kinds]
    for active in dict.fromkeys([*((name,) for name in taken), tuple(taken)]):
        if not active:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        kept = [item for item in case.model.graph.input if item.name in active]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in values.items()
            if name not in active)
        model.graph.node[0].name = "one"
        if model.graph.node[0].op_type in FIRST_OUTPUT:
            del model.graph.output[1:]
        yield model, {name: values[name] for name in active}, plain(wanted[0])


def outputs(walk: Walk, values: dict[str, np.ndarray]) -> np.ndarray:
    """What the float network makes of the first output, rounded where the file rounds it."""
    network = walk.network()
    given = entered(walk.model, network.graph, values)
    name = walk.model.outputs[0]
    view = walk.views[name]
    # Readers of a graph know its scales alone: nothing is left to apply to what it makes.
    assert view.function is None
    assert walk.shifts.keys().isdisjoint((*network.graph.inputs, *network.graph.outputs))
    flat = execute_real(network, given)[view.tensor].reshape(-1)
    real = np.where(view.places >= 0, flat[view.places], 0)
    if name in walk.counted:
        counted = walk.counted[name]
        bounds = np.iinfo(counted.kind)
        return np.clip(np.rint(real / counted.step) + counted.zero, bounds.min, bounds.max)
    return real


def assert_right_or_refused(operator: str, case: TestCase, variant: Variant) -> bool:
    model, values, wanted = variant
    try:
        walk = walked(checked_model(model, "standard.onnx"))
    except GraphError as error:
        said = str(error)
        assert "standard.onnx" in said and (f"{operator} 'one'" in said or "input '" in said)
        assert any(re.search(pattern, said) and operator in operators
                   for pattern, operators in TRUE_REASONS.items()), f"{case.name}: {said}"
        if f"1 nodes are not supported: {operator} 'one': the zero point must be" not in said:
            return False
        walk = walked(checked_model(model, "standard.onnx"), symmetric=True)
    with np.errstate(all="ignore"):
        found = outputs(walk, values)
        wanted = wanted.astype(np.float64)
        limit = max((limit for name, limit in COARSE.items() if name in case.name), default=1e-5)
        finite = np.isfinite(wanted)
        greatest = np.abs(wanted[finite]).max(initial=1.0)
    assert found.shape == wanted.shape, case.name
    assert np.abs(found[finite] - wanted[finite]).max(initial=0) <= limit * greatest, case.name
    return True


def test_the_documents_name_every_operator_and_no_other() -> None:
    text = (ROOT / "docs/extending.md").read_text("utf-8")
    table = text.partition("\n| operators |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([A-Z][^|]*|com.microsoft[^|]*|qonnx[^|]*) \|", table, re.M)
    named = set()
    for row in rows:
        domain, _, operators = row.rpartition(": ")
        named |= {f"{domain}:{name}" if domain else name for name in operators.split(", ")}
    assert named == {name for name in OPERATORS if " " not in name}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_standards_own_node_tests(operator: str) -> None:
    right = 0
    for case in cases()[operator]:
        for variant in variants(case):
            right += assert_right_or_refused(operator, case, variant)
    # No operators of ONNX, or tested with integers or truths alone.
    untested = {"DynamicQuantizeLinear", "Trilu", "And", "Or", "Xor", "Not", "If", "Equal",
                *(name for name in OPERATORS if not cases()[name])}
    assert right or operator in untested


def test_most_of_them_come_out_right() -> None:
    """With the first floating-point input as the activation. Casts are mostly to other types."""
    outcomes = [assert_right_or_refused(operator, case, next(variants(case)))
                for operator in OPERATORS if "Cast" not in operator
                for case in cases()[operator]
                if any(array.dtype in FLOATS for array in map(plain, case.data_sets[0][0]))]
    assert len(outcomes) > 400 and sum(outcomes) / len(outcomes) > 0.8


def test_old_files_of_torch_keep_their_rules() -> None:
    """Modules as torch wrote them in operator set 6, which the package onnx brings forward."""
    right = 0
    for path in sorted((Path(onnx.__file__).parent / "backend/test/data").glob(
            "pytorch-*/*/model.onnx")):
        names = [item.name for item in onnx.load(str(path)).graph.input]
        data = path.parent / "test_data_set_0"
        given = {name: read_tensor(data / f"input_{place}.pb") for place, name in enumerate(names)
                 if (data / f"input_{place}.pb").exists()}
        integers = any(array.dtype != np.float32 for array in given.values())
        if integers or path.parent.name == "test_operator_pow":  # an exponent that is no constant
            continue
        walk = walked(read_model(path))
        found = outputs(walk, given)
        wanted = read_tensor(data / "output_0.pb")
        assert found.shape == wanted.shape, path
        known = np.isfinite(wanted)  # the root of a negative number is none
        limit = 1e-5 * np.abs(wanted[known]).max(initial=1)
        assert np.abs(found - wanted)[known].max() <= limit, path
        right += 1
    assert right > 80


def read_tensor(path: Path) -> np.ndarray:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)
