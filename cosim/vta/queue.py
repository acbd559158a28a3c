"""The command queue of VTA: instructions as integer rows, and how tokens attach to them.

It does not know what a convolution needs; see `cosim.vta.instructions`.

Fact used (the runtime's `runtime.cc`): a token push is a bit of the last instruction if that one
belongs to the same module, otherwise an empty instruction carries it; a pop goes with the next
instruction of its module.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Module(IntEnum):
    """The modules that run instructions."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2


class Kind(IntEnum):
    """What an instruction does."""

    EMPTY = 0  # only waits and signals
    INPUT = 1
    WEIGHT = 2
    MICRO_OP = 3
    BIAS = 4
    RESET = 5
    GEMM = 6
    ALU = 7
    OUTPUT = 8
    FINISH = 9


class Token(IntEnum):
    """Dependence queues."""

    LOADED = 0  # load -> compute
    CONSUMED = 1  # compute -> load
    COMPUTED = 2  # compute -> store
    STORED = 3  # store -> compute


class Field(IntEnum):
    """Columns of an instruction table (int64)."""

    MODULE = 0
    KIND = 1
    POP = 2  # mask of `Token`
    PUSH = 3
    ADDRESS = 4
    RUN_BYTES = 5
    RUNS = 6
    RUN_STRIDE = 7
    PAD_BLOCKS = 8  # blocks that padding clears on chip
    TRIPS = 9  # block operations of GEMM, RESET and ALU
    MISS_BYTES = 10  # bytes that are not in the processor's cache


#: Source and target of each token.
_MODULE_OF = {Token.LOADED: (Module.LOAD, Module.COMPUTE),
              Token.CONSUMED: (Module.COMPUTE, Module.LOAD),
              Token.COMPUTED: (Module.COMPUTE, Module.STORE),
              Token.STORED: (Module.STORE, Module.COMPUTE)}


class Moved(NamedTuple):
    """What a transfer moves: `runs` of `run_bytes`, `run_stride` apart, from an address on.

    `pad_blocks`: blocks that padding clears on chip. `missing`: share of the bytes that are not in
    the processor's cache.
    """

    address: int = 0
    run_bytes: int = 0
    runs: int = 0
    run_stride: int = 0
    pad_blocks: int = 0
    missing: float = 0.0


NOTHING = Moved()


class Queue:
    """The command queue: attaches tokens to instructions as the runtime does."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.pending = [0, 0, 0]

    def add(self, module: Module, kind: Kind, moved: Moved = NOTHING, trips: int = 0) -> None:
        """Append an instruction; pops that its module waits for go with it."""
        self.rows.append([module, kind, self.pending[module], 0, moved.address, moved.run_bytes,
                          moved.runs, moved.run_stride, moved.pad_blocks, trips,
                          round(moved.missing * moved.run_bytes * moved.runs)])
        self.pending[module] = 0

    def pop(self, token: Token) -> None:
        """The next instruction of the target waits for a token."""
        target = _MODULE_OF[token][1]
        if self.pending[target] >> token & 1:
            self.commit(target)
        self.pending[target] |= 1 << token

    def push(self, token: Token) -> None:
        """The last instruction signals a token, or an empty one does."""
        source = _MODULE_OF[token][0]
        self.commit(source)
        last = self.rows[-1] if self.rows else None
        # An empty instruction never takes a push: the runtime does not know its module.
        if (last is None or last[Field.MODULE] != source or last[Field.KIND] == Kind.EMPTY
                or last[Field.PUSH] >> token & 1):
            self.add(source, Kind.EMPTY)
            last = self.rows[-1]
        last[Field.PUSH] |= 1 << token

    def commit(self, module: Module) -> None:
        """Waits without an instruction get an empty one."""
        if self.pending[module]:
            self.add(module, Kind.EMPTY)
