"""The machine that figures were measured on: its processor, its cores, what a process used.

It measures no time by the clock.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage


def machine() -> str:
    """Processor, cores and interpreter, for the reader of a figure."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else \
        os.cpu_count() or 1


def processor_seconds() -> float:
    """Of this process and those that it started and that have ended."""
    return sum(getrusage(who).ru_utime + getrusage(who).ru_stime
               for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
