"""Ties a built bitstream to the project's manifest, so that the driver can refuse another one.

It builds nothing. Example, after the vendor's tools: python3 board/seal.py build/overlay.bit
"""

from __future__ import annotations

import hashlib
import json
import os
import sys


def seal(project: str, bitstream: str) -> str:
    """Write `bitstream.json` into the project; return its path."""
    hashes = {}
    for name, path in (("manifest_sha256", os.path.join(project, "manifest.json")),
                       ("bitstream_sha256", bitstream)):
        with open(path, "rb") as file:
            hashes[name] = hashlib.sha256(file.read()).hexdigest()
    target = os.path.join(project, "bitstream.json")
    with open(target, "w", encoding="utf-8") as file:
        json.dump(hashes, file, indent=1, sort_keys=True)
        file.write("\n")
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2 or not os.path.exists(sys.argv[1]):
        sys.exit("usage: seal.py BITSTREAM (an existing file)")
    print(f"wrote {seal(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sys.argv[1])}")
