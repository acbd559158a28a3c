"""Do kills lose nothing, do two processes divide the work, does a resumed search end the same?"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from studies.plain.errors import UserError
from studies.search.outcomes import design_key
from studies.search.search import search
from studies.search.storage import CrashSafeJournal, open_storage, plainly, shown
from tests.support.toy_search import IDENTITY, SETTINGS, SPACE, evaluate, open_toy, plain
from tests.support.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
ALONE = search(evaluate, SPACE, SETTINGS)
KINDS = ("journal", "sqlite")
#: Above the largest process number of Linux.
NO_PROCESS = 2**22 + 1


def start(storage: str, milliseconds: float, sampler: str = "nsga2") -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.support.toy_search", storage,
                             str(milliseconds), sampler], stdout=subprocess.PIPE, text=True,
                            cwd=ROOT)


def finish(process: subprocess.Popen) -> dict:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    return json.loads(output)


def place(kind: str, folder: Path) -> str:
    return {"journal": str(folder / "study.log"), "sqlite": f"sqlite:///{folder}/study.db"}[kind]


def trials(storage: str) -> list[optuna.trial.FrozenTrial]:
    study = open_toy(storage)
    return study.storage.get_all_trials(study.study_id)


def finished(storage: str) -> list[str]:
    return [trial.user_attrs["design"] for trial in trials(storage)
            if trial.state.is_finished() and trial.state is not optuna.trial.TrialState.FAIL]


def wait_for(storage: str, count: int) -> None:
    """Wait until so many designs are stored, or all: on a busy machine a search may outrun us."""
    wait_until(lambda: len(finished(storage)) >= min(count, len(ALONE.records)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_search_is_the_search_and_going_on_evaluates_nothing(tmp_path, kind):
    storage = place(kind, tmp_path)
    first = search(open_toy(storage).remembering(evaluate), SPACE, SETTINGS)

    def never(choices):
        assert not choices
        return []

    again = search(open_toy(storage).remembering(never), SPACE, SETTINGS)
    assert first.records == again.records == ALONE.records
    assert first.front == again.front == ALONE.front


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_is_killed_again_and_again_loses_only_what_was_in_flight(tmp_path, kind):
    storage = place(kind, tmp_path)
    generator = random.Random(3)
    kept: list[str] = []
    for _ in range(3):
        process = start(storage, 50)
        wait_for(storage, len(kept) + generator.randrange(1, 12))
        time.sleep(generator.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        now = finished(storage)
        assert now[:len(kept)] == kept
        kept = now
    last = finish(start(storage, 0))
    assert last["records"] == plain(ALONE) and last["front"] == list(ALONE.front)
    assert last["evaluated"] == len(ALONE.records) - len(kept)
    assert sorted(finished(storage)) == sorted({design_key(record.choice)
                                                for record in ALONE.records})


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_divide_one_study_and_end_alike(tmp_path, kind):
    storage = place(kind, tmp_path)
    pair = [start(storage, 15), start(storage, 15)]
    ends = [finish(process) for process in pair]
    assert ends[0]["records"] == ends[1]["records"] == plain(ALONE)
    assert sum(end["evaluated"] for end in ends) == len(ALONE.records)
    assert len(set(finished(storage))) == len(finished(storage)) == len(ALONE.records)


def test_a_process_carries_on_when_the_other_one_is_killed(tmp_path):
    storage = place("journal", tmp_path)
    victim, other = start(storage, 20), start(storage, 20)
    wait_for(storage, 8)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    assert finish(other)["records"] == plain(ALONE)


def test_a_claim_of_a_silent_machine_is_taken_over(tmp_path):
    storage = place("journal", tmp_path)
    silent = open_toy(storage)
    silent.owner = "another-machine 1"
    assert len(silent._claim({"k": {"a": 1, "b": 1, "c": 1},
                              design_key({"a": 1, "b": 1, "c": 2}): {"a": 1, "b": 1, "c": 2}})) == 2
    study = open_toy(storage)
    study.patience_s = 0.2
    [found] = study.remembering(evaluate)([{"a": 1, "b": 1, "c": 2}])
    assert found == evaluate([{"a": 1, "b": 1, "c": 2}])[0]


def test_an_error_in_an_evaluation_frees_its_claims(tmp_path):
    study = open_toy(place("journal", tmp_path))

    def broken(choices):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        study.remembering(broken)([{"a": 1, "b": 1, "c": 1}])
    assert [trial.state.name for trial in trials(study.place)] == ["FAIL"]


def test_a_line_cut_short_by_a_kill_is_forgotten(tmp_path):
    path = tmp_path / "study.log"
    gone = open_toy(str(path))
    gone.owner = f"{socket.gethostname()} {NO_PROCESS}"
    search(gone.remembering(evaluate), SPACE, SETTINGS)
    whole = path.read_bytes()
    for cut in (1, 5, len(whole) // 3):
        path.write_bytes(whole[:-cut])
        again = search(open_toy(str(path)).remembering(evaluate), SPACE, SETTINGS)
        assert again.records == ALONE.records
        assert path.read_bytes().endswith(b"\n")


def test_a_held_lock_is_waited_for_and_told_of(tmp_path, monkeypatch, capsys):
    """Its holder may be a process that was stopped and goes on: it must not end the others."""
    import fcntl
    import threading

    monkeypatch.setattr("studies.plain.journal.LOCK_SECONDS", 0.05)
    path = tmp_path / "study.log"
    journal = CrashSafeJournal(path)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=journal.append_logs, args=([{"x": 1}],))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and path.read_bytes() == b""
    writer.join(30)
    assert path.read_bytes() == b'{"x":1}\n'
    assert f"study.log has been locked for 0 s by process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.parametrize("url", [
    "postgresql://me:s3cr3t@127.0.0.1:1/none", "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/none",
    "postgresql://127.0.0.1:1/none?user=me&password=s3cr3t", "postgres://me:s3cr3t@host/none",
    "postgresql://me:s3cr3t@[/none", "postgresql://me:s3cr3t@127.0.0.1:x/none"])
def test_a_password_is_in_no_message(monkeypatch, url):
    monkeypatch.setattr("studies.search.storage.CONNECT_SECONDS", 1.0)
    with pytest.raises(UserError) as caught:
        open_storage(url)
    assert "s3cr3t" not in str(caught.value) and "***" in str(caught.value)
    assert "s3cr3t" not in shown(url)


def test_a_password_is_not_in_what_the_server_says_either():
    assert shown("postgresql://me:p%40ss@host/base") == "postgresql://me:***@host/base"
    with pytest.raises(UserError) as caught, plainly("postgresql://me:p%40ss@host/base"):
        raise OSError("wrong password p@ss for me")
    assert "p@ss" not in str(caught.value) and "p%40ss" not in str(caught.value)


def test_a_locked_database_is_reported_in_one_line(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.setattr("studies.search.storage.LOCK_SECONDS", 0.05)
    storage = place("sqlite", tmp_path)
    study = open_toy(storage)
    with sqlite3.connect(tmp_path / "study.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked") as caught:
            study.remembering(evaluate)([{"a": 1, "b": 1, "c": 1}])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "field"), [
    ({"workload": "other"}, "workload: 'toy'"), ({"seed": 8}, "seed: 7, this command has 8"),
    ({"space": {"a": [1, 4]}}, r"space\.a"), ({"space": {"a": [1, 8], "z": [1]}}, r"space\.z")])
def test_a_study_of_another_search_is_refused_by_field(tmp_path, change, field):
    storage = place("journal", tmp_path)
    open_toy(storage)
    with pytest.raises(UserError, match=f"another {field}"):
        open_toy(storage, {**IDENTITY, **change})
    open_toy(storage, {**IDENTITY, **change}, name="other")


@pytest.mark.parametrize(("url", "message"), [
    ("sqlit:///x.db", "Did you mean 'sqlite'"),
    ("grpc://nowhere", "grpc://HOST:PORT"),
    ("grpc://127.0.0.1:1", "no server answers"),
    ("postgresql://127.0.0.1:1/none", "refused"),
    ("sqlite:////no/such/folder/x.db", "unable to open"),
    ("{folder}", "is a folder"),
    ("{folder}/picture.png", "no study journal"),
    ("sqlite:///{folder}/picture.png", "not a database"),
    ("{folder}/old.db", "give sqlite:///"),
])
def test_a_wrong_storage_is_refused_in_one_line(tmp_path, monkeypatch, url, message):
    monkeypatch.setattr("studies.search.storage.CONNECT_SECONDS", 1.0)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n" + os.urandom(2000))
    open_storage(f"sqlite:///{tmp_path}/old.db")
    with pytest.raises(UserError, match=message) as caught:
        open_storage(url.format(folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_shows_named_figures_to_a_dashboard(tmp_path):
    from optuna_dashboard import wsgi

    study = open_toy(place("journal", tmp_path))
    search(study.remembering(evaluate), SPACE, SETTINGS)
    seen = {}

    def get(path):
        environment = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
        setup_testing_defaults(environment)
        body = b"".join(wsgi(study.storage)(
            environment, lambda status, *_: seen.update(status=status)))
        assert seen["status"].startswith("200")
        return json.loads(body)

    [summary] = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == "toy"
    detail = get(f"/api/studies/{study.study_id}")
    assert detail["objective_names"] == [item.label for item in SETTINGS.objectives]
    whole = next(trial for trial in detail["trials"] if trial["state"] == "Complete")
    figures = {item["key"]: item["value"] for item in whole["user_attrs"]}
    assert float(figures["latency_ms"]) == whole["values"][0]
    assert any("too many DSPs" in str(trial["user_attrs"]) for trial in detail["trials"]
               if trial["state"] == "Pruned")
