"""The two executors: SimPy says what a Program means, numba does the same fast."""
