"""Are the shipped networks still predicted what `networks.csv` says, and README's figures these?

If a change is meant to move them: python -m tests.support.golden --reason "..."
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.golden import CASES, TABLE, Figures, differences, measured, stored, text

README = " ".join((Path(__file__).parents[2] / "README.md").read_text("utf-8").split())
STORED = stored()


@pytest.mark.fitted
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_a_network_takes_on_a_design_what_it_took(case: tuple[str, str, int]) -> None:
    assert differences(STORED[case][0], measured(*case)) == []


def test_every_row_says_since_when_and_why() -> None:
    assert list(STORED) == list(CASES)
    assert all(why.commit and why.date and why.reason for _, why in STORED.values())


def test_the_table_is_what_is_read_from_it() -> None:
    assert text(STORED) == TABLE.read_text(encoding="utf-8")


def figures(*case: str | int) -> Figures:
    return STORED[case][0]  # type: ignore[index]


def takes(item: Figures) -> str:
    return f"{item.latency_ms:.0f} ms and {item.energy_uj:.0f} uJ"


def limits(item: Figures) -> str:
    return f"{item.energy_low_uj:.0f} to {item.energy_high_uj:.0f}"


HAND, CHOSEN = figures("agc-w64", "default", 0), figures("agc-w64", "demo", 0)
ONE, EIGHT = (figures(name, "diffusion", 0) for name in ("unicorn-n256-one-step",
                                                         "unicorn-n256-int8"))
#: Compared with the RTL: `cosim validate rtl --network agc-w16 --memory ddr3` of this design.
RTL = figures("agc-w16", "default", 200_000_000)


@pytest.mark.parametrize("claim", (
    f"the hand-made design takes {takes(HAND)} a pixel (80 % limits {limits(HAND)};",
    f"at {HAND.clock_hz / 1e6:.1f} MHz,",
    f"the one chosen of 600 takes {takes(CHOSEN)} ({limits(CHOSEN)}) at "
    f"{CHOSEN.clock_hz / 1e6:.0f} MHz.",
    f"for the first {HAND.fabric_mhz:.0f} MHz ({HAND.fabric_low_mhz:.0f} to "
    f"{HAND.fabric_high_mhz:.0f});",
    f"the frame's {HAND.cycles / 1e6:.0f} million cycles and {HAND.bursts / 1e6:.1f} million "
    "bursts",
    f"in one sampler step takes {ONE.latency_ms:.0f} ms on `diffusion`, in eight "
    f"{EIGHT.latency_ms:.0f} ms.",
    f"a whole agc-w16 frame at 200 MHz as emitted, {RTL.operations:,} operations and "
    f"{RTL.cycles:,} cycles, none differ.",
))
def test_a_figure_of_the_readme_is_the_golden_one(claim: str) -> None:
    assert claim in README
