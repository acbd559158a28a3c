"""Is a damaged, hostile or unsuitable ONNX file refused with one clear line?"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from studies.cli import main
from tests.support.onnx_models import model_of, one_node
from workloads.graph import GraphError
from workloads.onnx import read as onnx_read
from workloads.onnx.fold import run_node
from workloads.onnx.importer import float_network, import_onnx, read_calibration
from workloads.onnx.read import checked_model, read_model
from workloads.verify import verify

SHAPE = (1, 4, 8, 8)


def saved(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def with_outside_data(folder: Path, location: str, data: str = "w.bin") -> Path:
    """A model whose weights lie in another file."""
    weights = np.ones((4, 4, 1, 1), np.float32)
    model = one_node("Conv", 1, SHAPE, {"w": weights})
    (folder / data).write_bytes(weights.tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return saved(folder, model)


def test_outside_data_beside_the_model_is_read(tmp_path: Path) -> None:
    model = read_model(with_outside_data(tmp_path, "w.bin"))
    assert np.array_equal(model.constants["w"], np.ones((4, 4, 1, 1)))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "sub/w.bin", "absent.bin", ""])
def test_outside_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = with_outside_data(tmp_path / "in", location)
    with pytest.raises(GraphError, match="must be a file in the same folder"):
        read_model(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = with_outside_data(tmp_path, "link.bin")
    os.symlink("/etc/hostname", tmp_path / "link.bin")
    with pytest.raises(GraphError, match="must be a file in the same folder"):
        read_model(path)


def test_outside_data_must_be_there_whole(tmp_path: Path) -> None:
    path = with_outside_data(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(10))
    with pytest.raises(GraphError, match="64 bytes from 0 on in 'w.bin' of 10 bytes"):
        read_model(path)


def test_a_parsed_model_has_no_folder_to_read_from(tmp_path: Path) -> None:
    model = onnx.load(str(with_outside_data(tmp_path, "w.bin")), load_external_data=False)
    with pytest.raises(GraphError, match="'w' in another file"):
        checked_model(model, "m.onnx")


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_read, "MOST_BYTES", 10)
    with pytest.raises(GraphError, match="must have at most 10"):
        read_model(saved(tmp_path, one_node("Relu")))


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    whole = one_node("Conv", 1, SHAPE, {"w": np.ones((4, 4, 1, 1), np.float32)}).SerializeToString()
    for length in (0, 1, 40, len(whole) // 2, len(whole) - 20):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:length])
        with pytest.raises(GraphError, match="cut"):
            read_model(path)


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    """Any byte may be wrong; nothing but a `GraphError` of one line comes out."""
    make = onnx.helper.make_node
    nodes = [make("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="first"),
             make("Relu", ["c"], ["r"]), make("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
             make("LayerNormalization", ["t", "s"], ["n"], axis=-1),
             make("MatMul", ["n", "m"], ["y"])]
    whole = model_of(nodes, {"x": SHAPE}, "y", {
        "w": np.ones((4, 4, 3, 3), np.float32), "s": np.ones(4, np.float32),
        "m": np.ones((4, 2), np.float32)}).SerializeToString()
    random, refused = np.random.default_rng(4), 0
    path = tmp_path / "damaged.onnx"
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(256)
        path.write_bytes(bytes(data))
        try:
            float_network(read_model(path))
        except GraphError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 30 < refused < 150


def test_noise_and_absence_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"\x00\x01 not a model")
    with pytest.raises(GraphError, match=r"noise\.onnx is no ONNX file"):
        read_model(tmp_path / "noise.onnx")
    with pytest.raises(GraphError, match="there is no file"):
        read_model(tmp_path / "absent.onnx")
    with pytest.raises(GraphError, match="folder|plain file"):
        read_model(tmp_path)


def test_a_cycle_is_refused() -> None:
    model = one_node("Relu")
    model.graph.node[0].input[0] = "y"
    with pytest.raises(GraphError, match="before any node makes it"):
        checked_model(model, "m.onnx")


@pytest.mark.parametrize(("operator", "inputs", "outputs", "said"), [
    ("Sub", ["x"], ["y"], "Sub 'one' has 1 inputs, must have at least 2"),
    ("Sqrt", [], ["y"], "Sqrt 'one' has 0 inputs, must have at least 1"),
    ("Shape", [], ["y"], "Shape 'one' has 0 inputs, must have at least 1"),
    ("Constant", [], [], "Constant 'one' has 0 outputs, must have at least 1"),
    ("Conv", ["x", "x"], [], "Conv 'one' has 0 outputs, must have at least 1"),
])
def test_a_node_without_what_its_operator_needs_is_refused(
    operator: str, inputs: list[str], outputs: list[str], said: str
) -> None:
    make = onnx.helper.make_node
    model = model_of([make(operator, inputs, outputs, name="one"),
                      make("Relu", ["x"], ["root"]), make("Div", [*outputs, "root"], ["z"])],
                     {"x": SHAPE}, "z")
    with pytest.raises(GraphError, match=f"m.onnx: {said}"):
        float_network(checked_model(model, "m.onnx"))


def test_a_tensor_made_twice_is_refused() -> None:
    model = one_node("Relu")
    model.graph.node.add().CopyFrom(model.graph.node[0])
    with pytest.raises(GraphError, match="second time|do not fit"):
        checked_model(model, "m.onnx")


@pytest.mark.parametrize(("shape", "said"), [
    ((1, 4, "rows", 8), r"no fixed size along axis 2 \(rows\); give --shape x=1,4,rows,8"),
    ((1, 0, 8, 8), "no elements: axis 1 is 0"),
])
def test_sizes_must_be_known(tmp_path: Path, shape: tuple[int | str, ...], said: str) -> None:
    model = model_of([onnx.helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, "y")
    with pytest.raises(GraphError, match=said):
        import_onnx(saved(tmp_path, model))


def test_an_unknown_batch_becomes_one(tmp_path: Path) -> None:
    model = model_of([onnx.helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", 4, 8, 8)}, "y")
    assert import_onnx(saved(tmp_path, model)).graph.tensors["x"].shape == (4, 8, 8)


@pytest.mark.parametrize("version", [0, 1, 5, onnx_read.NEWEST_OPSET + 1])
def test_an_operator_set_out_of_range_is_refused(version: int) -> None:
    model = one_node("Relu")
    model.opset_import[0].version = version
    with pytest.raises(GraphError, match=f"operator set {version}, must be from"):
        checked_model(model, "m.onnx")


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = one_node("Conv", 1, SHAPE, {"w": np.ones((4, 3, 1, 1), np.float32)})
    with pytest.raises(GraphError, match="do not fit"):
        float_network(checked_model(model, "m.onnx"))


def test_integer_inputs_are_refused() -> None:
    model = one_node("Relu")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(GraphError, match="'x0' must be float32.* is int64"):
        checked_model(model, "m.onnx")


def test_a_computed_constant_cannot_fill_the_memory() -> None:
    """A file of a few bytes may ask for any number of elements."""
    make = onnx.helper.make_node
    nodes = [make("ConstantOfShape", ["s"], ["c"], name="big"), make("Add", ["x", "c"], ["y"])]
    model = model_of(nodes, {"x": SHAPE}, "y", {"s": np.array([1 << 20, 1 << 20])})
    with pytest.raises(GraphError, match="1099511627776 elements, must be at most|do not fit"):
        float_network(checked_model(model, "m.onnx"))


def test_an_input_cannot_fill_the_memory(tmp_path: Path) -> None:
    model = model_of([onnx.helper.make_node("Relu", ["x"], ["y"])],
                     {"x": (1, 1 << 20, 1 << 10, 1 << 10)}, "y")
    with pytest.raises(GraphError, match="elements, must be from 1 to"):
        import_onnx(saved(tmp_path, model))


def test_single_nodes_are_run_within_bounds() -> None:
    node = checked_model(one_node("Tile", 1, SHAPE, {"r": np.array([1, 1, 1, 1])}),
                         "m.onnx").nodes[0]
    with pytest.raises(ValueError, match="must be at most"):
        run_node(node, [np.zeros(SHAPE), np.array([1 << 10, 1 << 10, 1 << 10, 1])])


def test_calibration_is_checked(tmp_path: Path) -> None:
    path = saved(tmp_path, one_node("Relu"))
    given = tmp_path / "given.npz"
    for arrays, said in (({"x1": np.zeros((2, 4, 8, 8))}, "no input 'x1'; it has x0"),
                         ({"x0": np.zeros((2, 4, 8, 9))}, r"must be \(4, 8, 8\)"),
                         ({"x0": np.zeros((0, 4, 8, 8))}, "at least one"),
                         ({"x0": np.full((1, 4, 8, 8), np.nan)}, "finite")):
        np.savez(given, **arrays)
        with pytest.raises(GraphError, match=said):
            import_onnx(path, read_calibration(given))
    np.savez(given, x0=np.array([{}], object))
    with pytest.raises(GraphError, match=r"given\.npz: cannot be read"):
        read_calibration(given)
    given.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(GraphError, match=r"given\.npz: cannot be read"):
        read_calibration(given)


def run(capsys, *arguments: str) -> tuple[int, str]:
    try:
        main(list(arguments))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_the_command_line_says_how_numbers_came_about(tmp_path: Path, capsys) -> None:
    path = saved(tmp_path, one_node("Conv", 1, SHAPE, {"w": np.ones((4, 4, 3, 3), np.float32)}))
    code, text = run(capsys, "simulate", str(path), "--memory", "flat")
    assert code == 0 and "m.onnx: float network, random calibration" in " ".join(text.split())
    np.savez(tmp_path / "given.npz", x0=np.ones((2, 4, 8, 8)))
    code, text = run(capsys, "emit", str(path), "--calibration", str(tmp_path / "given.npz"),
                     "--out", str(tmp_path / "out"), "--check")
    assert code == 0 and "calibrated with 2 given inputs" in " ".join(text.split())
    assert "0 differ" in text


@pytest.mark.parametrize(("arguments", "said"), [
    (("simulate", "{cut}"), "no ONNX file, or is cut off"),
    (("explore", "{cut}"), "no ONNX file, or is cut off"),
    (("emit", "absent.onnx"), "there is no file 'absent.onnx'"),
    (("simulate", "{unknown}"), "Hardmax 'one': no such operator"),
    (("simulate", "agc-w16", "--symmetric"), "are for .onnx files"),
    (("simulate", "{unknown}", "--calibration", "absent.npz"), "there is no file 'absent.npz'"),
    (("validate", "onnx", "{cut}"), "no ONNX file, or is cut off"),
    (("what-if", "default", "--workload", "{cut}"), "no ONNX file, or is cut off"),
    (("explain", "default", "--workload", "{relu}", "--shape", "x0=1,a"), "must be INPUT=1,3"),
    (("simulate", "{relu}", "--shape", "z=1,4"), "has no input 'z'"),
    (("simulate", "{relu}", "--shape", "x0=1,4,8,9"), "has 8 along axis 3, given is 9"),
])
def test_a_bad_file_ends_with_one_line_and_code_2(
    tmp_path: Path, capsys, monkeypatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.onnx").write_bytes(one_node("Relu").SerializeToString()[:30])
    files = {"{cut}": "cut.onnx",
             "{unknown}": str(saved(tmp_path, one_node("Hardmax"), "unknown.onnx")),
             "{relu}": str(saved(tmp_path, one_node("Relu"), "relu.onnx"))}
    code, text = run(capsys, *(files.get(item, item) for item in arguments))
    assert code == 2
    assert said in " ".join(text.split())
    assert "Traceback" not in text and text.startswith("error:") and text.count("\n") == 1


def test_hostile_names_become_names_of_files(tmp_path: Path) -> None:
    model = one_node("Relu", 1, SHAPE)
    hostile = {model.graph.input[0].name: "../../in $x$ [/b]",
               model.graph.output[0].name: '/etc/"); system("id'}
    for value in (*model.graph.input, *model.graph.output):
        value.name = hostile[value.name]
    node = model.graph.node[0]
    node.input[:] = [hostile.get(name, name) for name in node.input]
    node.output[:] = [hostile.get(name, name) for name in node.output]
    folder = tmp_path / "a b"
    folder.mkdir()
    found = import_onnx(saved(folder, model, "m $(id).onnx"), [
        {"../../in $x$ [/b]": np.ones(SHAPE[1:], np.float32)}])
    verify(found.graph)
    assert found.graph.name == "m_id_" and found.graph.inputs == ("in_x_b_",)
    assert all(re.fullmatch("[A-Za-z0-9_.-]+", name) and name[0].isalnum()
               for name in (*found.graph.tensors, *(item.name for item in found.graph.layers)))
