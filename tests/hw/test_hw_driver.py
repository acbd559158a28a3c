"""Does the driver decode a frame, and leave the hardware stopped whatever goes wrong?"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arch_models.overlay import Engine
from cosim.program.table import Column, UnitKind
from hw.board.driver import Driver, read_power
from hw.board.emitted import DriverError, Project, check_descriptors
from hw.board.hardware import Lock
from hw.board.measurement import load_measurement, parse_measurement, save_measurement
from hw.board.seal import seal
from hw.csim.fabric import Fabric
from hw.interface.vectors import host_layers
from hw.project.emit import emit
from hw.rtl_sim.stand_in import CSimRunner, StandIn
from tests.support.small_frames import QUICK, board, lowered_frame, small_graph, without
from tests.support.waiting import PATIENCE_SECONDS

OVERLAY = without(Engine.SOFTMAX, Engine.LOOKUP)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver") / "project"
    lowered = lowered_frame(OVERLAY)
    emit(lowered, small_graph(), OVERLAY, board(), folder)
    bitstream = folder.parent / "overlay.bit"
    bitstream.write_bytes(b"a stand-in for a bitstream")
    seal(str(folder), str(bitstream))
    with Fabric(lowered.program, OVERLAY, host_layers(small_graph(), lowered), QUICK) as fabric:
        yield folder, bitstream, fabric


class Rig:
    """One driver on one stand-in, with a lock of its own."""

    def __init__(self, emitted, tmp_path: Path, late: bool = False) -> None:
        self.folder, self.bitstream, fabric = emitted
        self.project = Project(str(self.folder))
        ports = tuple(self.project.manifest["memory_ports"])
        self.hardware = StandIn(CSimRunner(fabric), ports, late)
        self.lock = str(tmp_path / "lock")
        self.driver = Driver(self.project, self.hardware, fabric, str(self.bitstream), self.lock)


def test_a_frame_is_decoded_and_measured(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    with rig.driver as driver:
        driver.put_vectors()
        measurement = driver.measure(3, driver.expected_vectors())
    assert measurement.values_compared == 3 * 32 * 64
    assert measurement.values_differing == 0
    assert len(measurement.frame_seconds) == 3
    assert rig.hardware.starts == 4 * sum(step.kind == "fabric" for step in measurement.steps)
    assert {step.kind for step in measurement.steps} == {"fabric", "host"}
    assert sum(step.seconds[1] for step in measurement.steps) == measurement.frame_seconds[1]
    assert rig.hardware.stopped
    path = str(tmp_path / "measurement.json")
    save_measurement(measurement, path)
    assert load_measurement(path) == measurement


@pytest.mark.parametrize(("made", "refused"), [(100_000_000, False), (99_999_000, False),
                                               (111_111_111, True)])
def test_the_rate_that_was_made_is_measured_and_another_is_refused(emitted, tmp_path, made,
                                                                   refused):
    rig = Rig(emitted, tmp_path)
    rig.hardware.clock_hz = lambda: made
    with rig.driver as driver:
        driver.put_vectors()
        if refused:
            with pytest.raises(DriverError, match="111111111 Hz, the project is of 100000000 Hz"):
                driver.measure(1)
        else:
            assert driver.measure(1).clock_hz == made
    assert rig.hardware.stopped


def test_a_wrong_value_is_counted(emitted, tmp_path):
    with Rig(emitted, tmp_path).driver as driver:
        driver.put_vectors()
        want = driver.expected_vectors()
        want["picture"] = want["picture"].copy()
        want["picture"][1, 2, 3] += 1
        assert driver.measure(1, want).values_differing == 1


def test_another_bitstream_is_refused(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    other = tmp_path / "other.bit"
    other.write_bytes(b"built for something else")
    with pytest.raises(DriverError, match="does not match the manifest's bitstream"), \
            Driver(rig.project, rig.hardware, None, str(other), rig.lock):
        pass
    assert rig.hardware.stopped and not rig.hardware.downloaded
    with pytest.raises(DriverError, match="no such bitstream"):
        rig.project.check_bitstream(str(tmp_path / "none.bit"))


def test_a_seal_of_another_manifest_is_refused(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    rig.project.manifest_sha256 = "0" * 64
    with pytest.raises(DriverError, match="sealed for another manifest"):
        rig.project.check_bitstream(str(rig.bitstream))


def test_the_seal_script_writes_what_the_driver_reads(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    seal(str(rig.folder), str(rig.bitstream))
    assert len(rig.project.check_bitstream(str(rig.bitstream))) == 64


def test_a_time_out_stops_the_hardware(emitted, tmp_path):
    rig = Rig(emitted, tmp_path, late=True)
    with pytest.raises(DriverError, match=r"time-out: operations .* the fabric is stopped"), \
            rig.driver as driver:
        driver.run()
    assert rig.hardware.stopped
    Lock(rig.lock).take()


def _hold(path: str, ready, done) -> None:
    lock = Lock(path)
    lock.take()
    ready.set()
    done.wait(PATIENCE_SECONDS)


def test_a_second_process_is_refused(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(rig.lock, ready, done))
    other.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        with pytest.raises(DriverError, match=f"another process .number {other.pid}."), rig.driver:
            pass
    finally:
        done.set()
        other.join()
    assert not rig.hardware.downloaded
    with rig.driver:
        assert rig.hardware.downloaded


@pytest.mark.parametrize("name", ["data/weights.bin", "data/descriptors.bin", "data/host.bin"])
def test_a_truncated_or_changed_file_is_refused(emitted, tmp_path, name):
    rig = Rig(emitted, tmp_path)
    path = rig.folder / name
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-8])
        with pytest.raises(DriverError, match="truncated"):
            rig.project.data(name)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(DriverError, match="SHA-256 is not the one in the manifest"):
            rig.project.data(name)
    finally:
        path.write_bytes(whole)
    with pytest.raises(DriverError, match="not in the project"):
        rig.project.data("data/none.bin")
    with pytest.raises(DriverError, match=r"has no manifest\.json"):
        Project(str(tmp_path))


def test_a_descriptor_outside_its_buffer_is_refused(emitted, tmp_path):
    manifest = Project(str(emitted[0])).manifest
    data = np.fromfile(emitted[0] / "data/descriptors.bin", np.uint8)
    descriptors = data[manifest["descriptors_offset"]:].copy()
    check_descriptors(descriptors, manifest)
    program = lowered_frame(OVERLAY).program
    kinds = np.array([unit.kind for unit in program.units])
    row = int(np.argmax(kinds[program.operations[:, Column.UNIT]] != UnitKind.COMPUTE))
    place = row * 64 + manifest["descriptor_fields"]["address"]["offset"] // 8
    descriptors[place : place + 4] = [0, 0, 0, 0x40]
    with pytest.raises(DriverError, match=f"descriptor {row}: bytes .* outside its buffer"):
        check_descriptors(descriptors, manifest)
    with pytest.raises(DriverError, match="must be"):
        check_descriptors(descriptors[:-64], manifest)


def test_a_counter_at_its_end_is_refused(emitted, tmp_path):
    rig = Rig(emitted, tmp_path)
    registers = {"busy": {"offset": 0x100, "bits": 40}, "idle": {"offset": 0x108, "bits": 32},
                 "memory": {"offset": 0x110, "bits": 32}}
    rig.driver.manifest["counters"] = [{"unit": "input", "registers": registers}]
    rig.hardware.counters = {0x100: 5, 0x104: 1, 0x108: 7, 0x110: 9}
    starts = sum(step["kind"] == "fabric" for step in rig.project.manifest["steps"])
    with rig.driver as driver:
        driver.run()
        found = driver.counters()[0]
        assert found.busy_cycles == starts * ((1 << 32) + 5)
        assert found.idle_cycles == starts * 7
        assert found.stall_cycles == {"memory": starts * 9}
        rig.hardware.counters[0x110] = (1 << 32) - 1
        with pytest.raises(DriverError, match="counter 'memory' of unit 'input': overflow"):
            driver.run()


def test_wrong_arguments_are_refused(emitted, tmp_path):
    with Rig(emitted, tmp_path).driver as driver:
        with pytest.raises(DriverError, match="tensor 'nothing': the project has"):
            driver.get("nothing")
        with pytest.raises(DriverError, match=r"shape \(1, 1, 1\), must be"):
            driver.put("small", np.zeros((1, 1, 1), np.int8))
        with pytest.raises(DriverError, match="repeats is 0"):
            driver.measure(0)


def test_power_is_the_mean_inside_the_window(tmp_path):
    path = tmp_path / "power.csv"
    path.write_text("unix_seconds,watts\n1,9.0\n2,2.0\n3,3.0\n9,9.0\n")
    assert read_power(str(path), 1.5, 4.0) == ({"total_w": 2.5}, 2)
    with pytest.raises(DriverError, match="no sample"):
        read_power(str(path), 20.0, 30.0)
    path.write_text("unix_seconds,vccint_w,ddr_w\n1,1.0,0.5\n2,2.0,0.7\n")
    rails, samples = read_power(str(path), 0.0, 4.0)
    assert samples == 2 and rails == pytest.approx({"vccint_w": 1.5, "ddr_w": 0.6})
    path.write_text("unix_seconds,volts\n1,1.0\n")
    with pytest.raises(DriverError, match=r"columns \['volts'\], must be of total_w"):
        read_power(str(path), 0.0, 4.0)
    path.write_text("unix_seconds,watts\nhello\n")
    with pytest.raises(DriverError, match=r"line 2: must be unix_seconds,watts"):
        read_power(str(path), 0.0, 1.0)


@pytest.mark.parametrize(("text", "message"), [
    ("nonsense", "not JSON"), ("{}", "format must be 1"),
    ('{"format": 1, "source": "board"}', "is missing"),
])
def test_a_bad_measurement_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_measurement(text)


def test_an_unknown_field_is_refused(emitted, tmp_path):
    with Rig(emitted, tmp_path).driver as driver:
        measurement = driver.measure(1)
    path = tmp_path / "measurement.json"
    save_measurement(measurement, str(path))
    raw = json.loads(path.read_text())
    with pytest.raises(ValueError, match="unknown field 'predicted'"):
        parse_measurement(json.dumps({**raw, "predicted": 1}))
    with pytest.raises(ValueError, match="frame_seconds has 1 entries"):
        parse_measurement(json.dumps({**raw, "repeats": 4}))


def test_the_board_folder_stands_alone(emitted):
    """On the board there is no `hw` package; the files find each other."""
    code = ("import sys; sys.modules['hw'] = None; sys.path.insert(0, sys.argv.pop(1)); "
            "import run; sys.exit(run.main())")
    command = [sys.executable, "-c", code, str(emitted[0] / "board"), "--bitstream", "none.bit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "libhost.so: not built; run `make host` in the project" in done.stderr
