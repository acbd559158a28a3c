"""The page and the picture of the proof of the search.

It computes nothing; `studies.proof.proof` hands it the summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from studies.plain.files import write_text
from studies.proof.regret import page as table
from studies.proof.regret import recorded
from studies.report.pictures import save_picture

PICTURE = Path("pictures") / "search.png"

#: Why the default search is as it is.
DEFAULT = """\
**What made the default**: NSGA-II alone, and single-axis neighbours, can stay on a design whose
array has another shape: the way from 24 x 8 x 2 to 8 x 16 x 2 leads through designs that do not
fit. So half of every batch are untried neighbours of the front, and axes that share a resource
(`Space.couplings`: the array's extents) may change two at once. The choice was tuned on this
sub-space when the resource model was another and NSGA-II alone ended 5.5 % from the best. After
every fifty designs the best one is improved along one axis behind the other, each time to the
axis' best value. Buffers are coupled like the array's extents: they share the block RAM. And
before anything is simulated, 300 designs are searched by their lower bounds alone, in a few
seconds (`studies/search/screening.py`), and 300 more with as many banks and bursts as there may be,
to which bounds are nearly blind; of the arrays whose bounds are best the search begins with the
best design, and with the front of the bounds. Certificates of whole spaces showed why that is
needed: see below. Another network or board may need more designs.
"""

#: How others search the same space.
BENCHMARK = """\
**As a benchmark** for another optimizer: it proposes values of the axes, and is told latency and
energy, or that a design is infeasible. The table above has the scores to beat.
```python
import random
from studies.proof.published import open_benchmark

game = open_benchmark()
print(len(game.axes), "axes,", game.space.size(), "designs")
chance = random.Random(0)
tried = [{axis.name: chance.choice(axis.values) for axis in game.axes} for _ in range(200)]
print(sum(game.figures(choice) is not None for choice in tried), "feasible")
print(game.score(tried))
```
"""

#: Of enumerations whose spaces the program searches no more.
RECORDED_THEN = """\
These spaces had the clock as a free choice; now it follows from the design, so neither the spaces
nor their times are those of today, and they are not searched anew. With the clocks of then the
default search, without its sweeps, found the best latency of both within 1,000 designs, ten seeds
of ten.
"""


def write_page(found: Mapping[str, Any], path: Path) -> None:
    """Write the page, and its picture into `pictures/` beside it."""
    picture = path.parent / PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_picture(draw(found), picture)
    write_text(path, page(found))


def draw(found: Mapping[str, Any]) -> Figure:
    """Regret and missing hypervolume over evaluations: medians, and 10 % to 90 % of the seeds."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = (("regret", "regret of latency, %", 1.0), ("hypervolume_ratio",
                                                        "missing hypervolume, %", 1.0))
    for axes, (key, label, goal) in zip(panels, titles, strict=True):
        for name, curve in found["curves"].items():
            at = curve["evaluations"]
            low, middle, high = (_percent(curve[f"{key}_{part}"], key)
                                 for part in ("low", "median", "high"))
            line, = axes.plot(at, middle, label=name, linewidth=2 if "default" in name else 1)
            axes.fill_between(at, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        axes.axhline(goal, color="0.4", linestyle=":", linewidth=1)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("designs tried, infeasible ones included")
        axes.set_ylabel(label)
    panels[1].legend(fontsize=7)
    return figure


def _percent(values: list[float | None], key: str) -> list[float]:
    shares = [float("nan") if value is None else value for value in values]
    return [100 * (1 - value if key == "hypervolume_ratio" else value) for value in shares]


def page(found: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    rows = []
    for name, curve in found["curves"].items():
        regret, ratio = curve["regret_median"][-1], curve["hypervolume_ratio_median"][-1]
        spread = "-" if regret is None else (f"{curve['regret_low'][-1]:.2%} to "
                                             f"{curve['regret_high'][-1]:.2%}")
        rows.append(f"| {name} | {curve['evaluations'][-1]} | "
                    + ("-" if regret is None else f"{regret:.2%}")
                    + f" | {spread} | {ratio:.2%} | {curve['evaluations_to_reach'] or 'never'} |")
    reached = found["evaluations_to_reach"]
    verdict = (f"within 1 % of the best latency and 99 % of the hypervolume after {reached} "
               "designs" if reached else "not within 1 % and 99 %")
    left = [name for name in ("nsga3", "random", "tpe", "gp") if name not in found["curves"]]
    note = (f"Not on this page, for want of time on a shared machine: {', '.join(left)}."
            if left else "TPE and GP get fewer designs: a proposal costs them seconds.")
    # Two workers and more take less by the clock than the processors together, unless they wait.
    beside = " beside other work" if found["seconds"] > found["processor_seconds"] else ""
    front = "\n".join(f"| {latency:.3f} | {energy:.4f} |" for latency, energy in found["front"])
    return f"""# How far a search is from the true best

Made by `cosim study proof --json FILE --page docs/search.md`. Everything is
predicted, with the memory model `flat`.

**The sub-space** (`studies/proof/search_proof.toml`): {found['designs_enumerated']:,} designs for
{found['workload']} (the whole network, one frame) on {found['board']}, conditional axes included;
{found['feasible']:,} of them feasible. Every one was evaluated: {found['seconds']:.0f} s by the
clock, {found['processor_seconds']:.0f} s of processor time{beside} on {found['machine']}.
Designs that share a lowered program share it (`studies/evaluation/batch.py`); every figure equals
the single evaluation's, to the last bit. The table is `studies/data/agc_w16_designs.npz`; its
format is in `studies/proof/published.py`, which reads it.

**The truth**: best latency {found['best_latency_ms']:.3f} ms. The front of latency and energy:

| latency, ms | energy, uJ a pixel |
| ---: | ---: |
{front}

It is short because static power is most of the energy: what is faster is nearly always cheaper.

**The searches** run the code of `cosim explore` without its sweeps of the axes and its screening;
answers come from the table. None is given a design to start with.
Median of {found['seeds']} seeds{', GP of 3' * ('gp' in found['curves'])};
spread: 10 % to 90 % of them. A design tried counts whether it is feasible or not. Reference point
of the hypervolume: {found['reference'][0]:.2f} ms and {found['reference'][1]:.3f} uJ a pixel, 1.1
times the worst of each on the true front. {note}

| search | designs tried | regret, median | spread | hypervolume, median | 1 % and 99 % after |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

The default search is {verdict} (median).

![Regret and missing hypervolume over designs tried]({PICTURE.as_posix()})

{BENCHMARK}
{DEFAULT}{_whole()}{_wide(found)}"""


def _whole() -> str:
    """The section on whole spaces."""
    rows = recorded()
    first, machines = rows[0], "; ".join(dict.fromkeys(row.machine for row in rows))
    return f"""
## On whole default spaces

`cosim study regret CERTIFICATE... --json studies/data/search_regret.json`, on
{machines}. What a search ends with after {first.designs} designs, simulated or
left out by their bounds, against the best that is known of the space, {first.seeds} seeds; a better
design than that can be better by the certificate's gap at most. Samplers alone have no neighbours,
no sweeps and no screening; all begin with the same start designs.

{table(rows)}"""


def _wide(found: Mapping[str, Any]) -> str:
    """The section on the spaces that a GPU enumerated, empty without any."""
    if not found.get("wide"):
        return ""
    searched = [item for item in found["wide"] if item["median_regret"] is not None]
    rows = "\n".join(
        f"| `{item['space']}` | {item['space_designs']:,} | {item['feasible']:,} | "
        f"{item['recurrences']:,} | {item['seconds']:.0f} | {item['best_latency_ms']:.3f} | "
        + (f"{item['median_regret']:.2%} | {item['worst_regret']:.2%} | "
           f"{item['median_hypervolume_ratio']:.2%} |" if item in searched else "- | - | - |")
        for item in found["wide"])
    reading = (f"""\
Regret (median and worst of {searched[0]['seeds']} seeds) and hypervolume (median) are those of the
default search after 1,000 designs, each evaluated here as in `cosim explore`.
""" if searched else RECORDED_THEN)
    check, first = found["wide_check"], found["wide"][0]
    return f"""
## A hundred million designs and more

`cosim study enumerate --device cuda` times programs on a GPU: one thread a
setting of clock, ports and limits, all on one walk through the program
(`cosim/recurrence/cuda.py`). The processor's cores lower the programs meanwhile. Recorded on
{first['device']} with 16 cores (`studies/data/enumerate_wide_h100.json`). {check['designs']:,}
designs of the first space drawn at random ({check['feasible']:,} of them feasible)
were evaluated on the CPU as well:
{check['unequal']} differ in latency or energy, to the last bit. A recurrence is one simulated
frame; packing of DSPs takes none of its own.

| space | designs | feasible | recurrences | s | best, ms | regret | worst | hypervolume |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

{reading}"""
