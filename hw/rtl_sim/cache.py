"""The folder of compiled models: the user's own, and nobody else may write into it.

It compiles nothing. What lies there is loaded and runs, so a folder or a library that somebody
else could have written is refused.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CacheError(RuntimeError):
    """The folder of compiled models cannot be trusted or made. The message says why."""


def default_cache() -> Path:
    """`cosim/rtl` in the user's cache folder: `XDG_CACHE_HOME` if it is absolute, else `~/.cache`.

    `make clean` empties it.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return root / "cosim" / "rtl"


def private_folder(folder: Path) -> Path:
    """Make the folder with mode 0700 if it is missing; `CacheError` if others may write into it.

    The folder and the one above it must be folders, no links, of this user (the one above may be
    root's), and writable by nobody else unless it has the sticky bit.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise CacheError(f"{folder}: the folder of compiled models cannot be made "
                         f"({error.strerror}); set XDG_CACHE_HOME to one that can") from None
    _check(folder, stat.S_ISDIR, (os.geteuid(),), 0)
    _check(folder.parent, stat.S_ISDIR, (os.geteuid(), 0), stat.S_ISVTX)
    return folder


@contextmanager
def one_at_a_time(library: Path) -> Iterator[bool]:
    """While one process makes a library, others that want it wait: is it there by now?"""
    with library.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield trusted(library)


def trusted(library: Path) -> bool:
    """Is the library there, and of this user alone? `CacheError` if it is not only his."""
    if not os.path.lexists(library):
        return False
    _check(library, stat.S_ISREG, (os.geteuid(),), 0)
    return True


def _check(path: Path, kind, owners: tuple[int, ...], excuse: int) -> None:  # type: ignore[no-untyped-def]
    found = path.lstat()
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & excuse
    if not kind(found.st_mode) or found.st_uid not in owners or others:
        raise CacheError(f"{path}: compiled models lie there and are run, so it must belong to you "
                         "and nobody else may write it, and it must be no link; remove it, or set "
                         "XDG_CACHE_HOME to a folder of your own")
