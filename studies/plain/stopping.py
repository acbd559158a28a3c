"""Turns the signals that ask a program to end into one exception, and knows its exit code.

It ends nothing: who catches the exception writes what there is and leaves with the code.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

#: Ctrl-C, `kill`, and the terminal that closes.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: After so long an exception that nobody has taken is raised again.
AGAIN_SECONDS = 0.2
#: Python that compiled code runs to build what it returns: numba's unpickling of a class, and the
#: constructor of a named tuple. It takes what they return unchecked, and an exception in them would
#: end the process (numba 0.68, `box_namedtuple`). (End of a file's name, function or any.)
UNCHECKED = ((str(Path("numba", "core", "serialize.py")), ""), ("<string>", "__new__"))


class Stopped(BaseException):
    """A signal asked the program to end. Not an `Exception`: nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def exit_code(number: int) -> int:
    """What a shell expects of a program that a signal ended: 130 for Ctrl-C, 143 for `kill`."""
    return 128 + number


class Stopping:
    """While it is entered, such a signal raises `Stopped` in the main thread.

    It is raised again and again until someone calls `taken` or it has left the `with`: Python
    drops an exception in a callback of C and where it destroys an object, and some libraries
    catch whatever comes. Where compiled code builds what it returns, its caller raises instead.
    Entered outside the main thread it does nothing, since signals do not come there.
    """

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, Any] = {}
        self._hook: Callable[[Any], object] = sys.unraisablehook

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
            self._before = {number: signal.signal(number, self._stop)
                            for number in (*SIGNALS, signal.SIGALRM)}
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            taken()
            sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            self._number = number
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        caller = _outside(frame)
        if caller is frame:
            raise Stopped(self._number)
        if caller is not None:
            # Not a timer: in a loop of compiled calls it would go off inside them each time.
            caller.f_trace, caller.f_trace_opcodes = self._raise, True
            sys.settrace(_no_trace)

    def _raise(self, frame: FrameType, event: str, argument: object) -> None:
        """Traces one frame: whatever it does next ends in the exception, and so does the trace."""
        raise Stopped(self._number)

    def _dropped(self, what: Any) -> None:
        if what.exc_type is not Stopped:
            self._hook(what)


def _outside(frame: FrameType | None) -> FrameType | None:
    """The innermost caller that compiled code does not wait for."""
    outside = frame
    while frame is not None:
        code = frame.f_code
        frame = frame.f_back
        if any(code.co_filename.endswith(file) and name in ("", code.co_name)
               for file, name in UNCHECKED):
            outside = frame
    return outside


def _no_trace(frame: FrameType, event: str, argument: object) -> None:
    """Follows no frame that is entered."""


def taken() -> None:
    """Whoever catches `Stopped` and goes on says so; it is not raised again then."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def deaf() -> None:
    """For a forked worker: Ctrl-C is its parent's matter, and `kill` ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
