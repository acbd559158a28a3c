"""SimResult: what an executor says happened, cycle by cycle, in integers.

It does not turn cycles into seconds or joules; see `studies.evaluation.evaluate`.

For each unit, busy + stalls by cause + idle = total, exactly:
- busy: an engine or the host works; a DMA is set up, transfers a beat, or finishes (tail);
- stall `memory`: a DMA operation runs and no beat of it moves;
- stall by channel: the next operation is not the unit's first in its layer and waits for tokens;
  the whole wait is booked on the channel whose token came last (lowest index at a tie);
- idle: the unit waits for its first operation in a layer, or has none left.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Trace:
    """What happened to every operation, repeats written out in table order (int64).

    `start`, `end`: cycles; `row_hits`, `row_misses`: DRAM rows that its bursts found open, and
    those that had to be opened (all zero in the flat memory, None if nobody counted them).
    """

    start: np.ndarray
    end: np.ndarray
    row_hits: np.ndarray | None = None
    row_misses: np.ndarray | None = None


@dataclass(frozen=True)
class SimResult:
    """Integers only; U units, C channels, L layers, P ports.

    `busy`, `idle`, `memory_stall`: (U,); `token_stall`: (U, C);
    `layer_start`, `layer_end`: (L,), first start and last end over all repeats, -1 if none;
    `layer_busy`, `layer_memory_stall`, `layer_token_stall`: (L, U);
    `layer_bytes`: (L, U) bytes moved; `layer_bursts`: (L, U);
    `layer_macs`: (L,) useful multiply-accumulates; `operations`: (U,) executed;
    `segment_end`: cycle at which each repeat of the LAST segment ended (for periods), in order;
    `row_hits`, `row_misses`, `refreshes`: DRAM page accounting (zero in the flat memory).
    """

    total_cycles: int
    busy: np.ndarray
    idle: np.ndarray
    memory_stall: np.ndarray
    token_stall: np.ndarray
    operations: np.ndarray
    layer_start: np.ndarray
    layer_end: np.ndarray
    layer_busy: np.ndarray
    layer_memory_stall: np.ndarray
    layer_token_stall: np.ndarray
    layer_bytes: np.ndarray
    layer_bursts: np.ndarray
    layer_macs: np.ndarray
    segment_end: np.ndarray
    row_hits: int
    row_misses: int
    refreshes: int
    trace: Trace | None = None

    def broken_invariants(self) -> list[str]:
        """Rules of accounting that do not hold; empty for every correct run."""
        rules = {
            "busy + stalls + idle = total": np.all(
                self.busy + self.idle + self.memory_stall + self.token_stall.sum(axis=1)
                == self.total_cycles),
            "nothing is negative": all(np.all(part >= 0) for part in (
                self.busy, self.idle, self.memory_stall, self.token_stall, self.layer_busy,
                self.layer_memory_stall, self.layer_token_stall)),
            "layers add up to busy": np.array_equal(self.layer_busy.sum(axis=0), self.busy),
            "layers add up to memory stall": np.array_equal(
                self.layer_memory_stall.sum(axis=0), self.memory_stall),
            "layers add up to token stall": np.array_equal(
                self.layer_token_stall.sum(axis=0), self.token_stall.sum(axis=1)),
            "layers end within the run": np.all(self.layer_end <= self.total_cycles),
        }
        return [name for name, holds in rules.items() if not holds]

    def differences(self, other: SimResult) -> list[str]:
        """Names of the fields that differ; empty means equal in every field."""
        found = []
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, Trace) and isinstance(theirs, Trace):
                for part in ("start", "end", "row_hits", "row_misses"):
                    one, other_one = getattr(mine, part), getattr(theirs, part)
                    counted = one is not None and other_one is not None
                    if counted and not np.array_equal(one, other_one):
                        found.append(f"trace.{part}")
            elif not np.array_equal(mine, theirs):
                found.append(item.name)
        return found
