"""Do VTA instruction streams and programs say what the hardware does?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.fields import FieldError
from arch_models.vta import VtaArray, VtaTiming, load_vta
from cosim.executors import des, fast
from cosim.program.table import Column
from cosim.program.verify import verify
from cosim.vta.cache import missing_share
from cosim.vta.instructions import bus_bytes, instructions, micro_operations
from cosim.vta.lower import (
    COMPUTE,
    FETCH,
    LOAD,
    LOADS,
    STORE_OUTPUT,
    WEIGHT_PORT,
    lower_vta,
    miss_cycles,
    vta_memory,
)
from cosim.vta.queue import Field, Kind, Module, Token
from cosim.vta.schedule import VtaConvolution, VtaSchedule, VtaScheduleError, reject_reason

MODEL = load_vta()
ARRAY = MODEL.array()
TIMING = MODEL.timing
#: 56x56, 64 to 64 channels, 3x3: the first layer of the published profiles.
LAYER = VtaConvolution(1, 64, 56, 56, 64, 3, 3, 1, 1, 1, 1, 1, 1)
SCHEDULE = VtaSchedule(8, 56, 1, 2, 2, 1)
SMALL = VtaConvolution(1, 32, 8, 8, 32, 3, 3, 1, 1, 1, 1, 1, 1)

EXTREMES = [
    (SMALL, VtaSchedule(1, 1, 1, 1)),
    (SMALL, VtaSchedule(1, 8, 1, 1, 1, 2)),
    (SMALL, VtaSchedule(8, 1, 1, 2)),
    (SMALL, VtaSchedule(8, 8, 1, 1, 2, 1)),
    (VtaConvolution(1, 2048, 1, 1, 1024, 1, 1), VtaSchedule(1, 1, 8, 8, 2, 1)),
    (VtaConvolution(1, 16, 224, 224, 16, 1, 1), VtaSchedule(1, 224, 1, 1, 1, 2)),
    (VtaConvolution(1, 16, 5, 5, 16, 5, 5, 1, 1, 2, 2, 2, 2), VtaSchedule(1, 5, 1, 1)),
    (VtaConvolution(2, 16, 4, 4, 16, 1, 1), VtaSchedule(4, 4, 1, 1, 1, 1, 2)),
    (VtaConvolution(1, 16, 9, 9, 16, 3, 3, 2, 2), VtaSchedule(2, 4, 1, 1)),
]


def test_counts_of_the_published_profile() -> None:
    table = instructions(LAYER, SCHEDULE, ARRAY, bias=True)
    assert bus_bytes(table, ARRAY) == {"fetch": 4800, "load": 745472, "micro_op": 480,
                                       "bias": 1792, "store": 200704}


def test_micro_operations_leave_two_loops_to_the_hardware() -> None:
    assert micro_operations((1, 56, 3, 3, 2, 8)) == 3 * 2 * 8
    assert micro_operations((1, 1, 7)) == 1
    assert micro_operations(()) == 1


@pytest.mark.parametrize("layer,schedule", EXTREMES)
def test_tokens_balance_and_work_is_complete(layer: VtaConvolution,
                                             schedule: VtaSchedule) -> None:
    table = instructions(layer, schedule, ARRAY)
    for token in Token:
        pushed = (table[:, Field.PUSH] >> token & 1).sum()
        assert pushed == (table[:, Field.POP] >> token & 1).sum()
    macs = table[table[:, Field.KIND] == Kind.GEMM, Field.TRIPS].sum() * ARRAY.macs_per_cycle
    assert macs == layer.macs
    stored = table[table[:, Field.KIND] == Kind.OUTPUT]
    bytes_out = (stored[:, Field.RUN_BYTES] * stored[:, Field.RUNS]).sum()
    assert bytes_out == layer.batch * layer.out_channels * layer.out_rows * layer.out_columns


@pytest.mark.parametrize("layer,schedule", EXTREMES)
def test_programs_verify_and_executors_agree(layer: VtaConvolution,
                                             schedule: VtaSchedule) -> None:
    program = lower_vta(layer, schedule, ARRAY, TIMING)
    verify(program)
    memory = vta_memory(ARRAY)
    result = fast.simulate(program, memory)
    assert result.differences(des.simulate(program, memory)) == []
    work = program.operations[program.operations[:, Column.UNIT] == COMPUTE]
    assert result.total_cycles > (work[:, Column.INTERVAL] * work[:, Column.TRIPS]).sum()
    moved = result.layer_bytes[0, LOADS].sum()
    assert result.total_cycles > moved / ARRAY.port_width_bytes
    counted = bus_bytes(instructions(layer, schedule, ARRAY), ARRAY)
    assert moved == counted["load"]
    assert result.layer_bytes[0, STORE_OUTPUT] == counted["store"]
    assert result.layer_bytes[0, FETCH] == counted["fetch"]


def test_second_array_does_the_same_layer() -> None:
    array = MODEL.array("4x8")
    layer = VtaConvolution(4, 16, 8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1)
    schedule = VtaSchedule(4, 8, 1, 2, 1, 2)
    assert reject_reason(layer, schedule, array) is None
    program = lower_vta(layer, schedule, array, TIMING)
    verify(program)
    assert program.operations[:, Column.MACS].sum() == layer.macs


def test_overlap_is_faster_and_the_first_output_waits_for_compute() -> None:
    serial = VtaSchedule(8, 56, 1, 2)
    memory = vta_memory(ARRAY)
    times = [fast.simulate(lower_vta(LAYER, one, ARRAY, TIMING), memory).total_cycles
             for one in (SCHEDULE, serial)]
    assert times[0] < times[1]


def test_slower_coefficients_never_speed_a_layer_up() -> None:
    memory = vta_memory(ARRAY)
    base = fast.simulate(lower_vta(LAYER, SCHEDULE, ARRAY, TIMING), memory).total_cycles
    for name in ("host_cycles", "instruction_cycles", "gemm_cycles", "row_cycles",
                 "padded_row_cycles", "store_row_cycles"):
        slower = replace(TIMING, **{name: getattr(TIMING, name) + 10})
        assert fast.simulate(lower_vta(LAYER, SCHEDULE, ARRAY, slower),
                             memory).total_cycles > base, name


def cycles(layer: VtaConvolution, schedule: VtaSchedule, timing: VtaTiming = TIMING,
           array: VtaArray = ARRAY) -> int:
    program = lower_vta(layer, schedule, array, timing)
    return fast.simulate(program, vta_memory(array)).total_cycles


#: One thread, one tile, one step: nothing overlaps, so every cost adds up.
ALONE = VtaConvolution(1, 16, 8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1)
WHOLE = VtaSchedule(8, 8, 1, 1)


def test_one_tile_alone_takes_the_sum_of_its_parts() -> None:
    """Fetch, host, padded load, weights, arithmetic and store of a layer of one tile, by hand."""
    nothing = VtaTiming(0, 1, 0, 0, 0, 0, 0.0, 0.0, 10**9)
    base = cycles(ALONE, WHOLE, nothing)
    # Eight rows of 8 blocks, in one instruction.
    assert cycles(ALONE, WHOLE, replace(nothing, padded_row_cycles=5)) == base + 8 * 5
    assert cycles(ALONE, WHOLE, replace(nothing, host_cycles=70)) == base + 70
    # Reset and GEMM.
    assert cycles(ALONE, WHOLE, replace(nothing, gemm_cycles=11)) >= base + 11
    # The whole output is one run, so one response; of four columns each row is a run.
    assert cycles(ALONE, WHOLE, replace(nothing, store_row_cycles=9)) == base + 9
    halves = VtaSchedule(8, 4, 1, 1)
    serial = cycles(ALONE, halves, nothing)
    assert cycles(ALONE, halves, replace(nothing, store_row_cycles=9)) == serial + 2 * 8 * 9


def test_an_unpadded_load_pays_nothing_for_edges() -> None:
    layer = VtaConvolution(1, 16, 10, 10, 16, 3, 3)
    slower = replace(TIMING, padded_row_cycles=TIMING.padded_row_cycles + 9)
    assert cycles(layer, WHOLE, slower) == cycles(layer, WHOLE)


def test_a_weight_block_of_one_bank_takes_a_beat_a_cycle() -> None:
    assert [MODEL.array(name).weight_beat_cycles for name in ("1x16", "4x8")] == [2, 1]
    memory = vta_memory(MODEL.array("4x8"))
    assert memory.ports[WEIGHT_PORT].width_bytes == 8
    assert vta_memory(ARRAY).ports[WEIGHT_PORT].width_bytes == 4


def test_misses_wait_for_the_slower_of_memory_and_buffer() -> None:
    """Half the bytes of a load gone, half its bursts longer; wide blocks wait less."""
    layer = VtaConvolution(1, 512, 7, 7, 512, 3, 3, 1, 1, 1, 1, 1, 1)
    schedule = VtaSchedule(7, 7, 1, 16, 2, 1)
    table = instructions(layer, schedule, ARRAY, cache_bytes=TIMING.cache_bytes)
    waits = miss_cycles(table, ARRAY, TIMING)
    kind = table[:, Field.KIND]
    size = table[:, Field.RUN_BYTES] * table[:, Field.RUNS]
    weights = kind == Kind.WEIGHT
    assert (waits[weights] == np.rint(size[weights] / 128 * TIMING.miss_wide_burst_cycles)).all()
    first = np.flatnonzero(kind == Kind.INPUT)[0]
    assert waits[first] == round(7 * 7 * 16 / 128 * TIMING.miss_burst_cycles)
    assert not waits[~np.isin(kind, (Kind.INPUT, Kind.WEIGHT))].any()


@pytest.mark.parametrize("touched,share", [(0, 0), (393216, 0), (393216 + 16384, 0.25),
                                           (458752, 1), (10**9, 1)])
def test_sets_with_a_line_too_many_miss(touched: int, share: float) -> None:
    """From whole ways kept to one way more the sets fill one after the other."""
    assert missing_share(touched, 393216) == share


def far(layer: VtaConvolution, schedule: VtaSchedule, cache_bytes: int) -> tuple[int, int]:
    """Input and weight loads that miss, whole or in part."""
    table = instructions(layer, schedule, ARRAY, cache_bytes=cache_bytes)
    missing = table[:, Field.MISS_BYTES] > 0
    return tuple(int((missing & (table[:, Field.KIND] == kind)).sum())  # type: ignore[return-value]
                 for kind in (Kind.INPUT, Kind.WEIGHT))


def test_a_layer_that_fits_the_cache_never_misses() -> None:
    assert far(SMALL, VtaSchedule(1, 1, 1, 1), TIMING.cache_bytes) == (0, 0)
    assert far(SMALL, VtaSchedule(1, 1, 1, 1), 10**9) == (0, 0)


def test_first_uses_miss_and_threads_share() -> None:
    layer = VtaConvolution(1, 512, 7, 7, 512, 3, 3, 1, 1, 1, 1, 1, 1)
    steps = 512 // 16
    # One tile in rows and columns: every weight is used once, inputs once a pair of threads.
    assert far(layer, VtaSchedule(7, 7, 1, 16, 2, 1), TIMING.cache_bytes) == (steps, 2 * steps)


def test_what_is_used_again_soon_is_near() -> None:
    layer = VtaConvolution(1, 256, 56, 56, 16, 1, 1)
    steps, tiles = 256 // 16, 56 // 4
    # 4 KiB of weights stay; every input is used once.
    inputs, weights = far(layer, VtaSchedule(4, 56, 1, 1), TIMING.cache_bytes)
    assert inputs == steps * tiles and weights == steps


def test_nothing_stays_in_a_cache_of_nothing() -> None:
    inputs, weights = far(SMALL, VtaSchedule(8, 8, 1, 1), 0)
    assert (inputs, weights) == (4, 4)


def test_fetch_stays_within_the_command_queues() -> None:
    layer = VtaConvolution(1, 512, 14, 14, 64, 1, 1)
    program = lower_vta(layer, VtaSchedule(1, 14, 1, 1), ARRAY, TIMING)
    trace = fast.simulate(program, vta_memory(ARRAY), trace=True).trace
    assert trace is not None
    table = instructions(layer, VtaSchedule(1, 14, 1, 1), ARRAY)
    fetched = trace.start[program.operations[:, Column.UNIT] == FETCH]
    loads = np.flatnonzero(table[:, Field.MODULE] == Module.LOAD)
    ends = trace.end[np.isin(program.operations[:, Column.UNIT], (LOAD, *LOADS))]
    assert len(loads) == len(ends) > 2 * ARRAY.queue_depth
    # The n-th load instruction is fetched only after load n - 512 has finished, and then at once.
    waited = fetched[loads[ARRAY.queue_depth:]] - ends[:-ARRAY.queue_depth]
    assert waited.min() == 0


@pytest.mark.parametrize("schedule,part", [
    (VtaSchedule(3, 56, 1, 2), "tile_h is 3"),
    (VtaSchedule(8, 56, 0, 2), "tile_ci is 0"),
    (VtaSchedule(8, 56, 1, 2, 3), "oc_nthread is 3"),
])
def test_meaningless_schedules_are_refused(schedule: VtaSchedule, part: str) -> None:
    with pytest.raises(VtaScheduleError, match=part):
        instructions(LAYER, schedule, ARRAY)


def test_wrong_channels_name_the_nearest() -> None:
    with pytest.raises(VtaScheduleError, match="nearest: 32"):
        instructions(VtaConvolution(1, 24, 8, 8, 16, 1, 1), VtaSchedule(8, 8, 1, 1), ARRAY)


@pytest.mark.parametrize("schedule,part", [
    (VtaSchedule(8, 56, 2, 2), "tile_ci must be 1"),
    (VtaSchedule(8, 56, 1, 2, 2, 2), "two axes"),
    (VtaSchedule(56, 56, 1, 1), "input tiles need"),
    (VtaSchedule(56, 56, 1, 4), "tiles need"),
    (VtaSchedule(8, 28, 1, 2), "two-dimensional"),
    (VtaSchedule(8, 56, 1, 4, 2), "oc_nthread"),
])
def test_reasons_of_rejection(schedule: VtaSchedule, part: str) -> None:
    assert part in (reject_reason(LAYER, schedule, ARRAY) or "")


def test_unknown_array_names_the_nearest() -> None:
    with pytest.raises(FieldError, match="did you mean '4x8'"):
        MODEL.array("4x9")
