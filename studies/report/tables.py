"""Terminal tables of evaluations and searches, with rich.

It does not compute figures; every table says that its numbers are predicted, and by which model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table

from studies.evaluation.values import Displaced, Evaluation, LayerReport
from studies.plain.terminal import grid

MICROJOULES = 1e6
#: Shares of a part above this are hard to place; no figure of a build is behind it.
TIGHT = 0.95


def heading(item: Evaluation) -> str:
    """One line: what was predicted, by which model."""
    return (f"predicted: {item.workload} on {item.overlay} / {item.board_label}, "
            f"memory model {item.memory_model}, {_megahertz(item)} MHz "
            f"({item.clock.basis}){unchecked(item)}")


def unchecked(item: Evaluation) -> str:
    """What of the board was held against no measurement, to stand behind a line; may be empty."""
    return f"; unchecked on this board: {', '.join(item.unchecked)}" if item.unchecked else ""


def displaced(items: Sequence[Displaced], most: int = 4) -> str:
    """One sentence on the layers that the fabric could not take; empty if it took all."""
    if not items:
        return ""
    shown = "; ".join(f"{item.layer} ({item.engine}: {item.why})" for item in items[:most])
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"on the host although their engines are in fabric: {shown}{more}"


def limits(item: Evaluation) -> str:
    """The 80 % limits of the energy a pixel, in uJ."""
    low, high = item.energy_limits_uj_per_pixel
    return f"{low:.3g} to {high:.3g}"


def megahertz(item: Evaluation) -> str:
    """The clock, marked unless it is the predicted one."""
    text = _megahertz(item)
    return text if item.clock.basis == "predicted" else f"{text} {item.clock.basis}"


def _megahertz(item: Evaluation) -> str:
    return f"{item.clock_hz / 1e6:.4g}"


def summary(items: Sequence[Evaluation], names: Sequence[str] = ()) -> Table:
    """Latency, period, energy and use of the array, one column a design."""
    table = grid("Frame (predicted)", ["", *(names or [item.overlay for item in items])])
    rows = [
        ("memory model", [item.memory_model for item in items]),
        *([("unchecked", [", ".join(item.unchecked) or "-" for item in items])]
          if any(item.unchecked for item in items) else []),
        ("clock, MHz", [f"{_megahertz(item)} {item.clock.basis}" for item in items]),
        ("fabric reaches, MHz", [item.clock.interval for item in items]),
        ("latency, ms", [f"{item.latency_ms:.2f}" for item in items]),
        ("period, ms", [f"{item.period_ms:.2f}" if item.period_cycles else "-"
                        for item in items]),
        *([("sampler step, ms", [f"{item.step_cycles / item.clock_hz * 1e3:.2f}"
                                 if item.step_cycles else "-" for item in items])]
          if any(item.step_cycles for item in items) else []),
        ("frames a second", [f"{item.fps:.3f}" for item in items]),
        ("lower bound, ms", [f"{item.lower_bound_cycles / item.clock_hz * 1e3:.2f}"
                             if item.lower_bound_cycles else "-" for item in items]),
        ("MACs, 10^9", [f"{item.macs / 1e9:.3f}" for item in items]),
        ("use of the array, %", [f"{100 * item.utilization:.1f}" for item in items]),
        ("read, MB", [f"{item.bytes_read / 1e6:.1f}" for item in items]),
        ("written, MB", [f"{item.bytes_written / 1e6:.1f}" for item in items]),
        ("energy, mJ a frame", [f"{item.energy.total_j * 1e3:.1f}" for item in items]),
        ("energy, uJ a pixel", [f"{item.energy_uj_per_pixel:.2f}" for item in items]),
        ("  80 % limits", [limits(item) for item in items]),
    ]
    for label, values in rows:
        table.add_row(label, *values)
    return table


def energy(item: Evaluation) -> Table:
    """Where the energy of one frame by itself goes."""
    table = grid(f"Energy of one frame by itself (predicted, {item.overlay})",
                 ("part", "mJ", "uJ a pixel", "%"))
    total = item.energy.total_j
    for name, value in item.energy.parts.items():
        table.add_row(name, f"{value * 1e3:.3f}", f"{value / item.pixels * MICROJOULES:.3f}",
                      f"{100 * value / total:.1f}")
    table.add_section()
    table.add_row("whole", f"{total * 1e3:.3f}", f"{item.energy_uj_per_pixel:.3f}", "100.0")
    table.add_row("80 % limits", f"{item.energy.low * 1e3:.0f} to {item.energy.high * 1e3:.0f}",
                  limits(item), "")
    return table


def sites_basis(item: Evaluation) -> str:
    """Where the sites of a design come from; what is estimated counts what stands around it."""
    whole = ", with the block design" if item.sites_basis == "estimated" else ""
    return f"{item.sites_basis}{whole}"


def resources(item: Evaluation) -> Table:
    """Use of the fabric; estimated: the interconnect around the accelerator included."""
    table = grid(f"Fabric ({sites_basis(item)}, {item.overlay} on {item.board_label})",
                 ("resource", "used", "on the board", "%"))
    for entry in item.resources:
        table.add_row(entry.name, f"{entry.used:g}", str(entry.available),
                      f"{100 * entry.share:.1f}{' *' if entry.share > TIGHT else ''}")
    if any(entry.share > TIGHT for entry in item.resources):
        table.caption = (f"* above {100 * TIGHT:.0f} %: hard to place and route; the field "
                         "headroom of a design asks for room")
    return table


def units(item: Evaluation) -> Table:
    """Busy, stalled by cause and idle share of every unit over the whole run."""
    causes = sorted({cause for unit in item.units for cause in unit.stalls})
    table = grid(f"Units, % of the run: busy, stalled by cause, idle (predicted, {item.overlay})",
                 ("unit", "busy", *causes, "idle"))
    for unit in item.units:
        total = max(1, unit.total_cycles)
        values = [unit.busy_cycles, *(unit.stalls.get(cause, 0) for cause in causes),
                  unit.idle_cycles]
        table.add_row(unit.name, *(f"{100 * value / total:.1f}" if value else "-"
                                   for value in values))
    return table


def layers(item: Evaluation, top: int | None = None) -> Table:
    """One row a layer; `top` keeps the longest ones only, in execution order.

    `+ add` and the like name what the layer absorbed.
    """
    chosen: Sequence[LayerReport] = item.layers
    title = "Layers (predicted)"
    if top is not None and top < len(chosen):
        longest = sorted(chosen, key=lambda layer: -layer.cycles)[:top]
        chosen = [layer for layer in item.layers if layer in longest]
        title = f"The {top} longest of {len(item.layers)} layers (predicted)"
    table = grid(f"{title}, {item.overlay}",
                 ("layer", "ms", "%", "use, %", "MB", "MAC/B", "mJ", "bound by"), ("bound by",))
    for layer in chosen:
        absorbed = "".join(f" +{name.rpartition('.')[2]}" for name in layer.absorbed)
        table.add_row(
            layer.name + absorbed, f"{layer.cycles / item.clock_hz * 1e3:.1f}",
            f"{100 * layer.cycles / item.latency_cycles:.1f}",
            f"{100 * layer.utilization:.1f}" if layer.macs else "-",
            f"{layer.bytes_moved / 1e6:.1f}", f"{layer.intensity:.0f}" if layer.macs else "-",
            f"{layer.energy_j * 1e3:.1f}", layer.bound)
    return table


def layers_csv(item: Evaluation) -> str:
    """All layers as CSV: cycles, milliseconds, MACs, bytes, millijoules, cycles by state.

    States are those of the layer's engine: busy, stalls by cause; see `UnitTime`.
    """
    engines = {layer.name: next((unit for unit in layer.units if unit.name == layer.engine), None)
               for layer in item.layers}
    causes = sorted({cause for unit in engines.values() if unit for cause in unit.stalls})
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["layer", "operator", "engine", "absorbed", "start_cycles", "cycles", "ms",
                   "macs", "bytes_read", "bytes_written", "utilization", "mj", "bound",
                   "busy_cycles", *(f"stall_{cause}_cycles" for cause in causes), "board"])
    for layer in item.layers:
        unit = engines[layer.name]
        rows.writerow([layer.name, layer.operator, layer.engine, " ".join(layer.absorbed),
                       layer.start_cycles, layer.cycles, layer.cycles / item.clock_hz * 1e3,
                       layer.macs, layer.bytes_read, layer.bytes_written, layer.utilization,
                       layer.energy_j * 1e3, layer.bound, unit.busy_cycles if unit else "",
                       *(unit.stalls.get(cause, 0) if unit else "" for cause in causes),
                       item.board_label])
    return out.getvalue()
