"""Does the real pynq drive the IP, and does the server answer it as a board would?"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import pytest

from arch_models.memory import memory_for
from arch_models.overlay import Engine, default_overlay
from hw.board.emitted import DriverError, Project, logical_tensor, vectors
from hw.board.measurement import load_measurement
from hw.interface.configuration import configure
from hw.interface.registers import CONTROL_ADDRESS
from hw.project.emit import emit
from hw.pynq.files import bit_file, prepare
from hw.pynq.protocol import CALLS, messages
from hw.pynq.server import PORT, PynqServer, SystemRegisters, open_board
from hw.rtl_sim.board import RtlBoard
from hw.rtl_sim.stand_in import StandIn
from studies.validate.board import validate
from tests.support.board_counters import same_counters
from tests.support.command import cosim
from tests.support.small_frames import board, lowered_frame, small_graph
from tests.support.waiting import PATIENCE_SECONDS
from workloads.frames import AGC_MEANINGS, Frame

OVERLAY = dataclasses.replace(default_overlay(), tm=8, tn=8,
                              engines=frozenset({Engine.CONVOLUTION}))
VENV = Path(__file__).parents[2] / "build" / "pynq-venv"
PYNQ = "4.0.0"


@pytest.fixture
def place():
    """A short path: a unix socket's has at most 107 bytes."""
    with TemporaryDirectory() as folder:
        yield f"unix:{folder}/board"


class Client:
    """What pynq sends, without pynq."""

    def __init__(self, address: str) -> None:
        self._channel, self._messages = grpc.insecure_channel(address), messages()

    def __call__(self, call: str, **fields):
        request, answer = self._messages[call]
        asked, answered = (text.startswith("*") for text in CALLS[call])
        make = getattr(self._channel, f"{'stream' if asked else 'unary'}_"
                                      f"{'stream' if answered else 'unary'}")
        act = make(f"/{call}", request_serializer=request.SerializeToString,
                   response_deserializer=answer.FromString)
        found = act(iter([request(**fields)]) if asked else request(**fields))
        return list(found) if answered else found

    def register(self, address: int, value: int | None = None) -> int:
        window = self("mmio.Mmio/get_mmio", base_addr=address, length=4).mmio_id
        if value is None:
            return self("mmio.Mmio/read", mmio_id=window, length=4).data
        return self("mmio.Mmio/write", mmio_id=window, data=value.to_bytes(4, "little")).status

    def configure(self, name: str, data: bytes) -> None:
        write = "remote_device.RemoteDevice/writefile"
        self(write, file_path=f"/lib/firmware/{name}", data=data)
        self(write, file_path="/sys/class/fpga_manager/fpga0/firmware", data=name.encode())


class Runner:
    source = "c simulation"


def test_calls_reach_the_board(place):
    stand_in = StandIn(Runner(), ("input",))
    with PynqServer(stand_in, f"{place}:{PORT}") as server:
        client = Client(server.address)
        exists = "remote_device.RemoteDevice/existsfile"
        assert client(exists, file_path="/proc/version").exists
        assert not client(exists, file_path="/lib/firmware/a.bin").exists
        client.configure("a.bin", b"1234")
        assert (stand_in.downloaded, server.bitstream) == ("a.bin", b"1234")
        assert not client(exists, file_path="/lib/firmware/a.bin").exists  # else never sent anew
        client.register(CONTROL_ADDRESS + 0x10, 0x89ABCDEF)
        assert client.register(CONTROL_ADDRESS + 0x10) == 0x89ABCDEF
        assert stand_in.values["base_descriptors"] == 0x89ABCDEF

        name = client("buffer.RemoteBuffer/allocate", size=3 << 20).buffer_id
        data = np.random.default_rng(1).integers(0, 256, 3 << 20, np.uint8)
        client("buffer.RemoteBuffer/write", buffer_id=name, data=data.tobytes())
        parts = client("buffer.RemoteBuffer/read", buffer_id=name)
        assert b"".join(part.data for part in parts) == data.tobytes()
        where = client("buffer.RemoteBuffer/physical_address", buffer_id=name).address
        assert np.array_equal(stand_in._buffers[where], data)


