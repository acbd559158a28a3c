"""Does the page show what the files hold, and does a real browser draw it and answer?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arch_models.board import BOARDS, load_board
from arch_models.overlay import Engine, load_overlay
from studies.evaluation import inputs
from studies.evaluation.stored import load_evaluation
from studies.plain.errors import UserError
from studies.plain.records import kind_of
from studies.report.collect import Given, collect, search_part
from studies.report.documents import load_comparison, load_search, start_of
from studies.report.sheet import diagram, network, operations, parameters, split
from studies.search.outcomes import Failure, Record
from tests.support.browser import chromium, opened
from tests.support.command import cosim
from tests.support.onnx_models import three_convolutions
from workloads.library import load

NETWORK = "agc-w16"
#: Boards of designs that the smallest does not hold.
FITTING = {"fpga2015": "zcu104"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of every kind, as the commands write them."""
    folder = tmp_path_factory.mktemp("results")
    assert cosim("explore", NETWORK, "--designs", 12, "--workers", 1, "--out", folder) == 0
    assert cosim("simulate", NETWORK, "--frames", 1, "--json", folder / "result.json") == 0
    assert cosim("compare", "default", folder / "best.toml", "-w", NETWORK,
                 "--json", folder / "compared.json") == 0
    assert cosim("what-if", "default", "-w", NETWORK, "--set", "tm=8,16", "--set", "tn=8,16",
                 "--out", folder / "what-if", "--json", folder / "grid.json") == 0
    return folder


@pytest.fixture(scope="module")
def pages(files: Path) -> dict[str, str]:
    """Addresses of a page of the search with a result, and of one of the other kinds."""
    made = {"search": ("explore.json", "result.json"), "others": ("compared.json", "grid.json"),
            "result": ("result.json", "explore.json")}
    for name, wanted in made.items():
        assert cosim("report", *(files / item for item in wanted),
                     "--out", files / f"{name}.html") == 0
    return {name: (files / f"{name}.html").as_uri() for name in made}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_every_file_says_which_command_made_it(files: Path) -> None:
    for name, begins in (("explore.json", "cosim explore agc-w16 --designs 12"),
                         ("best.json", "cosim explore agc-w16"),
                         ("result.json", "cosim simulate agc-w16 --frames 1"),
                         ("compared.json", "cosim compare default"),
                         ("grid.json", "cosim what-if default -w agc-w16 --set tm=8,16")):
        assert kind_of(files / name)[1].startswith(begins)


def test_a_layers_time_is_split_without_rest(files: Path) -> None:
    item = load_evaluation(files / "result.json")
    for layer in item.layers:
        assert sum(split(layer).values()) == layer.cycles
        assert min(split(layer).values()) >= 0


def test_a_search_is_read_back_with_every_design_of_its_front(files: Path) -> None:
    found = load_search(files / "explore.json")
    assert (found.network, found.board) == (NETWORK, "pynq-z1")
    assert found.base() == load_overlay("default")
    assert found.chosen_number is not None
    board = load_board(found.board)
    assert found.design(found.chosen_number, board) == load_overlay(files / "best.toml")
    assert all(found.design(item.number, board).name == f"explored-{item.number}"
               for item in found.designs)
    with pytest.raises(UserError, match="there is no design 9999; the search tried 1"):
        found.design(9999, board)
    wrong = replace(found.designs[0], choice={**found.designs[0].choice, "fetch": "by hand"})
    with pytest.raises(UserError, match="design 0: 'by hand'"):
        replace(found, designs=(wrong, *found.designs[1:])).design(0, board)


def test_the_start_is_the_design_that_the_search_began_with(files: Path) -> None:
    found, board = load_search(files / "explore.json"), load_board("pynq-z1")
    assert found.start_number == 0
    assert found.designs[0].choice["tm"] == found.base().tm
    every = [Record(item.number, dict(item.choice), Failure("", 1.0)) for item in found.designs]
    # An exhaustive search tries it somewhere, a space without it never.
    assert start_of([every[1], every[0]], found.base()) == 0
    assert start_of(every, replace(found.base(), tm=24)) is None
    chosen = replace(found, start_number=found.chosen_number)
    sheets = search_part(chosen, Given(), 2).sheets
    assert next(iter(sheets)) == "start" and f"design {found.chosen_number}" not in sheets
    # Its base is drawn all the same where it was not tried, under the same name.
    assert list(search_part(replace(found, start_number=None), Given(), 0).sheets) == ["start"]
    assert search_part(found, Given(), 0).section["search"]["board"] is None
    assert board.name == found.board


