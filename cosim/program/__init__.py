"""The Program: a table of integers, its checks, and the result of a run."""
