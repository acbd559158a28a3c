"""Records come back equal, and a broken file is refused with the place of the fault."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from studies.plain.errors import UserError, nearest
from studies.plain.files import write_whole
from studies.plain.records import decode, encode, load, save


@dataclass(frozen=True)
class Part:
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    share: dict[str, float]
    note: str | None = None


VALUE = Whole((Part("a", 1), Part("b", 2)), {"x": 0.5}, None)


def test_saved_and_loaded_is_equal(tmp_path):
    save(tmp_path / "r.json", "whole", VALUE)
    assert load(tmp_path / "r.json", "whole", Whole) == VALUE
    assert decode(Whole, encode(VALUE)) == VALUE


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d["content"]["parts"][1].update(size_bytes="2"), r"parts\[1\].size_bytes: '2'"),
    (lambda d: d["content"]["parts"][0].pop("name"), "'name' is missing"),
    (lambda d: d["content"].update(shares={}), "did you mean 'share'"),
    (lambda d: d.update(kind="other"), "kind is 'other'"),
    (lambda d: d.update(version=99), "version is 99"),
    (lambda d: d.pop("format"), "no result file"),
    (lambda d: d["content"].update(parts=3), "must be a list"),
])
def test_a_wrong_field_is_named(tmp_path, change, message):
    path = tmp_path / "r.json"
    save(path, "whole", VALUE)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message):
        load(path, "whole", Whole)


def test_a_file_cut_short_is_refused_with_its_place(tmp_path):
    path = tmp_path / "r.json"
    save(path, "whole", VALUE)
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match=r"not JSON.*line"):
        load(path, "whole", Whole)


def test_a_failing_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["r.json"]


def test_nearest_name():
    assert nearest("pynq-z2", ["zcu104", "pynq-z1"]) == "pynq-z1"
    assert nearest("qqq", ["zcu104", "pynq-z1"]) is None
