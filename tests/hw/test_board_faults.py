"""Is the fabric stopped, and nothing lost or overwritten, whatever happens on the board?"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw.board import measurement as measurement_module
from hw.board import run as run_module
from hw.board.driver import Driver, read_power
from hw.board.emitted import DriverError, Project
from hw.board.hardware import Lock, PynqHardware
from hw.board.measurement import MeasurementError, load_measurement, save_measurement
from tests.support import tiny_project
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    tiny_project.write_project(folder)
    return folder


def driver_of(folder: Path, **more) -> Driver:
    return Driver(Project(str(folder)), tiny_project.Board(folder / "log", ends=True), None,
                  str(folder / "overlay.bit"), str(folder / "lock"), **more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_the_fabric(tiny, number):
    log = tiny / "log"
    process = subprocess.Popen([sys.executable, tiny_project.__file__, str(tiny)],
                               stderr=subprocess.PIPE,
                               env=os.environ | {"PYTHONPATH": str(tiny_project.BOARD)},
                               # Whoever runs the tests under nohup has this one ignored.
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    try:
        wait_until(lambda: process.poll() is not None or (
            log.exists() and "waiting" in log.read_text()))
        process.send_signal(number)
        assert process.wait(PATIENCE_SECONDS) == (
            -number if number == signal.SIGINT else 128 + number)
    finally:
        process.kill()
        process.communicate()
    assert log.read_text().split() == ["download", "waiting", "stop"]


def test_signals_are_given_back_and_one_that_was_ignored_stays_so(tiny):
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with driver_of(tiny):
            assert signal.getsignal(signal.SIGTERM) != before[0]
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before[0]
    finally:
        signal.signal(signal.SIGHUP, before[1])


def test_a_driver_is_opened_and_closed_without_a_with(tiny):
    """As the cells of a notebook do."""
    driver = driver_of(tiny)
    driver.open()
    driver.close()
    driver.close()
    with driver_of(tiny):  # its lock is free again
        pass
    told = (tiny / "log").read_text().split()
    assert told[:2] == told[-2:] == ["download", "stop"] and told.count("download") == 2


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32])
def test_a_tensor_of_another_type_is_refused_and_not_wrapped(tiny, kind):
    with driver_of(tiny) as driver:
        with pytest.raises(DriverError, match=r"'input': its type is .*, must be int8"):
            driver.put("input", np.full((3, 1, 1), 1, kind))
        with pytest.raises(DriverError, match="its type is list"):
            driver.put("input", [[[1]]])
        driver.put("input", np.ones((3, 1, 1), np.int8))


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e9])
def test_a_time_out_that_never_comes_is_refused(tiny, timeout):
    with pytest.raises(DriverError, match="timeout_s is .*, must be above 0 and at most 86400"):
        driver_of(tiny, timeout_s=timeout)


def test_a_lock_follows_no_link_and_overwrites_nothing(tmp_path):
    thesis, path = tmp_path / "thesis", tmp_path / "lock"
    for text, make, message in (
            ("dear", lambda: path.symlink_to(thesis), "a link is not followed"),
            ("dear", lambda: os.link(thesis, path), "second name"),
            ("dear", lambda: thesis.replace(path), "something else than a process's number"),
            ("", lambda: os.mkfifo(path), "plain file"),
            ("", path.mkdir, "cannot be opened")):
        thesis.write_text(text)
        make()
        with pytest.raises(DriverError, match=message):
            Lock(str(path)).take()
        if thesis.exists():
            assert thesis.read_text() == text
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    lock = Lock(str(path))
    lock.take()
    assert path.read_text() == str(os.getpid())
    with pytest.raises(DriverError, match=f"number {os.getpid()}"):
        Lock(str(path)).take()
    lock.release()


def test_the_boards_lock_lies_where_only_its_user_writes(monkeypatch):
    monkeypatch.delenv("PYNQ_REMOTE_DEVICES", raising=False)
    here = Lock()._path
    monkeypatch.setenv("PYNQ_REMOTE_DEVICES", "192.168.2.99")
    assert Lock()._path != here  # another board
    folder = Path(Lock()._path).parent
    while not folder.exists():
        folder = folder.parent
    assert not folder.stat().st_mode & stat.S_IWOTH


def test_an_interrupt_is_waited_for_in_a_notebook_too():
    """There a loop runs already, and pynq's own way fails with "already running"."""
    async def never():
        await asyncio.sleep(60)

    hardware = PynqHardware()
    registers = {PynqHardware.INTERRUPT_STATUS: 0}
    hardware._port = SimpleNamespace(read=registers.get)
    hardware._overlay = SimpleNamespace(
        device=SimpleNamespace(has_capability=lambda name: False),
        overlay_0=SimpleNamespace(interrupt=SimpleNamespace(wait=never)))

    async def cell():
        late = hardware.wait_interrupt(0.01)
        registers[PynqHardware.INTERRUPT_STATUS] = 1
        return late, hardware.wait_interrupt(0.01)

    assert asyncio.run(cell()) == (False, True)
    registers[PynqHardware.INTERRUPT_STATUS] = 0
    assert not hardware.wait_interrupt(0.01)  # without a loop: pynq's


@pytest.fixture
def measurement(tiny):
    with driver_of(tiny) as driver:
        return driver.measure(2)


