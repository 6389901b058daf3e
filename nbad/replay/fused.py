"""Own the fused kernels: several instructions of a run as one loop, whose intermediate results never leave the processor.

A block program executes a run kernel by kernel, each on a block in the cache. That needs no compilation, but every instruction
loads its operands and stores its result. So consecutive instructions of one dtype are marked as a group, and once
the run has done enough work, the group is compiled to one kernel, which is called in their place. Both give the same
bits: the scalar functions are the same, and nothing is contracted or reordered.

A fused kernel has the signature of a block kernel, ``int64 kernel(int64 n, intp cells, intp places, ...)``: the address of
the cells, and that of the numbers of the cells that it reads and writes.
"""

import hashlib
import threading
from typing import Any

from numba.core import types

from nbad._jit import SOURCE_HASH, cfunc, intrinsic
from nbad.kernels.block import C8, ID, KERNELS, emit_elements, emit_scalar
from nbad.replay.registers import MEMORY, NUMBER, Group, Register

#: Instructions of a group at the most.
_LONGEST = 48

_ON_COMPLEX = frozenset(("copy", "add", "sub", "mul", "neg", "square", "conj", "muladd", "nmuladd"))
#: Block kernels that are a few instructions of the processor.
_SIMPLE = _ON_COMPLEX | frozenset((
    "div", "recip", "sqrt", "abs", "sign", "maximum", "minimum", "fmax", "fmin", "floor", "ceil", "trunc", "rint",
    "copysign", "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not", "isnan", "isfinite", "isinf",
    "signbit", "where",
))  # fmt: skip

_SIGNATURE = types.int64(types.int64, types.intp, types.intp, types.intp, types.intp)
_lock = threading.Lock()
_owners: dict[str, Any] = {}

__all__ = ["ensure_fused", "grouped"]


def _can_join(row: list[Any]) -> bool:
    if row[0] != "kernel":
        return False
    name, code = row[1]
    return name in (_ON_COMPLEX if code >= C8 else _SIMPLE)


def grouped(rows: list[list[Any]], registers: list[Register]) -> tuple[list[list[Any]], dict[int, Group]]:
    """Return the instructions of a run in an order in which those that one kernel can execute stand together.

    Parameters
    ----------
    rows : list of [what, detail, operands, result]
        The instructions.
    registers : list of Register
        What they name.

    Returns
    -------
    rows : list
        Each after what it reads.
    groups : dict of int to Group
        By the position of its first row.
    """
    found: list[list[Any]] = []
    groups: dict[int, list[list[Any]]] = {}
    members: list[list[Any]] = []
    later: list[list[Any]] = []
    inside: set[int] = set()  # what the members make
    behind: set[int] = set()  # what has to wait for them

    def close() -> None:
        if len(members) > 1:
            groups[len(found)] = list(members)
        found.extend(members + later)
        for some in (members, later, inside, behind):
            some.clear()

    for row in rows:
        operands, result = row[2], row[3]
        if _can_join(row):
            other = bool(members) and members[0][1][1] != row[1][1]
            if other or len(members) == _LONGEST or not behind.isdisjoint(operands):
                close()
            members.append(row)
            inside.add(result)
        elif inside.isdisjoint(operands) and behind.isdisjoint(operands):
            found.append(row)
        else:
            later.append(row)
            behind.add(result)
    close()
    return found, {at: _group(group, found[at + len(group) :], registers) for at, group in groups.items()}


def _group(rows: list[list[Any]], rest: list[list[Any]], registers: list[Register]) -> Group:
    """Return what one kernel for some rows is, given all rows that follow."""
    code = rows[0][1][1]
    read_later = {r for row in rest for r in row[2]}
    made = [row[3] for row in rows]
    inputs = list(dict.fromkeys(r for row in rows for r in row[2] if r not in made))
    outputs = [r for r in made if r in read_later or registers[r].where == MEMORY]
    number = {r: k for k, r in enumerate((*inputs, *made))}
    kinds = "".join("n" if registers[r].where == NUMBER else "v" for r in inputs)
    lines = ["{} {}".format(row[1][0], " ".join(str(number[r]) for r in row[2])) for row in rows]
    text = f"{code}:{kinds}:{';'.join(lines)}:{' '.join(str(number[r]) for r in outputs)}"
    return Group(text, len(rows), (*inputs, *outputs))


@intrinsic
def _run_fused(typing_context: Any, text: Any, n: Any, cells: Any, places: Any) -> Any:
    """Run the loop of a fused kernel; the first argument is a literal."""
    head, kinds, lines, last = text.literal_value.split(":")
    code, outputs = int(head), [int(word) for word in last.split()]
    rows = [line.split() for line in lines.split(";")]

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = args[1]
        word = count.type
        cell, place = (builder.inttoptr(address, word.as_pointer()) for address in args[2:])
        addresses = [
            builder.load(builder.gep(cell, [builder.load(builder.gep(place, [word(k)]))]))
            for k in range(len(kinds) + len(outputs))
        ]

        def compute(values: list[Any]) -> list[Any]:
            known = list(values)
            for name, *operands in rows:
                read = [known[int(k)] for k in operands]
                known.append(emit_scalar(context, builder, KERNELS[ID[name]], code, read))
            return [known[k] for k in outputs]

        repeated = [k for k, kind in enumerate(kinds) if kind == "n"]
        sources, targets = addresses[: len(kinds)], addresses[len(kinds) :]
        emit_elements(context, builder, code, count, sources, targets, compute, repeated)
        return context.get_constant(types.int64, 1)

    return types.int64(text, n, cells, places), emit


def _compile(text: str) -> Any:
    # Only a string in the closure: with anything else in it the disk cache never hits.
    def fused(n, cells, places, b, c):
        return _run_fused(text, n, cells, places)

    fused.__qualname__ = f"fused_{hashlib.sha256(text.encode()).hexdigest()[:24]}_{SOURCE_HASH}"
    return cfunc(_SIGNATURE)(fused)


def ensure_fused(text: str) -> int:
    """Return the address of a fused kernel, compiled now if this is the first time it is needed.

    Parameters
    ----------
    text : str
        What it computes, as `grouped` writes it.

    Returns
    -------
    int
        The address.
    """
    with _lock:
        if text not in _owners:
            _owners[text] = _compile(text)
        return int(_owners[text].address)
