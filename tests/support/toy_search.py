"""A small space whose every design is known, and a process that searches it on a shared study.

Run: python -m tests.support.toy_search STORAGE MILLISECONDS_A_DESIGN SAMPLER
"""

from __future__ import annotations

import json
import sys
import time

from arch_models.power.energy import Energy
from studies.evaluation.values import ClockReport, Evaluation, Resource
from studies.search.outcomes import Failure, Found, Sampler, Settings
from studies.search.search import search
from studies.search.shared_study import SharedStudy, open_study
from studies.search.space import Axis, Space

SPACE = Space((Axis("a", tuple(range(1, 9))), Axis("b", tuple(range(1, 9))),
               Axis("c", (1, 2, 3, 4))))
SETTINGS = Settings(designs=24, seed=7, batch=8, population=8, rounds=1)
IDENTITY = {"workload": "toy", "seed": 7, "space": {"a": [1, 8]}}


def evaluation(latency_cycles: int, joules: float, dsp: int) -> Evaluation:
    return Evaluation("toy", "toy", "toy", "flat", 1000, 1, 1000, latency_cycles, None, 1, 1, 0,
                      0, 0, 0, 0, 0, 0, 1, Energy({"PS": joules}),
                      (Resource("DSP", float(dsp), 100),), (),
                      ClockReport("assumed", 0.0, 0.0, 0.0), "")


def outcome(choice):
    """Latency falls with a*b, energy grows with b, DSPs with a*b; too many DSPs do not fit."""
    a, b, c = choice["a"], choice["b"], choice["c"]
    dsp = 3 * a * b
    if dsp > 100:
        return Failure("too many DSPs", dsp / 100 - 1, (Resource("DSP", float(dsp), 100),))
    return evaluation(10_000 // (a * b) + 10 * c, 1.0 * b + c, dsp)


def evaluate(choices):
    return [outcome(choice) for choice in choices]


def open_toy(storage: str, identity=IDENTITY, name: str = "toy") -> SharedStudy:
    return open_study(storage, name, SPACE, SETTINGS.objectives, identity)


def plain(found: Found) -> list:
    """The records as JSON values: choices in order and what became of them."""
    return [[record.choice, record.evaluation.latency_cycles if record.evaluation else None]
            for record in found.records]


def main() -> None:
    storage, milliseconds, sampler = sys.argv[1:]
    asked = 0

    def slowly(choices):
        nonlocal asked
        for choice in choices:
            time.sleep(float(milliseconds) / 1000)
            asked += 1
            yield outcome(choice)

    settings = Settings(**{**vars(SETTINGS), "sampler": Sampler(sampler)})
    study = open_toy(storage)
    found = search(study.remembering(slowly), SPACE, settings)
    print(json.dumps({"records": plain(found), "front": found.front, "evaluated": asked}))


if __name__ == "__main__":
    main()
