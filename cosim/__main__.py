"""`python -m cosim`: the command line, as `cosim` runs it.

It parses nothing itself; see `studies.cli`.
"""

from importlib import import_module

if __name__ == "__main__":
    import_module("studies.cli").main()