def test_the_timeline_is_the_trace_and_adds_up(files: Path) -> None:
    content = collect([files / "result.json"], Given(), "cosim report", "program")
    item, stored = next(iter(content.sheets.values())), load_evaluation(files / "result.json")
    assert item["timeline"]["end"] == stored.latency_cycles and content.notes == []
    causes = item["timeline"]["causes"]
    for unit, known in zip(item["timeline"]["units"], stored.units, strict=True):
        assert unit["name"] == known.name
        worked = sum(unit["length"])
        assert worked == known.busy_cycles + known.stalls.get("memory", 0)
        waited = {causes[cause]: 0 for cause in unit["cause"] if cause >= 0}
        for cause, cycles in zip(unit["cause"], unit["waited"], strict=True):
            if cause >= 0:
                waited[causes[cause]] += cycles
        assert waited == {name: cycles for name, cycles in known.stalls.items()
                          if name != "memory"}
    assert sum(sum(unit["misses"]) for unit in item["timeline"]["units"]) == stored.row_misses


@pytest.mark.parametrize("name", inputs.design_names())
def test_every_buffer_of_the_diagram_is_between_a_master_and_an_engine(name: str) -> None:
    overlay = inputs.design(name)
    board = load_board(FITTING.get(name, "pynq-z1"))
    for item in (overlay, replace(overlay, engines=frozenset(Engine))):
        drawn = diagram(item, board)
        boxes = {f"{kind.removesuffix('s')} {box['name']}" for kind in
                 ("ports", "masters", "buffers", "engines") for box in drawn[kind]}
        ends = [{one for one, _ in drawn["wires"]}, {other for _, other in drawn["wires"]}]
        assert ends[0] | ends[1] <= boxes
        for box in (box["name"] for box in drawn["buffers"]):
            assert f"buffer {box}" in ends[0], "no engine has it"
            assert f"buffer {box}" in ends[1] or box == "accumulator", "no master fills it"
        assert all(f"engine {engine}" in ends[1] for engine in item.engines)
        assert len(set(drawn["wires"])) == len(drawn["wires"])


def test_the_buffers_of_the_diagram_have_the_bytes_of_their_values() -> None:
    wide = inputs.design("fpga2015")
    found = {box["name"]: box for box in diagram(wide, load_board("zcu104"))["buffers"]}
    assert wide.data_bits == wide.weight_bits == 32
    assert found["output"]["bytes"] == 4 * wide.tm
    assert found["weight"]["bytes"] == 4 * wide.tm * wide.tn
    twice = replace(load_overlay("default"), columns=2)
    found = {box["name"]: box for box in diagram(twice, load_board("pynq-z1"))["buffers"]}
    assert (found["input"]["bytes"], found["input"]["copies"]) == (twice.tn, 2)


def test_the_drawing_of_a_network_has_its_arrows() -> None:
    graph = load(NETWORK)
    drawn = network(graph)
    assert [node["name"] for node in drawn["nodes"]] == [layer.name for layer in graph.layers]
    for start, end in drawn["edges"]:
        assert graph.layers[start].output in graph.layers[end].inputs
    assert len(drawn["edges"]) == sum(
        name not in graph.inputs and any(layer.output == name for layer in graph.layers)
        for layer in graph.layers for name in layer.inputs)


def test_a_timeline_that_no_page_can_carry_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from studies.evaluation.evaluate import feasible, simulate_design

    run = feasible(simulate_design(load(NETWORK), load_overlay("default"),
                                   load_board("pynq-z1"), trace=True))
    assert run.result.trace is not None
    monkeypatch.setattr("studies.report.sheet.MOST_OPERATIONS", len(run.result.trace.start) - 1)
    assert operations(run.lowered.program, run.result.trace) is None


def test_parameters_name_every_field_of_a_design_file() -> None:
    shown = dict(map(tuple, parameters(inputs.design("default"))))  # type: ignore[arg-type]
    assert shown["tm"] == "16" and shown["masters.weight.port"] == "HP1"
    assert shown["control.wait"] == "poll" and "convolution" in shown["engines"]


