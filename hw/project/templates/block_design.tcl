# Vivado: block design, implementation, reports and bitstream. Run in build/ after the IP is there;
# -tclargs hls or rtl says whose IP to take. Not run where it was written; see README.md.
# A build that misses timing leaves no overlay.bit and ends with exit code 1.
set here [file dirname [file normalize [info script]]]
source [file join $here design.tcl]
if {[llength $argv] && [lindex $argv 0] ne {}} {set backend [lindex $argv 0]}

proc fail {message} {
    puts stderr "error: $message"
    exit 1
}

set repositories [dict create hls hls/solution/impl/ip rtl rtl_ip]
set vendors [dict create hls xilinx.com:hls:overlay rtl cosim:rtl:overlay]
if {![dict exists $vendors $backend]} {fail "backend $backend: must be hls or rtl"}
if {![file exists [dict get $repositories $backend]/component.xml]} {
    fail "no IP in build/[dict get $repositories $backend]; run make ip BACKEND=$backend first"
}
file delete overlay.bit overlay.hwh report.json

# Processor with its clock, interrupt and memory ports.
create_project -force vivado vivado -part $part
set_property ip_repo_paths [dict get $repositories $backend] [current_project]
update_ip_catalog
create_bd_design system
set ps [create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps]
apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
    -config {make_external "FIXED_IO, DDR"} $ps
set options [list CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz CONFIG.PCW_EN_CLK0_PORT 1 \
    CONFIG.PCW_EN_RST0_PORT 1 CONFIG.PCW_USE_M_AXI_GP0 1 \
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 CONFIG.PCW_IRQ_F2P_INTR 1]
if {$crystal_mhz > 0} {
    # The dividers that the tool writes into overlay.hwh are those of the board's own PLLs.
    lappend options CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ $crystal_mhz
}
foreach {port kind masters} $ports {
    lappend options CONFIG.PCW_USE_S_AXI_$port 1
    if {$kind eq {hp}} {
        # As after a reset: boot code sets the width of these ports, and a bitstream does not.
        lappend options CONFIG.PCW_S_AXI_${port}_DATA_WIDTH 64
    } else {
        # Coherent: user bits tied to one here, and the masters' CACHE (0011) is cacheable.
        lappend options CONFIG.PCW_USE_DEFAULT_ACP_USER_VAL 1
    }
}
set_property -dict $options $ps
set actual_mhz [get_property CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ $ps]
if {abs($actual_mhz - $clock_mhz) > 0.005 * $clock_mhz} {
    fail "the processor makes $actual_mhz MHz where the design has $clock_mhz; emit a design with a\
        clock that its divisors can make"
}

# Clock and reset: one domain, reset in step with its clock.
set overlay [create_bd_cell -type ip -vlnv [dict get $vendors $backend] overlay_0]
set intc [create_bd_cell -type ip -vlnv xilinx.com:ip:axi_intc axi_intc_0]
create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset reset_0
set clock [get_bd_pins ps/FCLK_CLK0]
set reset [get_bd_pins reset_0/peripheral_aresetn]
connect_bd_net $clock [get_bd_pins reset_0/slowest_sync_clk] [get_bd_pins overlay_0/ap_clk] \
    [get_bd_pins ps/M_AXI_GP0_ACLK]
connect_bd_net [get_bd_pins ps/FCLK_RESET0_N] [get_bd_pins reset_0/ext_reset_in]
connect_bd_net $reset [get_bd_pins overlay_0/ap_rst_n]

# Control port and interrupt controller (which pynq needs) behind GP0.
foreach slave {overlay_0/s_axi_control axi_intc_0/s_axi} {
    apply_bd_automation -rule xilinx.com:bd_rule:axi4 \
        -config [list Master /ps/M_AXI_GP0 Clk /ps/FCLK_CLK0] [get_bd_intf_pins $slave]
}
connect_bd_net [get_bd_pins overlay_0/interrupt] [get_bd_pins axi_intc_0/intr]
connect_bd_net [get_bd_pins axi_intc_0/irq] [get_bd_pins ps/IRQ_F2P]
set_property CONFIG.C_IRQ_CONNECTION 1 $intc

# Memory ports. Protocol and widths are converted by the interconnect.
foreach {port kind masters} $ports {
    set join join_[string tolower $port]
    set cell [create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect $join]
    set_property -dict [list CONFIG.NUM_SI [llength $masters] CONFIG.NUM_MI 1] $cell
    connect_bd_net $clock [get_bd_pins $join/aclk] [get_bd_pins ps/S_AXI_${port}_ACLK]
    connect_bd_net $reset [get_bd_pins $join/aresetn]
    connect_bd_intf_net [get_bd_intf_pins $join/M00_AXI] [get_bd_intf_pins ps/S_AXI_$port]
    set index 0
    foreach master $masters {
        connect_bd_intf_net [get_bd_intf_pins overlay_0/m_axi_port_$master] \
            [get_bd_intf_pins $join/S[format %02d $index]_AXI]
        incr index
    }
}

# Address map: the two slaves where manifest.json has them, DDR for every master.
foreach {slave base} [list overlay_0/s_axi_control $control_base axi_intc_0/s_axi $interrupts_base] {
    assign_bd_address -force -offset $base -range $control_bytes \
        -target_address_space [get_bd_addr_spaces ps/Data] [get_bd_addr_segs $slave/*]
}
assign_bd_address
validate_bd_design
save_bd_design

make_wrapper -files [get_files system.bd] -top -import
set_property top system_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
set run [get_runs impl_1]
if {[get_property PROGRESS $run] ne {100%}} {
    fail "implementation ended at [get_property STATUS $run]; see build/vivado/vivado.runs"
}

# What the tools say of the result; seal.py keeps it with the bitstream.
open_run impl_1
report_timing_summary -file timing.rpt
report_utilization -file utilization.rpt
report_power -file power.rpt
report_drc -file drc.rpt
set lines [list "\"clock_mhz\": $actual_mhz"]
foreach {name property} {wns_ns STATS.WNS tns_ns STATS.TNS whs_ns STATS.WHS ths_ns STATS.THS
        failed_nets STATS.FAILED_NETS} {
    set value [get_property $property $run]
    if {![string is double -strict $value]} {fail "the run does not say its $property"}
    set figures($name) $value
    lappend lines "\"$name\": $value"
}
set file [open report.json w]
puts $file "{[join $lines {, }]}"
close $file
if {$figures(wns_ns) < 0 || $figures(whs_ns) < 0 || $figures(failed_nets) > 0} {
    fail "timing is missed at $actual_mhz MHz: worst slack $figures(wns_ns) ns (setup),\
        $figures(whs_ns) ns (hold), $figures(failed_nets) nets not routed; see build/timing.rpt, and\
        emit a design with a lower clock"
}
puts "timing is met at $actual_mhz MHz: worst slack $figures(wns_ns) ns (setup), $figures(whs_ns) ns (hold)"
file copy -force vivado/vivado.runs/impl_1/system_wrapper.bit overlay.bit
file copy -force vivado/vivado.gen/sources_1/bd/system/hw_handoff/system.hwh overlay.hwh
exit