def test_what_a_board_has_not_is_said(place):
    stand_in = StandIn(Runner(), ("input",))
    with PynqServer(stand_in, f"{place}:{PORT}") as server:
        client = Client(server.address)
        for message, act in (
                ("nothing of this board", lambda: client.register(0x40000000)),
                ("no such file", lambda: client("remote_device.RemoteDevice/readfile",
                                                file_path="/proc/cpuinfo")),
                ("no such bitstream", lambda: client(
                    "remote_device.RemoteDevice/writefile", data=b"b.bin",
                    file_path="/sys/class/fpga_manager/fpga0/firmware")),
                ("stopped or has no bitstream", lambda: client.register(CONTROL_ADDRESS, 1))):
            with pytest.raises(grpc.RpcError, match=message):
                act()


def test_a_locked_board_stays_in_reset(place):
    """As on a Zynq: who locks the system registers after a stop has lost the board."""
    stand_in, first = StandIn(Runner(), ("input",)), SystemRegisters.ADDRESS
    with PynqServer(stand_in, f"{place}:{PORT}") as server:
        client = Client(server.address)
        client.configure("a.bin", b"1234")
        client.register(first + SystemRegisters.RESET, 0xF)
        assert stand_in.stopped
        client.configure("a.bin", b"1234")
        assert not stand_in.stopped
        client.register(first + SystemRegisters.RESET, 0xF)
        client.register(first + SystemRegisters.LOCK, 0x767B)
        client.configure("a.bin", b"1234")
        assert stand_in.stopped


def test_the_rate_of_a_clock_is_the_pll_over_both_divisors():
    """By hand: 50 MHz times 20, over 4 and 5."""
    system = SystemRegisters()
    assert system.clock_hz(1) == 0
    system.write(0x180, 4 << 8 | 5 << 20)
    assert system.clock_hz(1) == 50e6


def test_an_address_for_others_or_in_use_is_refused():
    stand_in = StandIn(Runner(), ("input",))
    with pytest.raises(DriverError, match=r"127\.0\.0\.1:PORT"):
        PynqServer(stand_in, "0.0.0.0:7967")
    with socket.create_server(("127.0.0.1", 0)) as taken, \
            pytest.raises(DriverError, match="another server"):
        PynqServer(stand_in, f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_project_that_is_none_is_refused_in_one_line(tmp_path, capsys):
    assert cosim("board", "serve", tmp_path) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith("has no manifest.json; is it an emitted project?")


def test_a_project_without_verilog_or_with_a_real_bitstream_is_refused(tmp_path):
    manifest = {"backend": "hls", "design": "default", "clock_hz": 10**8}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(DriverError, match="emitted for hls"):
        prepare(tmp_path)
    path.write_text(json.dumps(manifest | {"backend": "rtl"}))
    assert prepare(tmp_path) == prepare(tmp_path)
    (tmp_path / "bitstream.json").write_text(json.dumps({"bitstream_sha256": "0"}))
    with pytest.raises(DriverError, match="another bitstream"):
        prepare(tmp_path)


@pytest.fixture
def pynq():
    """The Python of an environment with pynq, made once: its numpy and gRPC are too old for ours.

    For one test at a time, since pynq writes its state beside its code. Skips where packages
    cannot be fetched.
    """
    VENV.parent.mkdir(exist_ok=True)
    with open(VENV.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield with_pynq()


def with_pynq() -> Path:
    python = VENV / "bin" / "python"
    check = [python, "-c", f"import importlib.metadata as m; assert m.version('pynq') == '{PYNQ}'"]
    if python.exists() and not subprocess.run(check, capture_output=True).returncode:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", "--retries", "1",
                           f"pynq=={PYNQ}", "setuptools<=80"], capture_output=True, text=True)
    if done.returncode:
        unreached = ("ConnectionError", "NewConnection", "Max retries", "timed out", "resolve",
                     "No matching distribution")
        if any(word in done.stderr for word in unreached):
            pytest.skip(f"pynq {PYNQ} cannot be fetched from the package registry")
        pytest.fail(done.stderr)
    return python


