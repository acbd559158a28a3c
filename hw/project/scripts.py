"""The scripts of an emitted project: Tcl for the vendor's tools, Makefile, README, board scripts.

It runs no tool. The scripts are files in `templates/` and read one generated file, `design.tcl`;
what could not be run where it was written is listed in `UNCHECKED`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arch_models.board import Board
from arch_models.clock import basis, predict
from arch_models.memory import WINDOW
from arch_models.overlay import Fusion, Overlay, Role
from arch_models.units import MEBIBYTE
from cosim.program.table import Program
from hw.interface.configuration import DESCRIPTORS, Configuration, EmissionError
from hw.interface.ports import memory_ports
from hw.interface.registers import CONTROL_ADDRESS, CONTROL_BYTES, INTERRUPTS_ADDRESS

#: Versions the scripts are written for. Only the compiler of the C simulation was run.
TOOLS = {"c_simulation": "g++ 12 (C++14)", "vitis_hls": "2022.2 (not run)",
         "vivado": "2022.2 (not run)", "pynq": "4.0.0 (run on the simulated RTL only)"}
UNCHECKED = (
    "vitis/hls.tcl: synthesis, its initiation intervals and its timing",
    "rtl/overlay.v and vivado/package_rtl.tcl, if emitted, in the vendor's tools",
    "vivado/block_design.tcl in the vendor's tools: block design, implementation and bitstream; "
    "its Tcl was run with every vendor command replaced",
    "the register offsets against the header that Vitis HLS writes (xoverlay_hw.h)",
    "arrays shared by two processes without hand-shake (STREAM type=unsync)",
    "sources/overlay.cpp beyond its run as threads with g++",
    "board/run.py on a board; it was run with pynq 4.0.0 on the simulated RTL, so its wait for an "
    "interrupt was not",
    "power readings from a meter",
)
#: How parts of the one family begin whose processor block, registers and clocks are written.
FAMILY, FAMILY_PART = "Zynq-7000", "xc7z"
TEMPLATES = Path(__file__).parent / "templates"
BOARD = Path(__file__).parents[1] / "board"
_IP = {"rtl": "rtl_ip/component.xml", "hls": "hls/solution/impl/ip/component.xml"}


def check_family(board: Board) -> None:
    """Refuse a board of another family: its processor block and its registers differ."""
    if not board.part.name.lower().startswith(FAMILY_PART):
        raise EmissionError(
            f"board {board.name!r}: its part {board.part.name} is no {FAMILY} ({FAMILY_PART}...); "
            "block design, driver and scripts are written for that family only; nearest "
            "'pynq-z1'. Its time, energy and search work without (`cosim simulate`)")


@dataclass(frozen=True)
class AxiPort:
    """A master of the top and the port of the processor it goes to."""

    name: str
    board_port: str


def ports_of(program: Program, configuration: Configuration,
             overlay: Overlay) -> tuple[AxiPort, ...]:
    """`descriptors` and every memory master with its port. Descriptors share the port of the
    fetch master, or of the weight master if there is none."""
    of = {master.name: master.port for master in overlay.masters}
    shared = (*overlay.masters_of(Role.FETCH), *overlay.masters_of(Role.WEIGHT))[0].port
    found = [AxiPort(DESCRIPTORS, shared)]
    for port in memory_ports(program, configuration):
        if port.name not in of:
            raise EmissionError(f"masters: the program's unit {port.name!r} is not among "
                                f"{sorted(of)}")
        found.append(AxiPort(port.name, of[port.name]))
    return tuple(found)


@dataclass(frozen=True)
class Frame:
    """What the README says of a frame. `inputs`: a sentence on those that are shipped; `ms`:
    predicted, all steps; `memory_bytes`: of the buffer of tensors and weights."""

    inputs: str = ""
    ms: float = 0.0
    memory_bytes: int = 0


def texts(name: str, overlay: Overlay, board: Board, ports: tuple[AxiPort, ...],
          rtl: bool = False, frame: Frame = Frame()) -> dict[str, str]:
    """Path to text of every script of the project; with `rtl`, of the Verilog IP too."""
    backend = "rtl" if rtl else "hls"
    plain = {"vitis/hls.tcl": "hls.tcl", "vivado/block_design.tcl": "block_design.tcl"}
    if rtl:
        plain["vivado/package_rtl.tcl"] = "package_rtl.tcl"
    found = {path: template(file) for path, file in plain.items()}
    found["Makefile"] = template("Makefile", BACKEND=backend)
    found["vivado/design.tcl"] = design_tcl(overlay, board, ports, backend)
    if rtl:
        found["vivado/overlay_ooc.xdc"] = template("overlay_ooc.xdc",
                                                   PERIOD_NS=f"{1e9 / overlay.clock_hz:.3f}")
    found["README.md"] = readme(name, overlay, board, ports, backend, frame)
    return found


def template(file: str, **values: str) -> str:
    """A template with each `@NAME@` replaced; every name must be there and every value used."""
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    names = set(re.findall("@([A-Z_]+)@", text))
    if names != set(values):
        raise ValueError(f"{file}: has {sorted(names)}, was given {sorted(values)}")
    return re.sub("@([A-Z_]+)@", lambda found: values[found[1]], text)


def design_tcl(overlay: Overlay, board: Board, ports: tuple[AxiPort, ...], backend: str) -> str:
    """What the Tcl scripts need to know of one design: numbers, and names checked on the way."""
    kinds = {port.name: port.kind.value for port in board.ports}
    lines = [
        "# Values of this design for the scripts beside it. Generated; do not edit.",
        f"set part {board.part.name}",
        f"set backend {backend}",
        f"set clock_mhz {overlay.clock_hz / 1e6:.6f}",
        f"set period_ns {1e9 / overlay.clock_hz:.3f}",
        "# The oscillator of the processor; 0: not known, the tool's default holds.",
        f"set crystal_mhz {board.clocks.crystal_hz / 1e6:.6f}",
        f"set control_base {CONTROL_ADDRESS:#010x}",
        f"set interrupts_base {INTERRUPTS_ADDRESS:#010x}",
        f"set control_bytes {CONTROL_BYTES:#x}",
        "# Port of the processor, its kind, the masters behind it.",
        "set ports {"]
    for used in sorted({port.board_port for port in ports}):
        here = " ".join(port.name for port in ports if port.board_port == used)
        lines.append(f"    {used} {kinds[used]} {{{here}}}")
    return "\n".join([*lines, "}"]) + "\n"


def _crystal(board: Board) -> str:
    """How the processor's clocks are known to the vendor's tool."""
    if not board.clocks.crystal_hz:
        return ("The oscillator of the processor is not in the board file: the tool's default "
                "(33.3 MHz)\n  is taken, which must be the board's.")
    return (f"The processor's oscillator has {board.clocks.crystal_hz / 1e6:.4g} MHz; the script "
            "says so to the tool, since pynq\n  takes the dividers of FCLK0 from `overlay.hwh`.")


def _clock(overlay: Overlay, board: Board) -> str:
    """What stands behind the clock, and what the fabric is predicted to reach."""
    found = predict(overlay, board)
    return (f"The clock is {basis(overlay, board)}: the\nfabric is expected to reach "
            f"{found.mhz:.0f} MHz, nine builds of ten {found.low_mhz:.0f} to {found.high_mhz:.0f}")


def readme(name: str, overlay: Overlay, board: Board, ports: tuple[AxiPort, ...], backend: str,
           frame: Frame) -> str:
    """What the project is, each step with its command, and what nobody has run yet."""
    notes = ["HLS C++ cannot count cycles, so that backend has no counters; the RTL has them."]
    if Fusion.ADD in overlay.fusions:
        notes.insert(0, "The skip tile of a fused addition has a memory of its own (SKIP, the size "
                     "of\n  OUTPUT): a memory between two processes has one writer and one reader.")
    if overlay.tensor_memory_kib:
        notes.append(f"Tensors at {WINDOW:#x} and above (`window` in the manifest) lie in "
                     f"{overlay.tensor_memory_kib} KiB of block RAM\n  inside the IP and never on "
                     "a memory port: the processor cannot read them.")
    for role, what in ((Role.INPUT, "load"), (Role.OUTPUT, "store")):
        if len(overlay.masters_of(role)) > 1:
            notes.append(f"The {len(overlay.masters_of(role))} {role.value} masters share the "
                         f"process `{what}` and take turns; predictions assume they overlap.")
    hls = backend == "hls"
    picture = ".png" in frame.inputs
    array = (overlay.tm, overlay.tn, *((overlay.columns,) if overlay.columns > 1 else ()))
    return template(
        "README.md", NETWORK=markdown(name), DESIGN=markdown(overlay.name),
        BOARD=markdown(board.title), ARRAY=" x ".join(map(str, array)),
        CLOCK_MHZ=f"{overlay.clock_hz / 1e6:g}", CLOCK=_clock(overlay, board),
        INPUTS=frame.inputs, MS=f"{frame.ms:.4g}",
        MEMORY_MIB=f"{frame.memory_bytes / MEBIBYTE:.3g}",
        IP=_IP[backend], CRYSTAL=_crystal(board),
        ALONE="HLS constrains the IP\n  alone (`create_clock` in `vitis/hls.tcl`)" if hls else
        "alone, the IP\n  has `vivado/overlay_ooc.xdc`",
        RTL_ROW="" if hls else "| `rtl/` | the same fabric in Verilog, with cycle counters |\n",
        VIVADO=TOOLS["vivado"].split()[0], HLS_NEEDED=" and Vitis HLS" if hls else "",
        PICTURE_SEEN=", `picture.png`" if picture else "",
        PICTURE_OPTION=" --picture picture.png" if picture else "",
        BACKEND_WORDS="the C++ (`BACKEND=hls`)" if hls else
        "the Verilog (`BACKEND=rtl`); `make bitstream BACKEND=hls` takes that of the C++",
        CONTROL=f"{CONTROL_ADDRESS:#010x}", INTERRUPTS=f"{INTERRUPTS_ADDRESS:#010x}",
        CONTROL_KB=str(CONTROL_BYTES // 1024),
        PORTS="\n".join(f"| `m_axi_port_{port.name}` | {port.board_port} |" for port in ports),
        NOTES="\n".join(f"- {item}" for item in notes),
        UNCHECKED="\n".join(f"- {item}" for item in UNCHECKED))


def markdown(text: str) -> str:
    """A line of prose for Markdown and the HTML made of it: what means something is escaped."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", text) if not _PLAIN.fullmatch(text) else text


_PLAIN = re.compile(r"[A-Za-z0-9_.()/ -]*", re.ASCII)


def board_files() -> Mapping[str, bytes]:
    """What runs on the board, as it stands in `hw/board`."""
    return {f"board/{path.name}": path.read_bytes() for path in sorted(BOARD.iterdir())
            if path.suffix in (".py", ".ipynb") and path.name != "__init__.py"}
