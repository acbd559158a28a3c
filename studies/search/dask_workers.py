"""Spreads calls over the workers of a Dask scheduler; a worker that dies loses nothing.

It does not know what is called. Needs the extra `scale`, on the workers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from studies.plain.errors import UserError, missing_extra

Context = TypeVar("Context")
Item = TypeVar("Item")
Result = TypeVar("Result")
#: How long a scheduler may take to answer, and to have a worker.
CONNECT_SECONDS = 10.0
WORKER_SECONDS = 30.0


@dataclass(frozen=True)
class Workers:
    """Connected workers. `width`: calls that they make at the same time."""

    client: Any
    address: str
    width: int

    def map(self, function: Callable[[Context, Item], Result], context: Context,
            items: Sequence[Item]) -> Iterator[Result]:
        """`function(context, item)` of each item, in order.

        The context is sent as a task of its own: workers pass it on, and the scheduler makes it
        again when the workers that held it are gone. So are calls that a dead worker had.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError

        shared = self.client.submit(_same, context)
        calls = [self.client.submit(function, shared, item, pure=False) for item in items]
        try:
            for call in calls:
                yield call.result()
        except KilledWorker as error:
            raise UserError(f"scheduler {self.address!r}: workers died again and again on one "
                            "design; give them more memory.") from error
        except (CommClosedError, FutureCancelledError, OSError) as error:
            raise UserError(f"scheduler {self.address!r} is gone; what was stored is kept.") \
                from error
        except ModuleNotFoundError as error:
            raise UserError(f"scheduler {self.address!r}: its workers have no module "
                            f"{error.name!r}; install the same program there.") from error


def _same(context: Context) -> Context:
    return context


@contextmanager
def connected(address: str) -> Iterator[Workers]:
    """Workers of the scheduler at an address such as `tcp://127.0.0.1:8786`.

    Raises `UserError` in one line when there is no scheduler, or none of its workers is there.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise (missing_extra("--scheduler", error.name or "") or error) from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # a time-out is an OSError
        raise UserError(f"scheduler {address!r} does not answer; start one with `dask scheduler`, "
                        "and name it as tcp://HOST:8786.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise UserError(f"scheduler {address!r} has no workers; start some with "
                            f"`dask worker {address}`.") from error
        yield Workers(client, address, sum(client.nthreads().values()))
