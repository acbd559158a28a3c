# The clock of the overlay where it is synthesized alone (out of context), as design.tcl has it.
# In the block design the processor block brings the constraint of its own clock (clk_fpga_0).
create_clock -name ap_clk -period @PERIOD_NS@ [get_ports ap_clk]
# The reset ends long before the first start, and nobody waits for the interrupt to the cycle.
set_false_path -from [get_ports ap_rst_n]
set_false_path -to [get_ports interrupt]
