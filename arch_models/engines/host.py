"""The ARM as an engine: what an operator left in software costs, in nanoseconds.

It is no fabric engine and has no tiles; cache maintenance around an operator is included here.
"""

from __future__ import annotations

from arch_models.board import Board
from arch_models.fields import FieldError, nearest
from arch_models.overlay import Control, Driver, Overlay, Wait

FREE = ("concat", "reshape")
#: Operators that cost as much an element as another one.
_SAME_AS = {"row": "requantize", "gather": "transpose"}


def software_ns(board: Board, operator: str, elements: int, macs: int = 0,
                taps: int = 1) -> float:
    """Time of one layer on one core. `macs` for products, `taps` for windows over `elements`.

    Raises `FieldError` for an operator that the board has no cost for.
    """
    costs = board.host.software
    if operator in FREE:
        return 0.0
    if operator in ("convolution", "matmul"):
        each = costs.convolution_mac_ns if operator == "convolution" else costs.matmul_mac_ns
        return macs * each
    if operator == "downsample":
        return elements * taps * costs.convolution_mac_ns
    name = f"{_SAME_AS.get(operator, operator)}_ns"
    if not hasattr(costs, name):
        known = [item.removesuffix("_ns") for item in type(costs).__dataclass_fields__]
        raise FieldError(f"host.software: no cost for {operator!r}; {nearest(operator, known)}")
    return elements * float(getattr(costs, name))


def cache_ns(board: Board, control: Control, transfer_bytes: int) -> float:
    """Flush or invalidate of one tensor; nothing when maintenance is off or it is empty."""
    if not control.cache_maintenance or transfer_bytes == 0:
        return 0.0
    return max(board.host.cache_floor_ns, transfer_bytes * board.host.cache_ns_per_byte)


def start_ns(board: Board, overlay: Overlay) -> float:
    """Writing the registers and starting the units once; a host that slept was woken first.

    A described driver may take more (`loops.call_us`).
    """
    host, control = board.host, overlay.control
    sleeps, more = control.wait is Wait.SLEEP, overlay.loops.call_us * 1e3
    if control.driver is Driver.PYTHON:
        return (host.start_python_ns + control.register_writes * host.register_write_python_ns
                + sleeps * host.wake_python_ns + more)
    return (host.start_c_ns + control.register_writes * host.register_write_c_ns
            + sleeps * host.wake_c_ns + more)
