"""Ctrl-C, `kill` and SIGKILL of a running search: it ends, says so, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import numba
import numpy as np
import optuna
import pytest

from studies.plain.errors import UserError
from studies.plain.stopping import AGAIN_SECONDS, Stopped, Stopping, taken
from studies.plain.workers import forked
from studies.search.storage import open_storage
from tests.support.command import cosim
from tests.support.small_proof import proof_words
from tests.support.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]


def explore(folder: Path, *more: str) -> subprocess.Popen:
    """A search that takes long."""
    return started("explore", "agc-w16", "--designs", "100000", "--out", str(folder), *more)


def started(*words: str) -> subprocess.Popen:
    """A command with two workers as the leader of its own group, once it listens to signals."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cosim", *words, "--workers", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200",
                          "PYTHONFAULTHANDLER": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    wait_until(lambda: catches(process.pid, signal.SIGTERM) or process.poll() is not None)
    return process


def catches(pid: int, number: int) -> bool:
    """Has a process a handler for a signal?"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def group(leader: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def ended(process: subprocess.Popen) -> str:
    """What a process that was told to end has printed; where it hangs if it does not."""
    try:
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        pytest.fail(f"hangs:\n{process.communicate(timeout=PATIENCE_SECONDS)[0]}")
    finally:
        left = group(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left
    assert "Traceback" not in printed and "Exception" not in printed, printed
    return printed


def judged_in(journal: Path) -> int:
    """How many designs a storage that a search keeps has an outcome of."""
    if not journal.exists():
        return 0
    storage = open_storage(str(journal))
    return sum(trial.state.is_finished() for name in optuna.get_all_study_names(storage)
               for trial in optuna.load_study(study_name=name, storage=storage).trials)


def is_whole(folder: Path) -> None:
    """Every file in the folder is one that a command writes, and can be read."""
    for path in folder.glob("*") if folder.exists() else ():
        assert path.name in ("best.toml", "best.json", "explore.json", "front.png"), path
        if path.suffix == ".json":
            json.loads(path.read_text())


def interrupt(folder: Path, moment: float, number: int) -> float:
    """Send a signal to all of the group, as a terminal does; seconds until it had ended."""
    process = explore(folder)
    time.sleep(moment)
    began = time.monotonic()
    os.killpg(process.pid, number)
    printed = ended(process)
    spent = time.monotonic() - began
    assert process.returncode == 128 + number, printed
    assert printed.count("stopped") == 1, printed
    is_whole(folder)
    return spent


@pytest.mark.parametrize(("moment", "number"), [
    (0.1, signal.SIGINT), (6.0, signal.SIGINT), (6.5, signal.SIGTERM)])
def test_a_search_that_is_told_to_end_does(tmp_path, moment, number):
    interrupt(tmp_path / "out", moment, number)


@pytest.mark.long
def test_fifty_interrupts_at_random_moments(tmp_path):
    generator = random.Random(12)
    for number in range(50):
        interrupt(tmp_path / str(number), generator.uniform(0.0, 12.0), signal.SIGINT)


def test_what_was_found_before_an_interrupt_is_written(tmp_path):
    outcomes, out = tmp_path / "study.log", tmp_path / "out"
    process = explore(out, "--storage", str(outcomes))
    wait_until(lambda: process.poll() is not None or judged_in(outcomes) > 0)
    process.send_signal(signal.SIGINT)
    printed = ended(process)
    document = json.loads((out / "explore.json").read_text())
    assert document["complete"] is False
    judged = document["designs_evaluated"] + document["designs_pruned"]
    assert f"stopped: {judged} designs" in printed
    is_whole(out)


def test_workers_of_a_killed_search_end(tmp_path):
    process = explore(tmp_path)
    wait_until(lambda: len(group(process.pid)) == 3)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    wait_until(lambda: not group(process.pid))


def test_a_study_whose_workers_are_told_to_end_too_does(tmp_path):
    """As a terminal tells all of a group."""
    proof = tmp_path / "proof"
    assert cosim(*proof_words(tmp_path), "--out", proof) == 0
    process = started("study", "regret", str(proof / "certificate.json"), "--designs", "5000",
                      "--seeds", "40", "--searches", "random")
    wait_until(lambda: len(group(process.pid)) == 3 or process.poll() is not None)
    time.sleep(1.0)  # they are at work
    os.killpg(process.pid, signal.SIGTERM)
    printed = ended(process)
    assert process.returncode == 128 + signal.SIGTERM, printed


class Last:
    """Sends a signal while it is destroyed, where Python drops what is raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_python_drops_comes_again(capsys):
    before = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    with pytest.raises(Stopped) as caught, Stopping():
        thing = Last()
        del thing
        time.sleep(PATIENCE_SECONDS)
    assert caught.value.signal == signal.SIGTERM
    assert "ignored" not in capsys.readouterr().err
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == before


def test_a_signal_that_a_library_catches_comes_again():
    with pytest.raises(Stopped), Stopping():
        with contextlib.suppress(BaseException):  # as some do
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE_SECONDS)


class Inner(NamedTuple):
    values: np.ndarray


class Outer(NamedTuple):
    first: Inner
    second: Inner


@numba.njit
def spend(rounds):
    """Some time in compiled code, which then builds what it returns by calling Python."""
    values = np.zeros(4)
    for number in range(rounds):
        values[number & 3] = 0.5 * values[number & 3] + 1.0
    return Outer(Inner(values), Inner(values))


def test_a_signal_does_not_break_what_compiled_code_returns():
    """Nearly all signals come in compiled code here, so Python sees them while it builds."""
    spend(1)
    for _ in range(5):
        with pytest.raises(Stopped), Stopping():
            Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                spend(20_000_000)
    assert sys.gettrace() is None


def test_a_signal_that_was_taken_does_not_come_again():
    raised = 0
    with Stopping():
        for _ in range(2):
            try:
                if not raised:
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(3 * AGAIN_SECONDS)
            except Stopped:
                raised += 1
                taken()
    assert raised == 1


def double(number: int) -> int:
    if number < 0:
        raise UserError("negative")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_answers_come_in_order_and_errors_are_raised():
    with forked(double, 3) as workers:
        assert list(workers.map(range(20))) == [2 * number for number in range(20)]
        assert list(workers.map([])) == []
        with pytest.raises(UserError, match="negative"):
            list(workers.map([1, -1, 2, 3, 4, 5, 6]))
        assert list(workers.map([5, 6, 7, 8])) == [10, 12, 14, 16]


def test_a_question_is_taken_when_a_worker_is_free_for_it():
    asked, answered = [], 0

    def questions():
        for number in range(9):
            asked.append(number)
            yield number

    with forked(lambda number: number, 1) as there:
        for answer in there.map(questions()):
            assert answer == answered and len(asked) == answered + 1
            answered += 1
        assert list(there.map(iter(()))) == []
    assert answered == 9


def test_a_caller_that_leaves_early_may_ask_again():
    with forked(double, 2) as workers:
        for answer in workers.map(range(50)):
            if answer == 6:
                break
        assert list(workers.map(range(10))) == [2 * number for number in range(10)]


def test_a_worker_that_is_killed_is_named():
    with forked(double, 2) as workers, pytest.raises(UserError, match="worker process ended"):
        list(workers.map([1, 99, 3]))
