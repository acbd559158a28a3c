"""Turns the signals that ask a program to end into one exception, and knows its exit code.

It ends nothing: who catches the exception writes what there is and leaves with the code.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

#: Ctrl-C, `kill`, and the terminal that closes.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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

    Python drops an exception that is raised while it destroys an object; `check` raises it then.
    Entered outside the main thread it does nothing, since signals do not come there.
    """

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self._number:
            raise Stopped(self._number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        raise Stopped(number)


def deaf() -> None:
    """For a forked worker: Ctrl-C is its parent's matter, and `kill` ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
