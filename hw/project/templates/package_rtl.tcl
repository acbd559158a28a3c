# Vivado: packages the Verilog of the overlay as an IP. Run in build/.
# Its buses are found by the names of the ports. Not run where it was written; see README.md.
set here [file dirname [file normalize [info script]]]
source [file join $here design.tcl]
create_project -force package package -part $part
add_files -norecurse ../rtl/overlay.v
# The clock of the IP synthesized alone; in the block design the processor block has it.
add_files -fileset constrs_1 -norecurse [file join $here overlay_ooc.xdc]
set_property USED_IN {synthesis implementation out_of_context} [get_files overlay_ooc.xdc]
set_property top overlay [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir rtl_ip -vendor cosim -library rtl -taxonomy /UserIP \
    -import_files -set_current true
set core [ipx::current_core]
set_property version 1.0 $core
ipx::infer_bus_interface ap_rst_n xilinx.com:signal:reset_rtl:1.0 $core
ipx::infer_bus_interface interrupt xilinx.com:signal:interrupt_rtl:1.0 $core
set sense [ipx::add_bus_parameter SENSITIVITY [ipx::get_bus_interfaces interrupt -of_objects $core]]
set_property value LEVEL_HIGH $sense
# Every bus has the one clock and the one reset.
foreach bus [ipx::get_bus_interfaces -of_objects $core] {
    if {[string match *axi* [get_property NAME $bus]]} {
        ipx::associate_bus_interfaces -busif [get_property NAME $bus] -clock ap_clk \
            -reset ap_rst_n $core
    }
}
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
exit
