"""Does overlap help as much as it did on the board, as far as one may say without schedules?"""

from __future__ import annotations

from arch_models.vta import load_vta
from cosim.vta.schedule import VtaConvolution, VtaSchedule
from studies.validate import overlap as validate_overlap
from studies.validate.overlap import moved_bytes, schedules, within

ARRAY = load_vta().array()
LAYER = VtaConvolution(1, 512, 7, 7, 512, 3, 3, 1, 1, 1, 1, 1, 1)


def test_moved_bytes_count_every_step() -> None:
    schedule = VtaSchedule(7, 7, 1, 16, 2, 1)
    assert moved_bytes(LAYER, schedule, ARRAY) == (
        2 * 32 * (9 * 9 * 16 + 9 * 16 * 256) + 7 * 7 * 512)


def test_only_buildable_schedules_are_offered() -> None:
    for threads in (1, 2):
        offered = schedules(LAYER, ARRAY, threads)
        assert offered and all(one.threads == threads for one in offered)
        assert all(one.tile_rows >= 3 and one.tile_in_blocks == 1 for one in offered)


def test_the_ratios_of_2018() -> None:
    """Not all are within 5 %: docs/validation.md says which, and what that means."""
    checks = validate_overlap.validate()
    assert len(checks) == 11
    assert within(checks, "rule") >= 4 and within(checks, "nearest") >= 8
    # The bitstream of 2018 ran these two faster than any schedule here, or in the 2019 rows.
    faster = {item.name for item in checks if abs(item.error(item.nearest)) > 0.15}
    assert faster == {"C8", "C11"}
    assert all(item.rule.ratio > 1 for item in checks)
