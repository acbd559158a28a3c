"""The scripts of an emitted project: Tcl for the vendor's tools, Makefile, README, board scripts.

It runs no tool. What could not be run where it was written is listed in `UNCHECKED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arch_models.board import Board
from arch_models.overlay import Overlay, Role
from cosim.program.table import Program
from hw.csim.top import memory_ports
from hw.interface.configuration import Configuration, EmissionError

#: Versions the scripts are written for. Only the compiler of the C simulation was run.
TOOLS = {"c_simulation": "g++ 12 (C++14)", "vitis_hls": "2022.2 (not run)",
         "vivado": "2022.2 (not run)", "pynq": "4.0.0 (run on the simulated RTL only)"}
UNCHECKED = (
    "vitis/hls.tcl: synthesis, its initiation intervals and its timing",
    "rtl/overlay.v and vivado/package_rtl.tcl, if emitted, in the vendor's tools",
    "vivado/block_design.tcl: block design, implementation and bitstream",
    "the register offsets against the header that Vitis HLS writes (xoverlay_hw.h)",
    "arrays shared by two processes without hand-shake (STREAM type=unsync)",
    "sources/overlay.cpp beyond its run as threads with g++",
    "board/run.py on a board; it was run with pynq 4.0.0 on the simulated RTL, so its wait for an "
    "interrupt was not",
    "power readings from a meter",
)
_SCRIPTS = Path(__file__).parents[1] / "board"


#: How parts of the one family begin whose processor block, registers and clocks are written.
FAMILY, FAMILY_PART = "Zynq-7000", "xc7z"


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
    found = [AxiPort("descriptors", shared)]
    for port in memory_ports(program, configuration):
        if port.name not in of:
            raise EmissionError(f"masters: the program's unit {port.name!r} is not among "
                                f"{sorted(of)}")
        found.append(AxiPort(port.name, of[port.name]))
    return tuple(found)


def texts(name: str, overlay: Overlay, board: Board, ports: tuple[AxiPort, ...],
          rtl: bool = False) -> dict[str, str]:
    """Path to text of every script of the project; with `rtl`, of the Verilog IP too."""
    return {
        "vitis/hls.tcl": hls_tcl(overlay, board), "Makefile": MAKEFILE,
        **({"vivado/package_rtl.tcl": package_rtl_tcl(board)} if rtl else {}),
        "vivado/block_design.tcl": block_design_tcl(overlay, board, ports, rtl),
        "README.md": readme(name, overlay, board, ports),
        "board/run.py": (_SCRIPTS / "run.py").read_text(encoding="utf-8"),
        "board/seal.py": (_SCRIPTS / "seal.py").read_text(encoding="utf-8"),
    }


MAKEFILE = """\
# Builds what needs no vendor tool: the C simulation, and the host layers for the board.
CXX ?= g++
CXXFLAGS ?= -std=c++14 -O2 -Wall -Wextra -Werror
SIMULATION = testbench.cpp scheduler.cpp check.cpp host.cpp
HOST = host.cpp host_library.cpp

# hls or rtl: which IP the block design takes; empty: the one the project was emitted for.
BACKEND ?=

.PHONY: csim host hls ip bitstream clean
csim: build/testbench
\tbuild/testbench data

