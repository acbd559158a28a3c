# The clock of the overlay where it is synthesized alone (out of context), as design.tcl has it.
# In the block design the processor block brings the constraint of its own clock (clk_fpga_0).
create_clock -name ap_clk -period @PERIOD_NS@ [get_ports ap_clk]
