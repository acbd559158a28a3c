# Vitis HLS: C simulation, synthesis and IP export of the overlay. Run in build/.
# Not run where it was written; see README.md.
source [file join [file dirname [file normalize [info script]]] .. vivado design.tcl]
open_project -reset hls
set_top overlay
add_files ../sources/overlay.cpp -cflags "-I../sources -std=c++14"
foreach name {testbench scheduler check host} {
    add_files -tb ../sources/$name.cpp -cflags "-I../sources -std=c++14"
}
open_solution -reset solution -flow_target vivado
set_part $part
create_clock -period $period_ns -name default
# 32-bit addresses keep the register map of manifest.json: one 8-byte slot an argument.
config_interface -m_axi_addr64=false -m_axi_max_widen_bitwidth 64
csim_design -argv "[file normalize ../data]"
csynth_design
export_design -format ip_catalog -output overlay_ip.zip
exit