def run(python: Path, folder: Path, bitstream: Path, place: str, *more: str):
    """The emitted project's own script in pynq's environment, where none of ours is found."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, folder / "board" / "run.py", "--bitstream", bitstream,
                           "--repeats", "1", "--output", folder.parent / "measured.json", *more],
                          env=given | {"PYNQ_REMOTE_DEVICES": place}, cwd=folder.parent,
                          capture_output=True, text=True, timeout=PATIENCE_SECONDS)


@pytest.mark.long
def test_a_frame_through_the_real_pynq(pynq, place, tmp_path):
    """Its Overlay, MMIO, allocate and download, twice, then a start that does not end."""
    lowered, folder = lowered_frame(OVERLAY), tmp_path / "project"
    program, memory = lowered.program, memory_for(board(), OVERLAY, model="flat")
    emit(lowered, small_graph(), OVERLAY, board(), folder, Frame(meanings=AGC_MEANINGS), rtl=True)
    subprocess.run(["make", "-C", folder, "host"], check=True, capture_output=True)
    project, bitstream = Project(str(folder)), prepare(folder)
    hardware = open_board(folder)
    with PynqServer(hardware, f"{place}:{PORT}") as server:
        for _ in range(2):
            done = run(pynq, folder, bitstream, place, "--picture", tmp_path / "picture.png")
            assert done.returncode == 0, done.stderr
            shown = (folder / "data" / "expected_picture.png").read_bytes()
            assert (tmp_path / "picture.png").read_bytes() == shown
            assert hardware.stopped
        words = np.frombuffer(server.bitstream, ">u4").astype("<u4").tobytes()
        assert bit_file(words, "default", "simulation") == bitstream.read_bytes()
        assert server.system.clock_hz(0) == pytest.approx(OVERLAY.clock_hz, rel=0.01)
    # The frame's memory, as the first buffer that the stopped board gives, is as it was left.
    image = np.array(hardware.allocate(project.manifest["memory_bytes"]))
    for name, expected in vectors(project, "output").items():
        entry = project.manifest["tensors"][name]
        raw = image[entry["address"] : entry["address"] + entry["bytes"]]
        assert np.array_equal(logical_tensor(raw, entry), expected)

    measurement = load_measurement(str(tmp_path / "measured.json"))
    assert measurement.source == "rtl simulation"
    assert measurement.values_compared >= 3 * 32 * 64
    assert measurement.values_differing == 0
    assert validate(measurement, folder, "flat").cycles_differing == 0
    same_counters(measurement, program, configure(program, OVERLAY), memory)

    late = RtlBoard(program, OVERLAY, memory, late=True)
    with PynqServer(late, f"{place}:{PORT}"):
        done = run(pynq, folder, bitstream, place, "--timeout", "0.2")
        assert done.returncode == 2, done.stderr
        assert "time-out" in done.stderr
    assert late.stopped


@pytest.mark.long
def test_a_description_that_vivado_has_written(pynq, place, tmp_path):
    """Of another design, from the tests of pynq's parser. pynq 4.0.0 alone fails on its clock."""
    found = list(VENV.glob("lib/*/site-packages/pynqmetadata/tests/hwhs/resizer.hwh"))
    (tmp_path / "a.hwh").write_bytes(found[0].read_bytes())
    (tmp_path / "a.bit").write_bytes(bit_file(b"resizer.", "resizer", "7z020"))
    script = """
import pynq
from hw.board.hardware import PynqHardware
try:
    pynq.Overlay("a.bit")
except TypeError as error:
    print(error)
hardware = PynqHardware("resize_accel_0")
hardware.download("a.bit")
print(pynq.Clocks.fclk0_mhz)
"""
    with PynqServer(StandIn(Runner(), ("input",)), f"{place}:{PORT}"):
        done = subprocess.run(
            [pynq, "-c", script], cwd=tmp_path, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, env=os.environ | {
                "PYNQ_REMOTE_DEVICES": place, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.stdout.split("\n")[:2] == [
        "unsupported operand type(s) for /: 'float' and 'NoneType'", "100.0"], done.stderr
