"""What a vendor's build of a design reached, as a file that a design may name.

It reads no report: `cosim calibrate --reports` does, and writes the file. A build speaks for its
own design only, which its digest says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from .fields import FieldError, build
from .files import read_toml
from .overlay import NOMINAL_CLOCK_HZ, Overlay, Rate, overlay_toml


@dataclass(frozen=True)
class Build:
    """A build of one design. `asked_mhz`: the constraint; `reached_mhz`: what the worst slack
    stands for. Where it was met (`met`), the tool stopped there, and more may be possible."""

    design: str
    digest: str
    tool: str
    device: str
    asked_mhz: float
    reached_mhz: float
    met: bool
    dsp: float
    bram36: float
    lut: float
    ff: float


def digest(overlay: Overlay) -> str:
    """Stands for what the fabric of a design depends on: not its name, clock, build, headroom."""
    plain = replace(overlay, name="any", clock_hz=NOMINAL_CLOCK_HZ, rate=Rate.PREDICTED, build="",
                    headroom=0.0)
    return hashlib.sha256(overlay_toml(plain).encode()).hexdigest()


def build_of(overlay: Overlay) -> Build | None:
    """The build that a design names, None if it names none; `FieldError` for another design's."""
    if not overlay.build:
        return None
    try:
        found = build(Build, read_toml(Path(overlay.build)), "")
    except FieldError as error:
        raise FieldError(f"build is {overlay.build!r}: {error}") from None
    if found.digest != digest(overlay):
        raise FieldError(f"build is {overlay.build!r}, which is of another design "
                         f"({found.design!r}); give its own, or leave the field out")
    return found
