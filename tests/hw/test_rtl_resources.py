"""Does the shipped synthesis grid say what the fits and the memory formula say?"""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from arch_models.channels import channels, engine_channels, master_channels
from arch_models.engines import MODELS
from arch_models.engines.base import DATA
from arch_models.overlay import Engine, Fetch, Role, default_overlay
from arch_models.resources import estimate
from hw.interface.descriptors import local_channels
from hw.rtl.transfers.tensor_memory import TensorMemory
from studies.resources import fit_resources
from studies.resources.fit_resources import (
    UNFITTED,
    array_dsp,
    fit,
    modelled,
    sites_toml,
)
from studies.resources.resource_grid import (
    FORMS,
    PARTS,
    Sites,
    counted,
    points,
    read_grid,
    synthesize,
    top_of,
    wiring_program,
)
from tests.support.command import cosim

ROWS = read_grid()
FITTED = [part for part in PARTS if part not in UNFITTED]
COUNTS = {"dsp": 0, "bram36": 0.0, "lut": 0, "ff": 0}


@pytest.mark.parametrize("part", PARTS)
def test_the_grid_has_every_point(part):
    rows = [replace(row, **COUNTS) for row in ROWS if row.part == part]
    assert rows == points(part)


def test_block_ram_of_every_buffer_is_exact():
    rows = [row for row in ROWS if row.part == "buffer"]
    assert {row.form for row in rows} == set(FORMS) and len({row.lanes for row in rows}) > 4
    for row in rows:
        assert (row.dsp, row.bram36) == (0, modelled(row).bram36), row


def test_luts_of_buffers_are_exact_but_for_those_of_pairs_and_two_writers():
    for row in ROWS:
        if row.part == "buffer":
            found = modelled(row)
            if row.form in ("plain", "bytes"):
                assert (row.lut, row.ff) == (found.lut, found.ff), row
            assert abs(row.lut - found.lut) <= 0.1 * row.lut and abs(row.ff - found.ff) <= 2, row


def test_dsp_of_the_convolution_is_exact():
    model = next(item for item in MODELS if item.engine is Engine.CONVOLUTION)
    for row in ROWS:
        if row.part == "convolution":
            assert row.dsp == array_dsp(row) == model.resources(row.overlay).dsp


@pytest.mark.parametrize("part", FITTED)
def test_dsp_and_block_ram_of_every_part_are_exact(part):
    for row in ROWS:
        if row.part == part:
            found = modelled(row)
            assert (row.dsp, row.bram36) == (found.dsp, found.bram36), row