def test_a_full_disk_leaves_no_half_a_measurement(tmp_path, measurement, monkeypatch, capsys, tiny):
    path = tmp_path / "measurement.json"
    save_measurement(measurement, str(path))
    before = path.read_text()

    def full(handle):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(measurement_module.os, "fsync", full)
    with pytest.raises(MeasurementError, match="cannot be written .No space left"):
        save_measurement(measurement, str(path))
    assert path.read_text() == before
    assert sorted(tmp_path.iterdir()) == [path, tiny]  # no partial file

    # What was measured is printed, so that it is not lost.
    monkeypatch.setenv("PYNQ_REMOTE_DEVICES", str(tmp_path))  # a lock of this test's own
    monkeypatch.setattr(run_module, "HostLibrary", lambda path, table: None)
    monkeypatch.setattr(run_module, "PynqHardware",
                        lambda wait: tiny_project.Board(tmp_path / "log", ends=True))
    code = run_module.main(["--project", str(tiny), "--bitstream", str(tiny / "overlay.bit"),
                            "--output", str(path), "--repeats", "2"])
    shown = capsys.readouterr()
    assert code == 2
    assert "error: " in shown.err
    assert json.loads(shown.out)["repeats"] == 2


def test_a_measurement_keeps_the_files_mode_and_spares_what_is_no_plain_file(tmp_path,
                                                                             measurement):
    path, other = tmp_path / "measurement.json", tmp_path / "other"
    path.write_text("old")
    path.chmod(0o600)
    save_measurement(measurement, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other.symlink_to(path)
    save_measurement(measurement, str(other))
    assert other.is_symlink()
    assert load_measurement(str(path)) == measurement
    other.unlink()
    os.link(path, other)
    with pytest.raises(MeasurementError, match="second name"):
        save_measurement(measurement, str(path))
    other.unlink()
    path.chmod(0o400)
    with pytest.raises(MeasurementError, match="read-only"):
        save_measurement(measurement, str(path))
    for bad, message in (("/dev/null", "not a plain file"), (str(tmp_path), "not a plain file"),
                         (str(tmp_path / "none" / "a.json"), "is not there")):
        with pytest.raises(MeasurementError, match=message):
            save_measurement(measurement, bad)


def test_a_meters_file_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "power.csv"
    with pytest.raises(DriverError, match="cannot be read"):
        read_power(str(path), 0.0, 1.0)
    for text in ("1,nan\n", "inf,1\n"):
        path.write_text(text)
        with pytest.raises(DriverError, match="line 1: .* must be finite"):
            read_power(str(path), 0.0, 1.0)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "\udcff"])
def test_a_manifest_that_is_none_is_refused_in_one_line(tiny, text):
    (tiny / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DriverError, match="manifest.json: "):
        Project(str(tiny))


@pytest.mark.parametrize(("change", "message"), [
    ({"repeats": "2"}, "repeats: '2' must be of type int"),
    ({"repeats": True}, "must be of type int"), ({"repeats": 1 << 64}, "must be from -1 to"),
    ({"warm_up": 1}, "warm_up: 1 must be of type bool"), ({"board": None}, "must be of type str"),
    ({"frame_seconds": [1.0, math.nan]}, r"frame_seconds\[1\] is nan, must be from 0 to 1e"),
    ({"frame_seconds": [1.0, math.inf]}, "is inf, must be"),
    ({"frame_seconds": [1.0, -1.0]}, "is -1.0, must be"),
    ({"frame_seconds": {"a": 1}}, "must be a list"),
    ({"frame_seconds": [1.0]}, "must have repeats"),
    ({"steps": [3]}, r"steps\[0\]: must be an object"),
    ({"steps": [{"kind": "host", "seconds": [1, 2], "power": 1}]}, "unknown field 'power'"),
    ({"steps": [{"kind": "host", "seconds": [1.0]}]}, r"steps\[0\].seconds has 1 entries"),
    ({"counters": [{"unit": "a"}]}, "field 'busy_cycles' is missing"),
    ({"power_w": "9"}, "must be of type float")])
def test_a_measurement_of_other_types_or_ranges_is_refused(measurement, change, message):
    raw = json.loads(measurement_module.measurement_text(measurement))
    with pytest.raises(MeasurementError, match=message):
        measurement_module.parse_measurement(json.dumps({**raw, **change}))


@pytest.mark.parametrize("data", [b"\xff", b"", b"[" * 100_000, b"nonsense"])
def test_a_file_that_is_no_measurement_is_refused_in_one_line(tmp_path, data):
    path = tmp_path / "measurement.json"
    path.write_bytes(data)
    with pytest.raises(MeasurementError, match="cannot be read|not JSON"):
        load_measurement(str(path))
    with pytest.raises(MeasurementError, match="cannot be read"):
        load_measurement(str(tmp_path))


def test_a_design_that_polls_never_asks_pynq_to_wait():
    async def never():
        await asyncio.sleep(60)

    asked = []

    def read(offset):
        asked.append(offset)
        return int(len(asked) == 3)

    hardware = PynqHardware(wait="poll")
    hardware._port = SimpleNamespace(read=read)
    hardware._overlay = SimpleNamespace(
        device=SimpleNamespace(has_capability=lambda name: False),
        overlay_0=SimpleNamespace(interrupt=SimpleNamespace(wait=never)))
    assert hardware.wait_interrupt(1.0)
    assert asked == [PynqHardware.INTERRUPT_STATUS] * 3
    with pytest.raises(DriverError, match="wait is 'doze', must be 'sleep' or 'poll'"):
        PynqHardware(wait="doze")
