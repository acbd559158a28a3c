"""The command line as a test calls it: in this process, with its exit code as a value."""

from __future__ import annotations

from studies.cli import main


def cosim(*words: object) -> int:
    """Run `cosim WORDS` and return its exit code; a traceback would be an exception here."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