def test_packing_halves_the_dsp_of_the_products():
    found = {(row.tm, row.tn, row.columns, row.dsp_packing): row.dsp for row in ROWS
             if row.part == "convolution" and row.requantize_cycles == 8}
    for tm, tn, columns in ((8, 8, 1), (8, 16, 1)):
        assert (found[tm, tn, columns, 0] - found[tm, tn, columns, 1]
                == tm * tn * columns // 2)


def test_whole_designs_are_the_sum_of_their_parts():
    """Yosys shares and removes logic across parts, and the model adds them up."""
    for row in ROWS:
        if row.part == "whole":
            found = modelled(row)
            assert (row.dsp, row.bram36) == (found.dsp, found.bram36)
            assert abs(found.lut / row.lut - 1) < 0.1 and abs(found.ff / row.ff - 1) < 0.1


@pytest.mark.fitted
@pytest.mark.parametrize("part", FITTED)
@pytest.mark.parametrize("site", ["lut", "ff"])
def test_left_out_rows_are_predicted_within_ten_per_cent(part, site):
    assert fit(ROWS, part, site).cross_validated_error < 0.10


@pytest.mark.fitted
def test_the_shipped_coefficients_are_those_of_the_grid():
    """As numbers: the last digits of a least-squares fit are the processor's."""
    shipped = tomllib.loads((DATA / "engine_sites.toml").read_text())
    now = tomllib.loads(sites_toml(ROWS))
    assert {part: list(table) for part, table in shipped.items()} == {
        part: list(table) for part, table in now.items()}
    for part, table in shipped.items():
        for name, item in table.items():
            assert item["value"] == pytest.approx(now[part][name]["value"], rel=1e-4, abs=2e-3), (
                part, name)
            assert (item["unit"], item["status"]) == (now[part][name]["unit"], "computed")


@pytest.mark.fitted
def test_a_coefficient_of_nothing_has_no_sign():
    """`-0` in one machine's file and `0` in another's would differ."""
    assert " -0," not in sites_toml(ROWS)
    rows = [replace(row, dsp=0) for row in ROWS if row.part == "elementwise"]
    for value in fit(rows, "elementwise", "dsp").coefficients.values():
        assert str(value) == "0.0"


def test_a_part_synthesized_anew_leaves_the_others_as_they_are(tmp_path, monkeypatch):
    path = tmp_path / "grid.csv"
    path.write_text((DATA / "resource_grid.csv").read_text())
    monkeypatch.setattr(fit_resources, "synthesize", lambda top, ports: {"DSP48E1": 7, "FDRE": 9})
    fit_resources.synthesize_parts(["lookup"], path)
    found = read_grid(path)
    assert [row for row in found if row.part != "lookup"] \
        == [row for row in ROWS if row.part != "lookup"]
    assert {(row.dsp, row.lut, row.ff) for row in found if row.part == "lookup"} == {(7, 0, 9)}

    def fails(top, ports):
        raise RuntimeError("yosys failed")

    monkeypatch.setattr(fit_resources, "synthesize", fails)
    with pytest.raises(RuntimeError, match="yosys failed"):
        fit_resources.synthesize_parts(["pool"], path)
    assert read_grid(path) == found


def test_a_fit_needs_two_rows():
    few = [row for row in ROWS if row.part == "convolution"][:1]
    with pytest.raises(ValueError, match="needs two at least"):
        fit(few, "convolution", "lut")


@pytest.mark.parametrize("fetch", Fetch)
@pytest.mark.parametrize(("engines", "inputs", "outputs"), [
    (1, 1, 1), (2, 1, 2), (4, 2, 2), (7, 1, 1), (8, 2, 1)])
def test_counted_channels_are_those_of_the_wiring(engines, inputs, outputs, fetch):
    overlay = Sites("", engines=engines, inputs=inputs, outputs=outputs, width=64).overlay
    if fetch is Fetch.DRAM:
        overlay = replace(overlay, fetch=fetch, masters=(
            *overlay.masters, replace(overlay.masters[0], name="fetch", role=Role.FETCH)))
    program = wiring_program(overlay)
    ends = {unit.name: len(local_channels(program, index)[0])
            for index, unit in enumerate(program.units)}
    assert len(program.channels) == channels(overlay)
    for engine in overlay.engines:
        assert ends[engine.value] == engine_channels(overlay, engine)
    for role in (Role.INPUT, Role.WEIGHT, Role.OUTPUT):
        assert ends[overlay.masters_of(role)[0].name] == master_channels(overlay, role)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--synthesize", "convolutoin"], "no part 'convolutoin'. Did you mean 'convolution'?"),
    (["--whole", "nowhere.toml"], "no file 'nowhere.toml'")])
def test_a_wrong_argument_is_refused_by_name(arguments, message, capsys):
    assert cosim("study", "resources", *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_synthesis_repeats_rows():
    chosen = [row for row in ROWS if (row.part, row.depth) == ("buffer", 512)][:1]
    chosen += [row for row in ROWS if row.part == "places"][:1]
    for row in chosen:
        assert counted(row, synthesize(*top_of(row))) == row


@pytest.mark.parametrize("kib", [16, pytest.param(128, marks=pytest.mark.long)])
def test_a_tensor_memory_takes_what_its_synthesis_takes(kib):
    """Its masters take a LUT for each of 64 bits that are read, one more, and nine to write: the
    difference between both masters with and without it, synthesized once (841 and 906, 944 and
    953 LUTs)."""
    memory = TensorMemory(kib * 1024, 64)
    pins = [signal for side in (memory.read, memory.write) for signal in vars(side).values()]
    found = counted(Sites("buffer"), synthesize(memory, pins))
    told = estimate(replace(default_overlay(), tensor_memory_kib=kib)).part("buffer tensors")
    assert (found.lut + 64 + 1 + 9, found.ff, found.bram36) == (told.lut, told.ff, told.bram36)
