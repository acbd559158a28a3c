"""Is compiled RTL loaded only from where nobody else can have put it?"""

from __future__ import annotations

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import pytest

from hw.rtl_sim.cache import (
    CacheError,
    default_cache,
    one_at_a_time,
    private_folder,
    trusted,
)
from hw.rtl_sim.model import RtlError, compiled

REPOSITORY = Path(__file__).parents[2]


def test_the_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cosim" / "rtl"
    folder = private_folder(default_cache())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700] * 2
    for relative in ("", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert default_cache() == Path.home() / ".cache" / "cosim" / "rtl"


@pytest.mark.parametrize("which", ["folder", "parent"])
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_is_refused(tmp_path, which, mode):
    folder = tmp_path / "cosim" / "rtl"
    private_folder(folder)
    (folder if which == "folder" else folder.parent).chmod(mode)
    if which == "parent" and mode == 0o1777:
        private_folder(folder)  # sticky: nobody else can rename what lies there
        return
    with pytest.raises(CacheError, match="nobody else may write it"):
        private_folder(folder)


def test_a_link_in_its_place_is_refused(tmp_path):
    (tmp_path / "planted").mkdir()
    (tmp_path / "rtl").symlink_to(tmp_path / "planted")
    with pytest.raises(CacheError, match="no link"):
        private_folder(tmp_path / "rtl")
    with pytest.raises(CacheError, match="cannot be made"):
        (tmp_path / "file").write_text("")
        private_folder(tmp_path / "file" / "rtl")


def test_a_library_of_somebody_else_is_refused(tmp_path, monkeypatch):
    library = tmp_path / "a.so"
    assert not trusted(library)
    library.write_bytes(b"")
    assert trusted(library)
    library.chmod(0o666)
    with pytest.raises(CacheError, match="nobody else may write it"):
        trusted(library)
    library.chmod(0o600)
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.raises(CacheError, match="must belong to you"):
        trusted(library)
    library.unlink()
    library.symlink_to(tmp_path / "b.so")
    with pytest.raises(CacheError, match="no link"):
        trusted(library)


def test_who_wants_what_another_makes_waits_for_it(tmp_path):
    library = tmp_path / "a.so"

    def second() -> bool:
        with one_at_a_time(library) as made:
            return made

    with ThreadPoolExecutor(1) as other:
        with one_at_a_time(library) as made:
            assert not made
            waits = other.submit(second)
            with pytest.raises(TimeoutError):
                waits.result(timeout=0.2)
            library.write_bytes(b"")
        assert waits.result(timeout=60)


def test_nothing_is_compiled_into_or_loaded_from_such_a_folder(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(RtlError, match="compiled models lie there and are run"):
        compiled("module top; endmodule", "", tmp_path)


def test_make_clean_empties_it(tmp_path):
    """By what it would run: this test cannot empty the clone it runs in."""
    done = subprocess.run(["make", "-n", "clean"], cwd=REPOSITORY, capture_output=True, text=True,
                          check=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert f'"{tmp_path}/cosim/rtl"' in done.stdout
