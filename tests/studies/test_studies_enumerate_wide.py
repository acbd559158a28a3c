"""Does the wide enumeration say of a space what its whole table says? On a GPU's lanes too?"""

from __future__ import annotations

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from cosim.memory.bursts import flat_transfer
from studies.plain.errors import UserError
from studies.proof import enumerate_wide
from studies.proof.enumerate_wide import SPACE, merged, summary
from studies.proof.enumeration import Codes, Part, Walker, enumerate_space
from studies.search.front import pareto_mask
from studies.search.space_file import load_space
from tests.support.narrow_space import NARROW
from workloads.library import load

BOARD, BASE, GRAPH = load_board("pynq-z1"), default_overlay(), load("agc-w16")
WIDE = NARROW + "dsp_packing = [false, true]\nrequantize_cycles = [8]\nmax_burst_beats = [4, 16]\n"


class Straight:
    """Follows the steps for all lanes with numpy; it stands for `CudaTimer` on large programs."""

    def total_cycles(self, lanes, jobs):
        """See `CudaTimer`."""
        return [self.one(lanes, job) for job in jobs]

    def one(self, lanes, job):
        """The cycles of one job's lanes."""
        ring, rows = np.empty(32, np.int64), []
        for row in job.steps.rows:
            if row.host >= 0:
                rows.append(job.host_cycles[lanes.numbers[row.unit, job.lanes], row.host])
                continue
            each = [item.setup + item.tail + flat_transfer(row.offset, row, item, ring)[0]
                    for item in lanes.settings[row.unit, : lanes.counts[row.unit]]]
            rows.append(np.array(each)[lanes.numbers[row.unit, job.lanes]])
        ends = np.zeros((64, len(job.lanes)), np.int64)
        source = 0
        for what, unit, keep, until in job.steps.steps.tolist():
            now = ends[[unit, *job.steps.sources[source:until]]].max(axis=0)
            source = until
            ends[unit] = now + (what if what >= 0 else rows[-1 - what])
            if keep >= 0:
                ends[keep] = ends[unit]
        return ends[: len(lanes.counts)].max(axis=0)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(WIDE)
    return Part(GRAPH, BOARD, BASE, load_space(path, BOARD, GRAPH))


@pytest.fixture(scope="module")
def whole(part):
    return enumerate_space(part.graph, BOARD, BASE, part.space)


@pytest.mark.parametrize("gpu", [None, Straight()], ids=["cpu", "lanes"])
def test_a_summary_is_that_of_the_whole_table(part, whole, gpu):
    pieces = [summary(item) for item in Walker(part, gpu).walk(part.outer()[::-1])]
    found = merged([merged(pieces[:3]), *pieces[3:]])
    codes = Codes(part.space)
    clocks = np.array([int(codes.choice(code)["clock_mhz"]) for code in whole.codes])
    good = whole.feasible
    cycles = np.round(whole.latency_ms * clocks * 1e3)[good].astype(np.int64)
    assert (found.designs, found.feasible) == (len(whole.codes), good.sum())
    assert found.designs == part.space.size() and found.cycles == cycles.sum()
    points = np.column_stack([whole.latency_ms, whole.energy_uj_per_pixel])[good]
    front = points[pareto_mask(points)]
    assert np.array_equal(found.front, front[np.argsort(front[:, 0])])
    for code, point in zip(found.codes.tolist(), found.front.tolist(), strict=True):
        assert whole.figures(code) == tuple(point)
        assert codes.code(part.space.canonical(codes.choice(code))) == code


def test_random_designs_are_compared_with_the_evaluations(part):
    found = enumerate_wide.check(part, False, 1, 40, 2, np.inf)
    assert (found["designs"], found["unequal"]) == (40, 0) and found["feasible"] > 10


def test_a_limit_leaves_a_partial_run_that_says_so(part):
    found = enumerate_wide.enumerate_wide(part, False, 1, (1, 2), None, np.inf)
    assert not found["complete"] and found["designs_enumerated"] == 0
    assert found["space_designs"] == part.space.size()


@pytest.mark.parametrize("path, size", [
    (SPACE, 106_168_320), (SPACE.with_name("search_proof_billion.toml"), 1_061_683_200)])
def test_the_spaces_that_ship_are_as_large_as_they_say(path, size):
    assert load_space(path, BOARD, GRAPH).size() == size and f"{size:,}" in path.read_text()


@pytest.mark.parametrize("request_, named", [
    (enumerate_wide.Request(device="tpu"), "cpu, cuda"),
    (enumerate_wide.Request(shard="2/2"), "0 <= i < n")])
def test_wrong_arguments_are_refused(request_, named):
    with pytest.raises(UserError, match=named):
        enumerate_wide.run(request_)
