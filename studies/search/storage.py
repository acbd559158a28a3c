"""Opens the storage of a study: a journal file, SQLite, PostgreSQL, or a server of studies.

It does not know what a study holds; see `shared_study`. Every failure is one `UserError`.
"""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from arch_models.fields import shortened
from studies.plain.errors import UserError, missing_extra, nearest
from studies.plain.files import check_writable
from studies.plain.journal import append_lines

#: A lock held longer than this is told of: by a journal, which goes on waiting, in a line
#: (`plain.journal`); by SQLite, which does not, in its error.
LOCK_SECONDS = 60.0
#: How long a server of studies may take to answer.
CONNECT_SECONDS = 10.0
SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg", "grpc")


class CrashSafeJournal(JournalFileBackend):
    """A journal that a killed process can neither lock nor corrupt; see `plain.journal`.

    Optuna's own lock is a file that outlives its owner for half a minute.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add whole lines, alone in the file while doing so."""
        append_lines(self._path, (json.dumps(log, separators=(",", ":")) for log in logs))


def shown(place: str) -> str:
    """A storage's name as it may be printed: a password in it becomes ***."""
    for secret in _secrets(place):
        place = place.replace(secret, "***")
    return place


def _secrets(place: str) -> list[str]:
    """The passwords in a URL, longest first: before the @, and in the query."""
    scheme, marks, rest = place.partition("://")
    if not marks or not scheme.startswith("postgres"):
        return []
    authority, _, query = rest.partition("?")
    user, at, _ = authority.rpartition("@")
    found = [user.partition(":")[2]] if at else []
    found += [value for name, _, value in (item.partition("=") for item in query.split("&"))
              if name in ("password", "sslpassword", "passfile")]
    found += [unquote(value) for value in found]
    return sorted({value for value in found if value}, key=len, reverse=True)


@contextmanager
def plainly(place: str) -> Iterator[None]:
    """Turn whatever a storage raises into one line that names the place, without its password."""
    try:
        with _plainly(shown(place)):
            yield
    except UserError as error:
        text = str(error)
        for secret in _secrets(place):
            text = text.replace(secret, "***")
        if text != str(error):
            raise UserError(text) from None
        raise