@pytest.mark.parametrize(("text", "said"), (
    ("{}", 'no "format"'),
    ('{"format": "cosim", "version": 1, "kind": "search"}', "field 'front' is missing"),
    ('{"format": "cosim", "version": 1, "kind": "poem"}', "kind is 'poem'"),
    ('{"format": "cosim", "version": 9, "kind": "search"}', "version is 9"),
))
def test_a_file_of_no_result_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture,
                                                 text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert cosim("report", tmp_path / "a.json", "--out", tmp_path / "a.html") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.html").exists()


def test_a_front_that_names_no_design_is_refused(files: Path, tmp_path: Path) -> None:
    document = json.loads((files / "explore.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**document, "front": [10**6]}))
    with pytest.raises(UserError, match="front names design 1000000"):
        load_search(tmp_path / "a.json")


@pytest.mark.parametrize(("words", "said"), (
    (("report", "result.json", "--out", "result.json"), "'result.json' must end in .html"),
    (("design", "default", "--out", "result.json"), "must end in .toml, for example 'result.toml'"),
    (("calibrate", "--power", "result.json", "--out", "result.json"), "must end in .toml"),
    (("validate", "vta-pynq", "--plot", "result.json"), "must end in .png"),
))
def test_a_file_of_another_kind_is_not_written_over(
        files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture, words: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    whole = (files / "result.json").read_bytes()
    (tmp_path / "result.json").write_bytes(whole)
    assert cosim(*words) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "result.json").read_bytes() == whole


def test_designs_are_also_compared_at_one_clock(files: Path) -> None:
    found = load_comparison(files / "compared.json")
    slow = min(found.a.clock_hz, found.b.clock_hz)
    assert found.one_clock is not None and found.one_clock.clock_mhz == slow / 1e6
    for side, once in ((found.a, found.one_clock.a_ms), (found.b, found.one_clock.b_ms)):
        assert once == side.latency_ms if side.clock_hz == slow else once > side.latency_ms
    search = load_search(files / "explore.json")
    again, start = search.chosen_at_default_clock, search.default
    assert again is not None and start is not None and again.clock_mhz == start.clock_mhz
    best = search.candidates[0]
    assert (again.latency_ms == best.latency_ms) == (again.clock_mhz == best.clock_mhz)


def test_two_searches_do_not_fit_on_a_page(files: Path) -> None:
    with pytest.raises(UserError, match="a second search"):
        collect([files / "explore.json"] * 2, Given(), "", "")


@pytest.mark.parametrize(("field", "value", "said"), (
    ("clock_hz", 0, "a.clock_hz: 0, must be at least 1"),
    ("pixels", -1, "a.pixels: -1, must be at least 1"),
    ("board", "two\nlines", "a.board"),
))
def test_a_comparison_is_checked_as_its_results_are(
        files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, field: str, value: object,
        said: str) -> None:
    document = json.loads((files / "compared.json").read_text())
    document["a"][field] = value
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert cosim("report", tmp_path / "a.json", "--out", tmp_path / "a.html") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.html").exists()


def drawn(result: dict[str, Any], path: Path, given: Given) -> tuple[Any, str]:
    """The network that a page draws of a result, and what it says."""
    path.write_text(json.dumps(result))
    content = collect([path], given, "", "")
    return next(iter(content.sheets.values()))["network"], " ".join(content.notes)


def test_a_result_is_drawn_with_its_own_network_only(files: Path, tmp_path: Path) -> None:
    result = json.loads((files / "result.json").read_text())
    own, path = network(load(NETWORK)), tmp_path / "result.json"
    assert result["content"]["network"] == NETWORK
    assert drawn(result, path, Given()) == (own, "")
    # Files of before do not say; files of another network say another.
    for other in ("", "agc-w24"):
        result["content"]["network"] = other
        shown, said = drawn(result, path, Given())
        assert shown is None and "--workload NAME or FILE.onnx" in said
        assert drawn(result, path, Given(NETWORK)) == (own, "")
        assert drawn(result, path, Given("agc-w32"))[0] is None
    result["content"]["network"] = str(tmp_path / "agc-w16.onnx")
    assert "agc-w16.onnx" in drawn(result, path, Given())[1]
    with pytest.raises(UserError, match="agc-w61"):
        drawn(result, path, Given("agc-w61"))


def test_results_of_ones_own_board_are_shown_with_its_file(
        files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text((BOARDS / "pynq_z1.toml").read_text().replace(
        'name = "pynq-z1"', 'name = "my-board"', 1))
    asked = ("--board", mine, "--json")
    assert cosim("simulate", NETWORK, "--frames", 1, *asked, tmp_path / "result.json") == 0
    assert cosim("compare", "default", files / "best.toml", "-w", NETWORK, *asked,
                 tmp_path / "compared.json") == 0
    assert cosim("what-if", "default", "-w", NETWORK, "--set", "tm=8,16", *asked,
                 tmp_path / "grid.json", "--out", tmp_path) == 0
    assert load_evaluation(tmp_path / "result.json").board == "my-board"
    page = ("--out", tmp_path / "page.html")
    for name in ("result", "compared"):
        capsys.readouterr()
        assert cosim("report", tmp_path / f"{name}.json", *page) == 2
        assert "--board FILE.toml" in capsys.readouterr().err
        assert cosim("report", tmp_path / f"{name}.json", "--board", mine, *page) == 0
    assert cosim("report", tmp_path / "grid.json", *page) == 0
    assert cosim("report", tmp_path / "grid.json", "--board", "nowhere.toml", *page) == 2
    moved = load_search(files / "explore.json")
    assert search_part(replace(moved, board="gone.toml"), Given(board=str(mine)), 0).section[
        "search"]["board"] == str(mine)
    capsys.readouterr()


def test_the_commands_on_a_page_run(browser: Any, files: Path, pages: dict[str, str],
                                    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_search(files / "explore.json")
    other = next(item.number for item in found.designs
                 if item.number not in (0, found.chosen_number, *found.front))
    with opened(browser, pages["result"]) as page:
        page.evaluate(f"showSheet('design {other}')")
        design = shlex.split(page.inner_text("#sheet-body code"))
        page.evaluate("showSheet('start')")
        (tmp_path / "design.toml").write_text(page.locator("#sheet-body pre").text_content())
        trace = shlex.split(page.inner_text("#timeline code"))
    assert cosim(*trace[1:]) == 0 and (tmp_path / "frame.pftrace").exists()
    assert cosim(*design[1:]) == 0
    assert load_overlay(tmp_path / "design.toml").name == f"explored-{other}"


@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("width", (1280, 400))
@pytest.mark.parametrize("name", ("search", "others"))
def test_a_page_loads_quietly_and_fits(browser: Any, pages: dict[str, str], name: str, width: int,
                                       scheme: str) -> None:
    with opened(browser, pages[name], width, scheme) as page:
        page.wait_for_selector("#timeline .main-svg")
        wide, room = page.evaluate("[document.documentElement.scrollWidth, "
                                   "document.documentElement.clientWidth]")
        assert wide <= room == width
        back, text = page.evaluate("['backgroundColor', 'color'].map("
                                   "(name) => getComputedStyle(document.body)[name])")
        assert (brightness(back) > brightness(text)) == (scheme == "light")


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


def test_a_design_is_told_of_under_the_pointer_and_opened_by_a_click(
        browser: Any, pages: dict[str, str], files: Path) -> None:
    chosen = load_search(files / "explore.json").chosen_number
    with opened(browser, pages["search"]) as page:
        assert page.inner_text("#sheet-name") == f"design {chosen}"
        assert "cosim report" in page.inner_text("#made pre")
        start = page.locator("#front .plot").first.locator(".trace.scatter").nth(-2)
        box = start.locator("path").bounding_box()
        at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(*at)
        page.wait_for_selector("#front .hoverlayer .hovertext")
        assert page.locator("#front .hoverlayer").first.text_content().startswith("start")
        page.mouse.click(*at)
        page.wait_for_function("document.getElementById('sheet-name').textContent === 'start'")


def test_a_box_lists_the_designs_in_it(browser: Any, pages: dict[str, str]) -> None:
    with opened(browser, pages["search"]) as page:
        listed = page.locator("#designs tbody tr")
        before = listed.count()
        box = page.locator("#front .plot").first.locator(".nsewdrag").bounding_box()
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=5)
        page.mouse.up()
        page.wait_for_function(f"document.querySelectorAll('#designs tbody tr').length > {before}")
        listed.first.click()
        assert page.inner_text("#sheet-name") == listed.first.get_attribute("data-design")


def test_the_timeline_zooms_to_single_operations(browser: Any, pages: dict[str, str]) -> None:
    with opened(browser, pages["search"]) as page:
        note = page.locator("#timeline p.soft").first
        assert "slice of time" in note.inner_text()
        picker = page.locator("#timeline select")
        picker.select_option(label="dec0")
        page.wait_for_function("document.querySelector('#timeline p.soft').textContent"
                               ".startsWith('Each bar is one operation')")
        page.click("#timeline button")
        assert "slice of time" in note.inner_text()


def test_a_large_network_is_drawn_when_it_is_asked_for(browser: Any, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    assert cosim("simulate", "unicorn", "--design", "diffusion", "--frames", 1,
                 "--memory", "flat", "--json", result) == 0
    assert cosim("report", result, "--out", tmp_path / "page.html") == 0
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        assert "sampler step" in page.inner_text("#page")
        drawn = page.locator("details", has_text="Draw all").locator(".main-svg")
        assert drawn.count() == 0
        page.get_by_text("Draw all").click()
        drawn.first.wait_for()


COLOURS = "node => node.querySelector('.plot').data[1].marker.color"


def test_the_drawing_says_what_int8_costs_each_layer(browser: Any, tmp_path: Path) -> None:
    network_file, result = tmp_path / "three.onnx", tmp_path / "result.json"
    three_convolutions(network_file)
    assert cosim("simulate", network_file, "--frames", 1, "--json", result) == 0
    assert cosim("report", result, "--out", tmp_path / "page.html") == 0
    assert cosim("validate", "onnx", network_file, "--json", tmp_path / "onnx.json") == 0
    known = json.loads((tmp_path / "onnx.json").read_text())["int8_beside_float"]
    for width in (1280, 400):
        with opened(browser, (tmp_path / "page.html").as_uri(), width) as page:
            drawing = page.locator("#sheet .network")
            choice = drawing.locator("select")
            assert choice.locator("option").all_inner_texts() == [
                "time", "bytes", "energy", "SQNR (low is worse)"]
            by_time = drawing.evaluate(COLOURS)
            choice.select_option("SQNR")
            shown = drawing.evaluate(COLOURS)
            assert shown == [row["int8_db"] for row in known] and shown != by_time
            bars = drawing.evaluate("node => node.querySelector('.plot').data.at(-1).x")
            assert bars == shown
            last = drawing.locator(".scatterlayer .points path").last
            last.scroll_into_view_if_needed()
            dot = last.bounding_box()
            page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
            page.wait_for_selector("#sheet .network .hoverlayer .hovertext")
            assert (f"int8 against float: {shown[-1]:.1f} dB"
                    in drawing.locator(".hoverlayer").text_content())


def test_a_network_without_floats_has_no_such_choice(browser: Any, pages: dict[str, str]) -> None:
    with opened(browser, pages["result"]) as page:
        drawing = page.locator("#sheet .network")
        assert drawing.locator("option").all_inner_texts() == ["time", "bytes", "energy"]
        before = drawing.evaluate(COLOURS)
        drawing.locator("select").select_option("bytes")
        assert drawing.evaluate(COLOURS) != before
        assert " dB" not in drawing.inner_text()


def test_two_designs_stand_side_by_side(browser: Any, pages: dict[str, str]) -> None:
    with opened(browser, pages["search"]) as page:
        rows = page.locator("#sides tr.differs")
        before = rows.count()
        assert before > 0
        page.locator("#sides select").nth(1).select_option("start")
        assert page.locator("#sides tr.differs").count() == 0
        assert "The same parameters." in page.inner_text("#sides")


def test_a_comparison_says_how_many_differences_it_does_not_draw(
        browser: Any, pages: dict[str, str], files: Path) -> None:
    rows = json.loads((files / "compared.json").read_text())["cells"]
    assert len(rows) > 30
    with opened(browser, pages["others"]) as page:
        page.locator("#comparison select").select_option("cells")
        text = page.inner_text("#comparison")
        assert f"The 30 largest of {len(rows)} differences; the others sum to" in text
        page.locator("#comparison select").select_option("states")
        assert "largest of" not in page.inner_text("#comparison")
        assert "Fabric: estimated, with the block design" in page.inner_text("#sheet")


def test_a_hostile_name_draws_no_elements(browser: Any, files: Path, tmp_path: Path) -> None:
    document = json.loads((files / "result.json").read_text())
    evil = "</script><img src=x onerror=document.title='evil'>"
    document["content"]["layers"][0]["name"] = evil
    document["command"] = evil
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert cosim("report", tmp_path / "result.json", "--out", tmp_path / "page.html") == 0
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        page.wait_for_selector("#timeline .main-svg")
        assert page.title() != "evil" and page.locator("img").count() == 0
        assert evil in page.inner_text("#made")
