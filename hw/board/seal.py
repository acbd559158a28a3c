"""Ties a built bitstream to the project's manifest, so that the driver can refuse another one.

It builds nothing. With the figures that the build script read back from the tools
(`report.json` beside the bitstream) it refuses a build that misses timing. Example, after the
vendor's tools: python3 board/seal.py build/overlay.bit
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

try:
    from hw.board.measurement import MeasurementError, write_whole
except ImportError:  # beside this file in an emitted project
    from measurement import (  # type: ignore[no-redef, import-not-found]
        MeasurementError,
        write_whole,
    )

#: Figures of a build that must not be negative; nanoseconds of slack, setup and hold.
SLACKS = ("wns_ns", "whs_ns")


class SealError(RuntimeError):
    """The bitstream cannot be sealed; the message says why in one line."""


def seal(project: str, bitstream: str, report: dict[str, Any] | None = None) -> str:
    """Write `bitstream.json` into the project; return its path.

    `report`: what `build_report` found, kept with the hashes; None for what no tool has built.
    """
    sealed: dict[str, Any] = {} if report is None else {"build": report}
    for name, path in (("manifest_sha256", os.path.join(project, "manifest.json")),
                       ("bitstream_sha256", bitstream)):
        with open(path, "rb") as file:
            sealed[name] = hashlib.sha256(file.read()).hexdigest()
    target = os.path.join(project, "bitstream.json")
    write_whole(target, (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode())
    return target


def build_report(bitstream: str) -> dict[str, Any]:
    """The figures beside a bitstream; `SealError` if they are missing or timing is."""
    path = os.path.join(os.path.dirname(os.path.abspath(bitstream)), "report.json")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        slacks = {name: float(found[name]) for name in SLACKS}
        unrouted = int(found["failed_nets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SealError(f"{path}: does not say whether timing is met ({error}); build with "
                        "`make bitstream`") from None
    late = {name: value for name, value in slacks.items() if not value >= 0}
    if late or unrouted:
        raise SealError(f"{path}: timing is missed ({late or slacks}, {unrouted} nets not routed); "
                        "not sealed. Emit a design with a lower clock")
    return dict(found)


def main(arguments: list[str]) -> int:
    """Exit code 0 if sealed, 2 if not."""
    if len(arguments) != 1 or not os.path.exists(arguments[0]):
        print("usage: seal.py BITSTREAM (an existing file)", file=sys.stderr)
        return 2
    project = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        print(f"wrote {seal(project, arguments[0], build_report(arguments[0]))}")
    except (MeasurementError, SealError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
