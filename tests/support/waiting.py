"""Waiting for another process: for what it has done, never for a number of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Longer than anything takes on a machine that does much else; only a fault waits so long.
PATIENCE_SECONDS = 900


def wait_until(ready: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
