"""`cosim serve`: share the studies of a database with other machines.

It evaluates nothing; `cosim explore --storage grpc://HOST:PORT` does.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from studies.search.storage import serve


def serve_studies(
    storage: Annotated[str, typer.Argument(
        help="The database: sqlite:///FILE or postgresql://...")],
    host: Annotated[str, typer.Option(
        help="Address to listen on; 0.0.0.0 is every one. There is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 13000,
) -> None:
    """Serve studies to other machines (gRPC) until Ctrl-C.

    Needs the extra scale: pip install 'cosim[scale]'.
    """
    Console().print(f"serving {storage} as grpc://{host}:{port}; Ctrl-C ends", highlight=False)
    serve(storage, host, port)
