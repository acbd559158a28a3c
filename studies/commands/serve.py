"""`cosim serve`: share the studies of a database with other machines.

It evaluates nothing; `cosim explore --storage grpc://HOST:PORT` does.
"""

from __future__ import annotations

from typing import Annotated

import typer

from studies.plain.terminal import terminal
from studies.search.storage import serve, shown

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def reach(host: str) -> str:
    """Who can reach a server that listens at this address, at the start of a sentence."""
    if host in LOOPBACK:
        return "Every user of this machine, and nobody else,"
    if host in ("0.0.0.0", "::", "[::]"):
        return "Whoever can send to any of this machine's addresses"
    return f"Whoever can send to {host}"


def serve_studies(
    storage: Annotated[str, typer.Argument(
        help="The database: sqlite:///FILE or postgresql://...")],
    host: Annotated[str, typer.Option(
        help="Address to listen on; 0.0.0.0 is every one. There is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 13000,
) -> None:
    """Serve studies to other machines (gRPC) until Ctrl-C.

    Needs the extra scale: .venv/bin/python -m pip install -e '.[scale]' in the project's folder.
    """
    terminal().print(f"serving {shown(storage)} as grpc://{host}:{port}; Ctrl-C ends. "
                    f"{reach(host)} can read and change every study: there is no password.",
                    highlight=False, soft_wrap=True)
    serve(storage, host, port)
