"""Registers: what the instructions of a run name, and the tables that a run consists of.

Owns the allocation of scratch registers.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: What a virtual register is.
SCRATCH, MEMORY, NUMBER = range(3)


@dataclass(slots=True)
class Register:
    """A virtual register: where its elements are, of which kind (position in `KINDS`)."""

    where: int
    kind: int
    buffer: int = 0
    offset: int = 0
    strides: tuple[int, ...] = ()
    partial: int = -1
    place: int = -1
    last: int = -1


@dataclass(slots=True, frozen=True)
class Group:
    """Instructions that one kernel can execute.

    Attributes
    ----------
    text : str
        What the kernel computes.
    count : int
        How many instructions they are; they follow each other.
    registers : tuple of int
        What the kernel reads, then what it writes.
    """

    text: str
    count: int
    registers: tuple[int, ...]


@dataclass(slots=True)
class Block:
    """The tables of one run.

    Attributes
    ----------
    shape, full : tuple of int
        Iteration space: as parts see it, and as strided loads see it.
    lanes, parts : int
        Elements of a part, number of parts.
    code : list of list of int
        (kernel address or LOAD, FOLD or FUSED, a, b, c, out, extra).
    kernels : list of (str, int, int, str)
        What each address stands for.
    numbers, memory, loads, partials, finals : list of list of int
        (place, buffer, offset, kind, code), (buffer, offset, strides...), (place's buffer, offset, itemsize, bounded, strides,
        first, end), (itemsize), (address, itemsize, buffer, offset).
    groups : list of (int, str, list of int)
        The FUSED row before each group, what its kernel computes, the cells that it reads and writes.
    """

    shape: tuple[int, ...]
    full: tuple[int, ...]
    lanes: int = 0
    parts: int = 0
    places: int = 0
    loaded: int = 0
    width: int = 0
    code: list[list[int]] = field(default_factory=list)
    numbers: list[list[int]] = field(default_factory=list)
    memory: list[list[int]] = field(default_factory=list)
    loads: list[list[int]] = field(default_factory=list)
    partials: list[int] = field(default_factory=list)
    finals: list[list[int]] = field(default_factory=list)
    groups: list[tuple[int, str, list[int]]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def cells(self) -> int:
        """Return the number of cells."""
        return self.places + len(self.memory) + len(self.partials) + self.loaded

    @property
    def partial_bytes(self) -> int:
        """Return the bytes for the sums of the parts."""
        return sum(self.parts * itemsize + 64 for itemsize in self.partials) if self.finals else 0

    @property
    def scratch_bytes(self) -> int:
        """Return the bytes that one thread needs."""
        return 8 * (self.cells + len(self.shape)) + 64 + self.places * self.width


def place_registers(registers: list[Register], rows: list[list[Any]]) -> int:
    """Give each virtual register that needs one a place in the scratch block, reusing places that are dead.

    Parameters
    ----------
    registers : list of Register
        All of them; their `place` is set.
    rows : list of [what, detail, operands, result]
        The instructions; a fold gets a place of its own appended to its detail.

    Returns
    -------
    int
        Number of places.
    """
    for i, row in enumerate(rows):
        for r in row[2]:
            registers[r].last = i
    used = 0
    for register in registers:
        if register.where == NUMBER and register.last >= 0:
            register.place = used
            used += 1
    spare: list[int] = []
    for i, (what, _, operands, result) in enumerate(rows):
        dead = [
            r for r in dict.fromkeys(operands) if registers[r].last == i and registers[r].where == SCRATCH
        ]
        if what == "kernel":  # it may write over an operand that it is the last to read
            spare.extend(registers[r].place for r in dead)
        register = registers[result]
        extra = -1
        if register.where == SCRATCH:
            if spare:
                register.place = spare.pop()
            else:
                register.place = used
                used += 1
            if register.last < 0:
                spare.append(register.place)
        if what == "fold":
            extra = spare.pop() if spare else used
            used += extra == used
            spare.append(extra)
            rows[i][1] = (*rows[i][1], extra)
        if what != "kernel":
            spare.extend(registers[r].place for r in dead)
    return used


def run_row(
    block: Block, table: list[int], partials_at: int, worthwhile: int
) -> tuple[list[int], list[tuple[int, str]]]:
    """Append the tables of a run to `table`.

    Parameters
    ----------
    block : Block
        The run.
    table : list of int
        The table of all runs.
    partials_at : int
        Where in the arena the sums of its parts go.
    worthwhile : int
        Instructions times elements after which its groups are compiled.

    Returns
    -------
    row : list of int
        The run, in the order of the columns of the loop.
    fusible : list of (int, str)
        Where in the table the address of the kernel of each group goes, and what this kernel computes.
    """

    def put(values: Iterable[int]) -> int:
        at = len(table)
        table.extend(int(v) for v in values)
        return at

    def put_rows(rows: list[list[int]]) -> int:
        return put(v for row in rows for v in row)

    for at, _, cells in block.groups:
        block.code[at][1] = put(cells)
    work, code = block.size * len(block.code), put_rows(block.code)
    row = [
        len(block.shape), put(block.shape), len(block.full), put(block.full), block.lanes, block.parts,
        block.places, block.width, code, len(block.code), put_rows(block.numbers), len(block.numbers),
        put_rows(block.memory), len(block.memory), put_rows(block.loads), put(block.partials), len(block.partials),
        put_rows(block.finals), len(block.finals), partials_at, work, block.cells, worthwhile if block.groups else 0,
    ]  # fmt: skip
    width = len(block.code[0])
    return row, [(code + width * at + 3, text) for at, text, _ in block.groups]
