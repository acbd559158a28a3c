"""What a file or a page says of its making: the program with its version, the command line.

It writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version

#: The package index has a stranger's `cosim`.
DISTRIBUTION = "cosim-codesign"
_COMMAND: ContextVar[str] = ContextVar("command", default="")


def program() -> str:
    """The program with its version, as pages and files name it."""
    return f"{DISTRIBUTION} {version(DISTRIBUTION)}"


@contextmanager
def running(command: str) -> Iterator[None]:
    """While this command line runs, `invocation` names it."""
    token = _COMMAND.set(command)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def invocation() -> str:
    """The command line that runs now; "" outside of one."""
    return _COMMAND.get()