@contextmanager
def _plainly(place: str) -> Iterator[None]:
    try:
        yield
    except (UserError, optuna.exceptions.UpdateFinishedTrialError,
            optuna.exceptions.DuplicatedStudyError):
        raise
    except ModuleNotFoundError as error:
        raise (missing_extra(f"storage {place!r}", error.name or "") or error) from error
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, OSError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.OptunaError) else error
        raise UserError(f"storage {place!r}: {_first_line(cause or error)}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] == "grpc":
            raise UserError(f"storage {place!r}: the server does not answer{_said_by_grpc(error)}; "
                            "is `cosim serve` still running there?") from error
        if isinstance(error, ValueError | LookupError) or _raised_in_optuna(error):
            raise UserError(f"storage {place!r} is no study file, or is damaged: "
                            f"{_first_line(error)}") from error
        raise


def _raised_in_optuna(error: Exception) -> bool:
    """Optuna takes what it reads for what it wrote: a damaged line may break anything there."""
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "optuna":
            return True
        trace = trace.tb_next
    return False


def open_storage(place: str) -> BaseStorage:
    """A storage from the name of a file or a URL; `UserError` in one line if it cannot be.

    `FILE`: a journal, made if missing. `sqlite:///FILE`, `postgresql://...`: a database.
    `grpc://HOST:PORT`: a server started with `cosim serve`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scheme = place.partition("://")[0] if "://" in place else ""
    if scheme and scheme not in SCHEMES:
        close = nearest(scheme, SCHEMES)
        raise UserError(f"storage {shown(place)!r}: the kind {scheme!r} is not known."
                        f"{f' Did you mean {close!r}?' if close else ''} Give a file, or a URL of "
                        f"{', '.join(SCHEMES)}.")
    with plainly(place), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if not scheme:
            return JournalStorage(_journal(Path(place)))
        if scheme == "grpc":
            return _proxy(place)
        return _database(place)


def serve(place: str, host: str, port: int) -> None:
    """Serve the studies of a database to other machines until stopped, as grpc://HOST:PORT."""
    if "://" not in place or place.startswith("grpc"):
        raise UserError(f"storage {shown(place)!r} cannot be served: the server needs a "
                        "database, for example sqlite:///study.db.")
    storage = open_storage(place)
    with plainly(f"grpc://{host}:{port}"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            optuna.storages.run_grpc_proxy_server(storage, host=host, port=port)
        except RuntimeError as error:
            raise UserError(f"cannot listen on {host}:{port}: {_first_line(error)}") from error
        except ImportError as error:
            raise ModuleNotFoundError("grpc", name="grpc") from error


def _journal(path: Path) -> CrashSafeJournal:
    check_writable(path)
    if path.exists():
        with open(path, "r+b") as file:  # refuses what may not be written
            first = file.readline(65536)
        if first.strip() and not first.startswith(b"{"):
            hint = (f" It is an SQLite file: give sqlite:///{path}." if first.startswith(b"SQLite")
                    else "")
            raise UserError(f"storage {str(path)!r} is no study journal.{hint}")
        _check_lines(path)
    return CrashSafeJournal(path)


def _check_lines(path: Path) -> None:
    """Refuse a journal with a damaged line by its number; a last one cut short is no damage."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
                whole = isinstance(entry, dict) and type(entry.get("op_code")) is int
            except (ValueError, RecursionError):
                whole = False
            if not whole:
                raise UserError(f"storage {str(path)!r}: line {number} is damaged: "
                                f"'{shortened(line.decode(errors='replace').rstrip())}'. The lines "
                                f"before it are whole: head -n {number - 1} takes them.")


def _database(url: str) -> BaseStorage:
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    arguments: dict[str, Any] = {"connect_timeout": int(CONNECT_SECONDS)}
    if url.startswith("sqlite"):
        arguments = {"timeout": LOCK_SECONDS}
    engine: dict[str, Any] = {"connect_args": arguments, "pool_pre_ping": True}
    database = _made_together(partial(optuna.storages.RDBStorage, url, engine))
    if url.startswith("sqlite"):
        # One disk sync a commit costs more than most evaluations; with a write-ahead log a killed
        # process loses nothing without it, a power cut the last commits.
        sqlalchemy.event.listen(database.engine, "connect", _write_ahead)
        database.engine.dispose()
    return optuna.storages.get_storage(database)


def _write_ahead(connection: Any, _: Any) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:  # SQLite does not wait by itself where two processes change the mode at once
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=NORMAL")


def _made_together(build: Callable[[], RDBStorage], tries: int = 10) -> RDBStorage:
    """A new database; Optuna makes its tables unguarded, so two processes may collide there."""
    for _ in range(tries):
        try:
            return build()
        except sqlalchemy.exc.SQLAlchemyError as error:
            text = str(error).lower()
            if not any(word in text for word in ("already exists", "unique", "duplicate key")):
                raise
            time.sleep(0.1)
    return build()


def _proxy(url: str) -> BaseStorage:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"storage {url!r}: must be grpc://HOST:PORT, for example "
                        "grpc://127.0.0.1:13000.")
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise UserError(f"storage {url!r}: no server answers within {CONNECT_SECONDS:.0f} s; "
                            "start one with `cosim serve`.") from None
    return optuna.storages.GrpcStorageProxy(host=host, port=port)


def _said_by_grpc(error: Any) -> str:
    """What gRPC says of a failed call: its own text is a dump of the call's state."""
    details = error.details() if hasattr(error, "details") else None
    return f" ({str(details).splitlines()[0]})" if details else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
