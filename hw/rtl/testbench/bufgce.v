// The part's clock buffer with an enable (UG472): the enable is taken while the clock is low.
// It models no delay.
module BUFGCE (input I, input CE, output O);
  reg on;
  always_latch if (!I) on = CE;
  assign O = I & on;
endmodule
