"""What a file or a page says of its making: the program with its version, the command line.

It writes nothing.
"""

from __future__ import annotations

from importlib.metadata import version

import click

#: The package index has a stranger's `cosim`.
DISTRIBUTION = "cosim-codesign"


def program() -> str:
    """The program with its version, as pages and files name it."""
    return f"{DISTRIBUTION} {version(DISTRIBUTION)}"


def invocation() -> str:
    """The command line that runs now; "" outside of one. The command line hands it on as `obj`."""
    context = click.get_current_context(silent=True)
    return str(context.find_root().obj or "") if context else ""
