"""Searches over several machines: real servers and workers on this one, some of them killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from inspect import signature
from pathlib import Path

import pytest
from rich.console import Console
from test_studies_shared_study import ALONE, ROOT, finish, finished, start, wait_for

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.certify.bounds import Question
from studies.certify.certificate import certificate
from studies.certify.goals import Aim
from studies.certify.session import Effort, searched
from studies.commands.explore import reach, serve_studies
from studies.plain.errors import UserError
from studies.search.dask_workers import connected
from studies.search.exploration import Means, Store, explore
from studies.search.outcomes import Settings
from studies.search.search import search
from studies.search.storage import open_storage, serve
from tests.support import toy_search
from tests.support.small_proof import BASE, BOARD, SMALL, claimed, narrow_space, proved
from tests.support.toy_search import SETTINGS, SPACE, open_toy, plain
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from workloads.library import load

PATHS = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "studies")))


@contextlib.contextmanager
def running(*command: str, **more) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": PATHS},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def dask(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler and two worker processes on loopback."""
    file = folder / "scheduler.json"
    module = (sys.executable, "-m")
    worker = (*module, "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads",
              "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--local-directory",
              str(folder))
    with running(*module, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                 "--no-dashboard", "--scheduler-file", str(file)):
        wait_until(lambda: file.exists() and file.read_text().strip().endswith("}"))
        address = json.loads(file.read_text())["address"]
        with running(*worker) as first, running(*worker) as second:
            yield address, [first, second]


def marked_outcome(folder: str, choice):
    """The toy's outcome, a little slow; leaves a mark of the process that made it."""
    time.sleep(0.05)
    Path(folder, f"{os.getpid()}.worker").touch()
    return toy_search.outcome(choice)


def test_a_dask_worker_that_is_killed_loses_nothing(tmp_path):
    with dask(tmp_path) as (address, processes), connected(address) as workers:
        workers.client.wait_for_workers(2, timeout=PATIENCE_SECONDS)

        def kill_one(record, done):
            if record.number == 10:
                processes[0].send_signal(signal.SIGKILL)

        answer = partial(workers.map, marked_outcome, str(tmp_path))
        study = open_toy(str(tmp_path / "study.log"))
        found = search(study.remembering(answer, 2), SPACE, SETTINGS, progress=kill_one)
        assert processes[0].wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert found.records == ALONE.records and found.front == ALONE.front
    marks = {path.stem for path in tmp_path.glob("*.worker")}
    assert marks == {str(process.pid) for process in processes}


@pytest.mark.parametrize("aims", [(Aim.LATENCY,), (Aim.LATENCY, Aim.ENERGY)])
def test_a_proof_is_the_same_with_and_without_dask(tmp_path, aims):
    branch, state = proved(aims=aims)
    with dask(tmp_path) as (address, _):
        spread, end = proved(aims=aims, scheduler=address)
    assert certificate(spread.bounds, claimed(spread, end)) == certificate(
        branch.bounds, claimed(branch, state))


def test_a_proof_begins_alike_with_and_without_dask(tmp_path):
    space = narrow_space(write_outstanding=(2, 8), input_banks=(1,), tm=(16,), layout=("dense",))
    asked, quiet = Question(SMALL, BOARD, BASE, space, memory="ddr3"), Console(quiet=True)
    alone = searched(asked, Effort(), quiet)
    with dask(tmp_path) as (address, _):
        assert searched(asked, Effort(scheduler=address), quiet) == alone


@pytest.mark.long
def test_whole_designs_are_explored_alike_with_and_without_dask(tmp_path):
    graph, board, base = load("agc-w16"), load_board("pynq-z1"), default_overlay()
    settings = Settings(designs=4, batch=4, rounds=0)
    alone = explore(graph, board, base, settings, means=Means(depth=1))
    store = Store(str(tmp_path / "study.log"), "agc")
    with dask(tmp_path) as (address, _):
        spread = explore(graph, board, base, settings,
                         means=Means(depth=1, scheduler=address, store=store))
    assert spread == alone
    assert explore(graph, board, base, settings,
                   means=Means(depth=1, store=store)) == alone


def test_a_scheduler_that_is_not_there_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr("studies.search.dask_workers.CONNECT_SECONDS", 0.3)
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x"):
        with pytest.raises(UserError, match="does not answer") as caught, connected(address):
            pass
        assert "\n" not in str(caught.value) and address in str(caught.value)


def two_workers_one_killed(storage: str) -> None:
    victim, other = start(storage, 30), start(storage, 30)
    wait_for(storage, 6)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert finish(other)["records"] == plain(ALONE)
    assert len(set(finished(storage))) == len(finished(storage)) == len(ALONE.records)


def test_two_workers_behind_a_grpc_server_one_killed(tmp_path):
    port = free_port()
    with running(sys.executable, "-m", "studies.cli", "serve", f"sqlite:///{tmp_path}/study.db",
                 "--port", str(port)):
        wait_until(partial(listens, port))
        two_workers_one_killed(f"grpc://127.0.0.1:{port}")


@pytest.mark.parametrize("storage", ["study.log", "grpc://127.0.0.1:1"])
def test_only_a_database_is_served(storage):
    with pytest.raises(UserError, match="needs a +database"):
        serve(storage, "127.0.0.1", 1)


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(f"sqlite:///{tmp_path}/study.db", "127.0.0.1", port)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("initdb") is None, reason="PostgreSQL is not installed")
def test_two_workers_on_postgresql_one_killed(tmp_path):
    # The server refuses to run as root; every Unix has the user nobody.
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    folder = Path("/tmp") / f"cosim-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, "nobody")
    port = free_port()
    url = f"postgresql://cosim@127.0.0.1:{port}/postgres"
    try:
        subprocess.run(["initdb", "-D", folder / "data", "-U", "cosim", "-A", "trust"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
        with running("postgres", "-D", str(folder / "data"), "-p", str(port), "-k", str(folder),
                     cwd="/", **user):
            wait_until(lambda: _answers(url))
            two_workers_one_killed(url)
    finally:
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        open_storage(url)
    except UserError:
        return False
    return True


def test_a_server_that_goes_away_is_named_in_plain_words(tmp_path):
    port = free_port()
    with running(sys.executable, "-m", "studies.cli", "serve", f"sqlite:///{tmp_path}/study.db",
                 "--port", str(port)):
        wait_until(partial(listens, port))
        study = open_toy(f"grpc://127.0.0.1:{port}")
    with pytest.raises(UserError, match="the server does not answer") as caught:
        study.remembering(toy_search.evaluate)([{"a": 1, "b": 1, "c": 1}])
    assert "_InactiveRpcError" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_says_who_can_reach_it():
    assert "nobody else" in reach("127.0.0.1")
    assert "any of this machine's addresses" in reach("0.0.0.0")
    assert "10.0.0.7" in reach("10.0.0.7")
    default = signature(serve_studies).parameters["host"].default
    assert default == "127.0.0.1"


def test_the_document_says_that_dask_runs_the_code_of_whoever_reaches_it():
    page = (ROOT / "docs" / "scale.md").read_text()
    assert "runs code of his own" in page.partition("dask scheduler")[2]
