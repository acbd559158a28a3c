"""How many token channels an overlay has, and how many of them end at each unit.

It wires nothing: `cosim.lowering.wiring` does, and a test says that the counts agree.
"""

from __future__ import annotations

from arch_models.overlay import PARAMETER_SETS, Engine, Fetch, Overlay, Role

#: Engines that the weight master feeds.
FED = frozenset({Engine.CONVOLUTION, *PARAMETER_SETS})


def engine_channels(overlay: Overlay, engine: Engine) -> int:
    """Channels that end at an engine: tiles in, room for results, parameters, skip tiles."""
    return (len(overlay.masters_of(Role.INPUT)) + len(overlay.masters_of(Role.OUTPUT))
            + (engine in FED) + (engine is Engine.CONVOLUTION) + _fetched(overlay))


def master_channels(overlay: Overlay, role: Role) -> int:
    """Channels that end at a master: of the input masters, at the first one."""
    engines, outputs = len(overlay.engines), len(overlay.masters_of(Role.OUTPUT))
    if role is Role.INPUT:
        skips = outputs if Engine.CONVOLUTION in overlay.engines else 0
        return engines + outputs + 1 + skips + _fetched(overlay)
    if role is Role.WEIGHT:
        return len(overlay.engines & FED) + outputs + 1 + _fetched(overlay)
    return engines + _fetched(overlay) if role is Role.OUTPUT else 1


def channels(overlay: Overlay) -> int:
    """All channels, those of the host too."""
    inputs, outputs = overlay.masters_of(Role.INPUT), overlay.masters_of(Role.OUTPUT)
    skips = len(outputs) if Engine.CONVOLUTION in overlay.engines else 0
    found = sum(engine_channels(overlay, engine) for engine in overlay.engines)
    found += len(inputs) * (master_channels(overlay, Role.INPUT) - skips) + skips
    found += master_channels(overlay, Role.WEIGHT)
    found += len(outputs) * master_channels(overlay, Role.OUTPUT)
    return found + 2 * len(outputs) + 2 * _fetched(overlay)  # to the host; of and to the fetch


def _fetched(overlay: Overlay) -> int:
    return int(overlay.fetch is Fetch.DRAM)
