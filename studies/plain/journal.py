"""Appends whole lines to a file that several processes write to and that a kill may leave torn.

It gives lines no meaning. The kernel drops the lock of a process that dies. Lines are not synced to
the disk one by one: a kill loses nothing, a power cut the last seconds.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arch_models.files import MOST_ARRAYS, read_text
from studies.plain.errors import UserError

#: A lock held longer than this is told of, in a line; it is waited for all the same.
LOCK_SECONDS = 60.0


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add whole lines, alone in the file while doing so; one cut short by a kill is cut off."""
    text = "".join(line + "\n" for line in lines)
    with open(path, "r+b") as file:
        _lock(file.fileno(), path)
        _cut_torn_line(file)
        file.write(text.encode())


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, without one that was cut short by a kill.

    `FieldError` if it is no text, `UserError` if it holds something and no whole line.
    """
    text = read_text(path, MOST_ARRAYS)
    if text and "\n" not in text:
        raise UserError(f"{path}: holds no whole line; this program did not write it")
    return text.split("\n")[:-1]


def _lock(descriptor: int, path: Path) -> None:
    """Wait for the lock as long as it takes: a stopped process may hold it, and go on."""
    told = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > told:
                print(f"{path} has been locked for {LOCK_SECONDS:.0f} s by "
                      f"{_holder(descriptor)}; waiting until it goes on or ends", file=sys.stderr)
                told = time.monotonic() + LOCK_SECONDS
            time.sleep(0.005)


def _holder(descriptor: int) -> str:
    """Who holds the lock of an open file, as far as the kernel says."""
    inode = f":{os.fstat(descriptor).st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    holders = [fields[4] for fields in map(str.split, lines)
               if fields[1] == "FLOCK" and fields[5].endswith(inode)]
    return f"process {holders[0]}" if holders else "another process"


def _cut_torn_line(file: Any) -> None:
    """Leave the file at its end, behind the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        block = file.read(end - start)
        place = block.rfind(b"\n")
        if place >= 0:
            end = start + place + 1
            break
        end = start
    file.truncate(end)
    file.seek(end)
