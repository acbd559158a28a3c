"""Is a file that is none, too large or damaged refused with one line, and one written whole?"""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch_models.fields import FieldError
from arch_models.files import (
    number,
    read_arrays,
    read_bytes,
    read_json,
    read_rows,
    read_text,
    read_toml,
)
from arch_models.output import check_target, toml_string, write_text, write_whole


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(FieldError, match=r"cannot be read: (must be a plain file|Is a dir)"):
            read_bytes(place)
    with pytest.raises(FieldError, match="there is no file 'nowhere'"):
        read_bytes("nowhere")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FieldError, match="has 1099511627776 bytes, must have at most"):
        read_text(path)


@pytest.mark.parametrize(("text", "said"), [
    (b"\xff", "not UTF-8 text"), (b"[" * 100_000, "nested too deeply|not JSON"),
    (b'{"a": NaN}', "NaN is no number"), (b'{"a": -Infinity}', "is no number"),
    (b"1" * 5000, "not JSON"), (b'{"a"', "not JSON: .* at line 1"), (b"", "not JSON"),
])
def test_json_that_is_none_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(FieldError, match=said):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", (b"a = " + b"[" * 100_000, b"a = " + b"1" * 5000, b"a", b"\x00"))
def test_toml_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(text)
    with pytest.raises(FieldError, match="not TOML"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(("text", "said"), [
    ("", "has no column 'a'; it has none"), ("a,c\n", "has no column 'b'"),
    ("a,b\n1\n", "line 2 has 1 cells, must have 2"), ("a,b\n1,2,3\n", "line 2 has 3 cells"),
    ('a,b\n1,"' + "x" * 200_000 + '"\n', "line 2: not CSV: field larger"),
])
def test_rows_that_do_not_fit_their_header_are_refused(tmp_path: Path, text: str,
                                                       said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FieldError, match=said):
        read_rows(tmp_path / "a.csv", ("a", "b"))


def test_rows_carry_their_lines_and_finite_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffa, b\n1, x\n\n2.5,nan\n", encoding="utf-8")
    first, second = read_rows(tmp_path / "a.csv", ("a", "b"))
    assert (first.line, first.cells, first.number("a")) == (2, {"a": "1", "b": "x"}, 1.0)
    assert second.number("a", 0, 3) == 2.5
    with pytest.raises(FieldError, match="line 4: b is 'nan', must be a finite number"):
        second.number("b")
    with pytest.raises(FieldError, match="line 4: a is 2.5, must lie between 0 and 2; nearest 2"):
        second.number("a", 0, 2)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_number_that_its_text_says(value: float) -> None:
    assert number(repr(value), "here") == value


ARRAYS = {"i": np.arange(6, dtype=np.int8).reshape(2, 3), "f": np.array(1.5, np.float32),
          "t": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "e": np.zeros((0, 4), np.int64),
          "b": np.array([True, False])}


def test_arrays_read_back_equal(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **ARRAYS)
        found = read_arrays(tmp_path / "a.npz")
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def archive(path: Path, header: bytes, content: bytes) -> Path:
    """An .npz with one array of this header's text."""
    whole = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", whole)
    return path


def test_an_archive_that_unfolds_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, \
            file.open("a.npy", "w", force_zip64=True) as member:
        for _ in range(65):
            member.write(bytes(1 << 24))
    assert path.stat().st_size < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FieldError, match="unfolds to 1090519040 bytes in 1 arrays, must be at"):
        read_arrays(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # in KiB


@pytest.mark.parametrize(("header", "said"), [
    (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", "and has not"),
    (b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", "and has not"),
    (b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "must hold numbers"),
    (b"{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", "must hold numbers"),
    (b"__import__('os')", "cannot be read as arrays"), (b"", "cannot be read as arrays"),
])
def test_an_array_that_lies_of_its_size_or_holds_objects_is_refused(
        tmp_path: Path, header: bytes, said: str) -> None:
    with pytest.raises(FieldError, match=said):
        read_arrays(archive(tmp_path / "a.npz", header, bytes(8)))


def test_an_array_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(1000.0))
    for content in (b"", b"no zip", stream.getvalue()[:-30],
                    stream.getvalue()[:60] + b"xxxx" + stream.getvalue()[64:]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(FieldError, match="cannot be read as arrays"):
            read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("mode", (0o600, 0o640, 0o755))
def test_writing_keeps_the_mode_and_follows_a_link(tmp_path: Path, mode: int) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(mode)
    link.symlink_to("real.json")
    write_text(link, "new")
    assert real.read_text() == "new" and link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == mode
    assert sorted(item.name for item in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_must_not_be_replaced_is_refused_and_untouched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "fixed").write_text("old")
    (tmp_path / "fixed").chmod(0o444)
    (tmp_path / "one").write_text("old")
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "null").symlink_to("/dev/null")
    for name, said in (("pipe", "a device or a pipe"), ("null", "a device or a pipe"),
                       ("fixed", "may not be written to"), ("one", "hard links"),
                       ("circle", "circle|Too many levels"), ("", "is a folder")):
        for act in (check_target, lambda path: write_text(path, "new")):
            with pytest.raises(FieldError, match=said):
                act(tmp_path / name)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "fixed").read_text() == (tmp_path / "two").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("error", (RuntimeError("drawing"), KeyboardInterrupt()))
def test_a_failing_write_leaves_the_old_file_and_no_rest(tmp_path: Path,
                                                         error: BaseException) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def fail(file) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, fail)
    assert path.read_text() == "old" and [item.name for item in tmp_path.iterdir()] == ["r.json"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    code = (f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"from pathlib import Path; from arch_models.output import write_text\n"
            f"try: write_text(Path({str(path)!r}), 'x' * 5000)\n"
            f"except Exception as error: print(type(error).__name__, error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("FieldError cannot write") and "File too large" in done.stdout
    assert path.read_text() == "old" and [item.name for item in tmp_path.iterdir()] == ["r.json"]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_toml_string_is_read_back_equal(text: str) -> None:
    assert tomllib.loads(f"a = {toml_string(text)}") == {"a": text}
    assert json.loads(json.dumps(text)) == text