build/testbench: $(wildcard sources/*)
\tmkdir -p build
\t$(CXX) $(CXXFLAGS) -Isources $(addprefix sources/,$(SIMULATION)) -o $@

host: build/libhost.so
build/libhost.so: $(wildcard sources/*)
\tmkdir -p build
\t$(CXX) $(CXXFLAGS) -Isources -shared -fPIC $(addprefix sources/,$(HOST)) -o $@

ip:
\tmkdir -p build && cd build && vivado -mode batch -source ../vivado/package_rtl.tcl

hls:
\tmkdir -p build && cd build && vitis_hls -f ../vitis/hls.tcl

bitstream:
\tcd build && vivado -mode batch -source ../vivado/block_design.tcl -tclargs $(BACKEND)
\tpython3 board/seal.py build/overlay.bit

clean:
\trm -rf build
"""


def hls_tcl(overlay: Overlay, board: Board) -> str:
    """C simulation, synthesis and export of the top with Vitis HLS."""
    period = 1e9 / overlay.clock_hz
    return f"""\
# Vitis HLS: C simulation, synthesis and IP export of the overlay. Run in build/.
# Not run where it was written; see README.md.
open_project -reset hls
set_top overlay
add_files ../sources/overlay.cpp -cflags "-I../sources -std=c++14"
foreach name {{testbench scheduler check host}} {{
    add_files -tb ../sources/$name.cpp -cflags "-I../sources -std=c++14"
}}
open_solution -reset solution -flow_target vivado
set_part {board.part.name}
create_clock -period {period:.3f} -name default
# 32-bit addresses keep the register map of manifest.json: one 8-byte slot an argument.
config_interface -m_axi_addr64=false -m_axi_max_widen_bitwidth 64
csim_design -argv "[file normalize ../data]"
csynth_design
export_design -format ip_catalog -output overlay_ip.zip
exit
"""


def package_rtl_tcl(board: Board) -> str:
    """Packages rtl/overlay.v as an IP; its buses are found by the names of the ports."""
    return f"""\
# Vivado: packages the Verilog of the overlay as an IP. Run in build/.
# Not run where it was written; see README.md.
create_project -force package package -part {board.part.name}
add_files -norecurse ../rtl/overlay.v
set_property top overlay [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir rtl_ip -vendor cosim -library rtl -taxonomy /UserIP \\
    -import_files -set_current true
set core [ipx::current_core]
set_property version 1.0 $core
# The clock of every bus, then the reset's and the interrupt's kinds.
foreach bus [ipx::get_bus_interfaces -of_objects $core] {{
    if {{[string match *axi* [get_property NAME $bus]]}} {{
        ipx::associate_bus_interfaces -busif [get_property NAME $bus] -clock ap_clk $core
    }}
}}
ipx::infer_bus_interface ap_rst_n xilinx.com:signal:reset_rtl:1.0 $core
ipx::infer_bus_interface interrupt xilinx.com:signal:interrupt_rtl:1.0 $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
exit
"""


def block_design_tcl(overlay: Overlay, board: Board, ports: tuple[AxiPort, ...],
                     rtl: bool = False) -> str:
    """Processing system, clock, memory ports, interrupt and address map in Vivado."""
    used = sorted({port.board_port for port in ports})
    enable = " \\\n    ".join(f"CONFIG.PCW_USE_S_AXI_{name} {{1}}" for name in used)
    lines = [
        "# Vivado: block design, implementation and bitstream for " + board.title + ".",
        "# Not run where it was written; see README.md. Run in build/ after vitis/hls.tcl",
        "# or vivado/package_rtl.tcl; -tclargs hls or rtl says whose IP to take.",
        "set backend [lindex $argv 0]",
        f"if {{$backend eq {{}}}} {{set backend {'rtl' if rtl else 'hls'}}}",
        "set ip(hls) {hls/solution/impl/ip xilinx.com:hls:overlay}",
        "set ip(rtl) {rtl_ip cosim:rtl:overlay}",
        f"create_project -force vivado vivado -part {board.part.name}",
        "set_property ip_repo_paths [lindex $ip($backend) 0] [current_project]",
        "update_ip_catalog",
        "create_bd_design system",
        "set ps [create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps]",
        "apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \\",
        "    -config {make_external \"FIXED_IO, DDR\"} $ps",
        "set_property -dict [list \\",
        f"    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ {{{overlay.clock_hz / 1e6:g}}} \\",
        "    CONFIG.PCW_USE_FABRIC_INTERRUPT {1} CONFIG.PCW_IRQ_F2P_INTR {1} \\",
        f"    {enable}] $ps",
        "set overlay [create_bd_cell -type ip -vlnv [lindex $ip($backend) 1] overlay_0]",
        "set intc [create_bd_cell -type ip -vlnv xilinx.com:ip:axi_intc axi_intc_0]",
        "set reset [create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset_0]",
        "set clock [get_bd_pins ps/FCLK_CLK0]",
        "connect_bd_net $clock [get_bd_pins reset_0/slowest_sync_clk] \\",
        "    [get_bd_pins overlay_0/ap_clk] [get_bd_pins ps/M_AXI_GP0_ACLK]",
        "connect_bd_net [get_bd_pins ps/FCLK_RESET0_N] [get_bd_pins reset_0/ext_reset_in]",
        "connect_bd_net [get_bd_pins reset_0/peripheral_aresetn] "
        "[get_bd_pins overlay_0/ap_rst_n]",
        "# Control port and interrupt controller (which pynq needs) behind GP0.",
        "foreach slave {overlay_0/s_axi_control axi_intc_0/s_axi} {",
        "    apply_bd_automation -rule xilinx.com:bd_rule:axi4 \\",
        "        -config [list Master /ps/M_AXI_GP0 Clk /ps/FCLK_CLK0] "
        "[get_bd_intf_pins $slave]",
        "}",
        "connect_bd_net [get_bd_pins overlay_0/interrupt] [get_bd_pins axi_intc_0/intr]",
        "connect_bd_net [get_bd_pins axi_intc_0/irq] [get_bd_pins ps/IRQ_F2P]",
        "set_property CONFIG.C_IRQ_CONNECTION {1} $intc",
    ]
    for name in used:
        here = [port for port in ports if port.board_port == name]
        join = f"join_{name.lower()}"
        lines += [
            f"# Port {name}: {', '.join(port.name for port in here)}.",
            f"set {join} [create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect {join}]",
            f"set_property -dict [list CONFIG.NUM_SI {{{len(here)}}} CONFIG.NUM_MI {{1}}] "
            f"${join}",
            f"connect_bd_net $clock [get_bd_pins {join}/aclk] [get_bd_pins ps/S_AXI_{name}_ACLK]",
            f"connect_bd_net [get_bd_pins reset_0/peripheral_aresetn] "
            f"[get_bd_pins {join}/aresetn]",
            f"connect_bd_intf_net [get_bd_intf_pins {join}/M00_AXI] "
            f"[get_bd_intf_pins ps/S_AXI_{name}]",
        ]
        lines += [f"connect_bd_intf_net [get_bd_intf_pins overlay_0/m_axi_port_{port.name}] "
                  f"[get_bd_intf_pins {join}/S{index:02d}_AXI]"
                  for index, port in enumerate(here)]
    lines += [
        "assign_bd_address",
        "validate_bd_design",
        "save_bd_design",
        "make_wrapper -files [get_files system.bd] -top -import",
        "set_property top system_wrapper [current_fileset]",
        "launch_runs impl_1 -to_step write_bitstream -jobs 4",
        "wait_on_run impl_1",
        "file copy -force vivado/vivado.runs/impl_1/system_wrapper.bit overlay.bit",
        "file copy -force vivado/vivado.gen/sources_1/bd/system/hw_handoff/system.hwh overlay.hwh",
        "exit",
    ]
    return "\n".join(lines) + "\n"


def readme(name: str, overlay: Overlay, board: Board, ports: tuple[AxiPort, ...]) -> str:
    """What the project is, the exact commands, and what nobody has run yet."""
    notes = ["The skip tile of a fused addition has a memory of its own (SKIP, the size of\n"
             "  OUTPUT): a memory between two processes has one writer and one reader.",
             "HLS C++ cannot count cycles, so this backend has no counters; the RTL has them."]
    for role, what in ((Role.INPUT, "load"), (Role.OUTPUT, "store")):
        if len(overlay.masters_of(role)) > 1:
            notes.append(f"The {len(overlay.masters_of(role))} {role.value} masters share the "
                         f"process `{what}` and take turns; predictions assume they overlap.")
    table = "\n".join(f"| `m_axi_port_{port.name}` | {port.board_port} |" for port in ports)
    unchecked = "\n".join(f"- {item}" for item in UNCHECKED)
    extra = "\n".join(f"- {item}" for item in notes)
    return f"""\
# {name} on the overlay `{overlay.name}`, {board.title}

{overlay.tm} x {overlay.tn} int8 multiply-accumulates a cycle at {overlay.clock_hz / 1e6:g} MHz
(the clock is a wish: the vendor's timing was not run).

| folder | what |
| --- | --- |
| `sources/` | C++ of the fabric (top: `overlay.cpp`), the host layers, the test bench |
| `data/` | descriptors, weights, inputs, expected outputs; `bench.txt` lists them |
| `vitis/`, `vivado/` | Tcl for synthesis and for the block design |
| `board/` | driver (numpy and pynq), `run.py`, `seal.py`, measurement format |
| `manifest.json` | register map, steps of a frame, memory map, SHA-256 of every file |

## Commands
C simulation (g++ only; every value is compared with the reference):

    make csim

Bitstream, with `make ip` for the Verilog of `rtl/`, if it was emitted, or `make hls` for the C++;
`make bitstream BACKEND=rtl` or `BACKEND=hls` says which
(Vitis HLS and Vivado {TOOLS['vitis_hls'].split()[0]} on the path; unchecked here):

    make hls
    make bitstream

`make bitstream` ends with `seal.py`, which writes `bitstream.json`: the driver refuses any other
bitstream. On the board, as root, with this folder and `build/overlay.bit`, `build/overlay.hwh`:

    make host
    python3 board/run.py --bitstream build/overlay.bit --repeats 20 --output measurement.json

On the desk, `cosim validate board --measured measurement.json --project .` sets it beside the
prediction.

## Ports
| master | processor port |
| --- | --- |
{table}

## Where the fabric differs from the simulated program
- Waits on the host become starts: the driver starts the fabric once for each stretch of
  operations between host layers (`steps` in the manifest) and waits for its interrupt.
- Engines share one process. They never work at the same time, since the loads of a layer wait for
  the stores of the layer before it.
{extra}

## Unchecked
{unchecked}
"""
