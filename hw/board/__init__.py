"""What runs on the board, copied there verbatim: driver, measurement, run."""
