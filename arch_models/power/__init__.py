"""What a design takes: the laws of fabric and DRAM, joules of a stretch of time, limits."""
