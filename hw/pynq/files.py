"""A bitstream and a hardware description for `hw.pynq.server`: what pynq must find, no more.

Neither configures a real device. The vendor's flow writes the real ones (`hw.project.scripts`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hw.board.emitted import DriverError, Project
from hw.board.seal import seal
from hw.interface.registers import CONTROL_ADDRESS, CONTROL_BYTES, INTERRUPTS_ADDRESS

CLOCKS = 4  # that a Zynq-7000 has for its fabric


def bit_file(payload: bytes, design: str, part: str) -> bytes:
    """A .bit file: fields `a` design, `b` part, `c` date, `d` time, then `e` the configuration.

    `payload`: whole 32-bit words, which pynq sends with their bytes turned round.
    """
    fields = zip("abcd", (design, part, "2000/01/01", "00:00:00"), strict=True)
    head = bytes.fromhex("0009 0ff0 0ff0 0ff0 0ff0 00 0001")
    for key, text in fields:
        data = text.encode() + b"\0"
        head += key.encode() + len(data).to_bytes(2, "big") + data
    return head + b"e" + len(payload).to_bytes(4, "big") + payload


def hwh_file(clock_hz: int) -> str:
    """The parts of the block design that pynq reads (`hw.project.scripts`): processor and its
    clocks, the overlay's control port, the interrupt's way. Names are those of Vivado for a
    Zynq-7000."""
    clocks = "".join(
        f'<PARAMETER NAME="PCW_FPGA_FCLK{number}_ENABLE" VALUE="{int(number == 0)}"/>'
        f'<PARAMETER NAME="PCW_FCLK{number}_PERIPHERAL_CLKSRC" VALUE="IO PLL"/>'
        f'<PARAMETER NAME="PCW_FCLK{number}_PERIPHERAL_DIVISOR0" VALUE="1"/>'
        f'<PARAMETER NAME="PCW_FCLK{number}_PERIPHERAL_DIVISOR1" VALUE="1"/>'
        f'<PARAMETER NAME="PCW_ACT_FPGA{number}_PERIPHERAL_FREQMHZ" '
        f'VALUE="{clock_hz / 1e6:.6f}"/>\n' for number in range(CLOCKS))
    return f"""\
<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<EDKSYSTEM EDWVERSION="1.2" VIVADOVERSION="none">
<SYSTEMINFO ARCH="zynq" NAME="system"/>
<EXTERNALPORTS/>
<EXTERNALINTERFACES/>
<MODULES>
{_module("ps", "processing_system7", "xilinx.com:ip:processing_system7:5.5", clocks,
         _port("IRQ_F2P", "I", "axi_intc_0", "irq"), "M_AXI_GP0", "MASTER",
         _range("overlay_0", "s_axi_control", CONTROL_ADDRESS, CONTROL_BYTES)
         + _range("axi_intc_0", "s_axi", INTERRUPTS_ADDRESS, CONTROL_BYTES))}
{_module("overlay_0", "overlay", "cosim:rtl:overlay:1.0", "",
         _port("interrupt", "O", "axi_intc_0", "intr"), "s_axi_control", "SLAVE", "")}
{_module("axi_intc_0", "axi_intc", "xilinx.com:ip:axi_intc:4.1", "",
         _port("intr", "I", "overlay_0", "interrupt") + _port("irq", "O", "ps", "IRQ_F2P"),
         "s_axi", "SLAVE", "")}
</MODULES>
</EDKSYSTEM>
"""


def _module(name: str, kind: str, version: str, parameters: str, ports: str, bus: str, side: str,
            ranges: str) -> str:
    return f"""\
<MODULE FULLNAME="/{name}" INSTANCE="{name}" MODTYPE="{kind}" VLNV="{version}">
<PARAMETERS>
{parameters}</PARAMETERS>
<PORTS>
{ports}</PORTS>
<BUSINTERFACES>
<BUSINTERFACE NAME="{bus}" TYPE="{side}" VLNV="xilinx.com:interface:aximm:1.0"/>
</BUSINTERFACES>
<MEMORYMAP>
{ranges}</MEMORYMAP>
</MODULE>"""


def _port(name: str, side: str, other: str, pin: str) -> str:
    return (f'<PORT DIR="{side}" NAME="{name}" SIGIS="INTERRUPT"><CONNECTIONS>'
            f'<CONNECTION INSTANCE="{other}" PORT="{pin}"/></CONNECTIONS></PORT>\n')


def _range(name: str, bus: str, address: int, size: int) -> str:
    return (f'<MEMRANGE ADDRESSBLOCK="Reg" BASEVALUE="{address:#010x}" '
            f'HIGHVALUE="{address + size - 1:#010x}" INSTANCE="{name}" '
            f'MASTERBUSINTERFACE="M_AXI_GP0" MEMTYPE="REGISTER" SLAVEBUSINTERFACE="{bus}"/>\n')


def prepare(folder: Path) -> Path:
    """Write `overlay.bit` and `overlay.hwh` into the project's `build/simulation/` and seal them.

    Returns the .bit file. The same project gives the same bytes. Raises `DriverError` if the
    project is sealed for another bitstream, or was not emitted with its RTL.
    """
    project = Project(str(folder))
    manifest = project.manifest
    if manifest["backend"] != "rtl":
        raise DriverError(f"{folder}: emitted for {manifest['backend']}; only an IP in Verilog can "
                          "be simulated, so emit the project with its RTL")
    data = bit_file(bytes.fromhex(project.manifest_sha256), manifest["design"], "simulation")
    place = folder / "build" / "simulation"
    sealed = folder / "bitstream.json"
    if sealed.exists():
        found = json.loads(sealed.read_text(encoding="utf-8"))["bitstream_sha256"]
        if found != hashlib.sha256(data).hexdigest():
            raise DriverError(f"{sealed}: sealed for another bitstream, perhaps a real one; emit "
                              "the project into another folder and serve that")
    place.mkdir(parents=True, exist_ok=True)
    (place / "overlay.bit").write_bytes(data)
    (place / "overlay.hwh").write_text(hwh_file(manifest["clock_hz"]), encoding="utf-8")
    seal(str(folder), str(place / "overlay.bit"))
    return place / "overlay.bit"
