"""The laws that every operation is tested under.

A test file of a rule family lists its cases and runs the battery over them::

    from laws import Case, laws

    CASES = [Case("sin", np.sin, [((3, 4), -2.0, 2.0)], complex_ok=True, elementwise=True)]
    TestLaws = laws(CASES)

Domains avoid kinks by more than `STEP`; tolerances are not for changing. A law that cannot hold for one case is switched off
there, with the reason: ``off={"second": "..."}``.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import nbad
from nbad import tree
from nbad.activity import Activity
from nbad.engine import Sweep
from nbad.higher import sweep_traced
from nbad.kernels import threads
from nbad.table import TABLE, Op
from nbad.tape import Frozen
from nbad.transforms import Recording
from nbad.wrt import asked_leaves, parse_wrt, signature_of

REAL, COMPLEX = ("f4", "f8"), ("c8", "c16")
WIDE = ("f8", "c16")
WIDER = dict(zip(("f4", "c8"), WIDE, strict=True))
#: Longest step of the finite differences (directions have elements in [-1, 1]).
STEP = 2.0**-7
#: Of |<Jv, w> - <v, J*w>|, relative to the norms; float32 is measured against float64.
TOLERANCE = {"f4": 1e-5, "c8": 1e-5, "f8": 1e-9, "c16": 1e-9}


# Arguments ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Uniform:
    """Numbers between `low` and `high`, in both parts of complex ones unless `real`; ``(shape, low, high)`` for short."""

    shape: tuple[int, ...]
    low: float
    high: float
    real: bool = False

    def __call__(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        numbers = rng.uniform(self.low, self.high, self.shape)
        if dtype.kind != "c":
            return np.asarray(numbers).astype(dtype)
        if self.real:
            return np.asarray(numbers).astype(real_of(dtype))
        return np.asarray(numbers + 1j * rng.uniform(self.low, self.high, self.shape)).astype(dtype)


@dataclass(frozen=True)
class Spaced:
    """Shuffled numbers ``start + i * step``: no two closer than `step`, also under other arguments' broadcasting."""

    shape: tuple[int, ...]
    start: float
    step: float

    def __call__(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        size = int(np.prod(self.shape, dtype=np.int64))
        return np.asarray((self.start + self.step * rng.permutation(size)).reshape(self.shape)).astype(dtype)


@dataclass(frozen=True)
class Booleans:
    """Random truth values."""

    shape: tuple[int, ...]

    def __call__(self, rng: np.random.Generator, dtype: np.dtype[Any]) -> np.ndarray:
        return np.asarray(rng.random(self.shape) < 0.5)


def real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the real dtype of the same precision."""
    return np.zeros(0, dtype).real.dtype


@dataclass(frozen=True, eq=False)
class Case:
    """One use of an operation.

    Attributes
    ----------
    name : str
        Part of the test id.
    function : callable
        Plain NumPy on arrays; returns an array or a container of arrays.
    arguments : sequence, or callable of (rng, dtype)
        One entry per argument: ``(shape, low, high)``, a callable of (rng, dtype), or anything else, which is passed as it is.
        A callable in place of the sequence returns all arguments.
    dtypes : tuple of str, optional
        Default float32 and float64, with `complex_ok` complex64 and complex128 too.
    wrt : tuple of int, optional
        What to differentiate; default every floating or complex array.
    elementwise : bool
        The function takes any shapes that broadcast: laws on sizes and broadcasting apply.
    exact : bool
        The traced value equals NumPy's to the bit; otherwise to rounding (transforms of our own).
    large : sequence, optional
        Arguments with 2**17 elements or so, for the law on threads.
    off : mapping of law to reason
        Laws that do not hold for this case.
    """

    name: str
    function: Callable[..., Any]
    arguments: Sequence[Any] | Callable[[np.random.Generator, np.dtype[Any]], tuple[Any, ...]]
    dtypes: tuple[str, ...] = ()
    complex_ok: bool = False
    wrt: tuple[int, ...] | None = None
    elementwise: bool = False
    exact: bool = True
    large: Sequence[Any] | None = None
    off: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.dtypes:
            object.__setattr__(self, "dtypes", REAL + COMPLEX if self.complex_ok else REAL)
        unknown = set(self.off) - set(LAWS)
        if unknown or not all(self.off.values()):
            raise ValueError(
                f"{self.name}: off= takes a reason for each of {sorted(LAWS)}, not {dict(self.off)}"
            )

    def draw(self, dtype: str, arguments: Any = None) -> tuple[list[Any], tuple[int, ...]]:
        """Return the arguments and the positions asked for; the same ones at each call."""
        given = self.arguments if arguments is None else arguments
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        kind = np.dtype(dtype)
        if callable(given):
            args = list(given(rng, kind))
        else:
            args = [_argument(entry, rng, kind) for entry in given]
        wrt = self.wrt
        if wrt is None:
            wrt = tuple(i for i, x in enumerate(args) if isinstance(x, np.ndarray) and x.dtype.kind in "fc")
        return args, wrt


def _argument(entry: Any, rng: np.random.Generator, dtype: np.dtype[Any]) -> Any:
    if isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[0], tuple):
        entry = Uniform(*entry)
    return entry(rng, dtype) if callable(entry) else entry


def squared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` followed by a square, so that its pullback meets cotangents that depend on the input."""

    def curved(*args: Any) -> Any:
        found = function(*args)
        return tuple(map(np.square, found)) if isinstance(found, tuple) else np.square(found)

    return curved


# Measuring ----------------------------------------------------------------------------------------
def outputs_of(value: Any) -> list[np.ndarray]:
    """Return the leaves of a result as arrays."""
    return [np.asarray(leaf) for leaf in tree.leaves(value)]


def direction(rng: np.random.Generator, like: Any) -> np.ndarray:
    """Return random numbers in [-1, 1] of the shape and dtype of `like`; zeros for integers and booleans."""
    like = np.asarray(like)
    dtype = like.dtype.newbyteorder("=")
    if dtype.kind not in "fc":
        return np.zeros(like.shape)
    numbers = rng.uniform(-1, 1, like.shape)
    return np.asarray(numbers + 1j * rng.uniform(-1, 1, like.shape) if dtype.kind == "c" else numbers).astype(
        dtype
    )


def cotangent_like(value: Any, seed: int = 1) -> Any:
    """Return a random cotangent of the structure of `value`."""
    rng = np.random.default_rng(seed)
    return tree.map_leaves(lambda leaf: direction(rng, leaf), value)


def inner(a: Any, b: Any) -> float:
    """Return the real inner product Re(sum(conj(a) b)) in double precision."""
    wide = np.result_type(a, b, np.float64)
    return float(np.real(np.vdot(np.asarray(a, wide), np.asarray(b, wide))))


def size_of(a: Any) -> float:
    """Return the Euclidean norm in double precision."""
    return inner(a, a) ** 0.5


def widened(args: Sequence[Any]) -> list[Any]:
    """Return the arguments with every floating or complex array in double precision."""
    return [np.asarray(x, np.result_type(x, np.float64)) if is_floating(x) else x for x in args]


def is_floating(x: Any) -> bool:
    """Return whether `x` is an array that can be differentiated."""
    return isinstance(x, np.ndarray) and x.dtype.kind in "fc"


def derivative(function: Callable[..., Any], args: Sequence[Any], at: int, v: np.ndarray) -> list[np.ndarray]:
    """Return the derivative of the outputs along `v` in argument `at`: central differences, extrapolated twice."""

    def central(h: float) -> list[np.ndarray]:
        found = []
        for sign in (h, -h):
            moved = list(args)
            moved[at] = args[at] + sign * v
            found.append(outputs_of(function(*moved)))
        return [
            (up - down) / (2 * h) if up.dtype.kind in "fc" else up * 0.0
            for up, down in zip(*found, strict=True)
        ]

    result = []
    for a, b, c in zip(central(STEP), central(STEP / 2), central(STEP / 4), strict=True):
        ab, bc = (4 * b - a) / 3, (4 * c - b) / 3
        result.append((16 * bc - ab) / 15)
    return result


def gradient(
    function: Callable[..., Any], args: Sequence[Any], wrt: tuple[int, ...], w: Any = None
) -> tuple[Any, list[Any]]:
    """Return the value and the cotangents of the arguments `wrt`, for the output cotangent `w` (or a random one)."""
    value, pullback = nbad.vjp(function, *args, wrt=tuple((k,) for k in wrt))
    return value, list(pullback(cotangent_like(value) if w is None else w))


def check_adjoint(
    function: Callable[..., Any], args: list[Any], wrt: tuple[int, ...], tolerance: float
) -> None:
    """Assert <J v, w> = <v, J* w> for each argument in `wrt`, with J v from finite differences in double precision."""
    value, cotangents = gradient(function, args, wrt)
    w = outputs_of(cotangent_like(value))
    rng = np.random.default_rng(2)
    wide = widened(args)
    for k, cotangent in zip(wrt, cotangents, strict=True):
        v = direction(rng, wide[k])
        tangent = derivative(function, wide, k, v)
        left = sum(inner(t, c) for t, c in zip(tangent, w, strict=True))
        right = inner(v, cotangent)
        scale = sum(size_of(t) * size_of(c) for t, c in zip(tangent, w, strict=True)) + size_of(v) * size_of(
            cotangent
        )
        assert abs(left - right) <= tolerance * scale, (
            f"argument {k}: <Jv, w> = {left!r}, <v, J*w> = {right!r}, scale {scale!r}"
        )


def assert_close(found: Any, expected: Any, ulps: float, what: str) -> None:
    """Assert equality to `ulps` units in the last place of each element, and a quarter of that of the largest one."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    eps = np.finfo(expected.dtype).eps
    modulus = np.abs(expected)
    finite = modulus[np.isfinite(modulus)]
    room = ulps * eps * (modulus + 0.25 * finite.max(initial=0))
    with np.errstate(invalid="ignore"):
        wrong = ~(
            (np.abs(found - expected) <= room) | (found == expected) | (np.isnan(found) & np.isnan(expected))
        )
    assert not wrong.any(), f"{what}: {found[wrong][:3]} is not {expected[wrong][:3]}"


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two arrays are equal in dtype, shape and every bit."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# Looking into a tape ------------------------------------------------------------------------------
class Taped:
    """One recorded call, ready to be swept by either sweep."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], wrt: tuple[int, ...]) -> None:
        asked = parse_wrt(tuple((k,) for k in wrt), signature_of(function), tuple(args), {})
        listed, _ = asked_leaves(asked)
        self.count = len(listed)
        recording = Recording(function, asked, listed, has_aux=False, name="vjp")
        self.frozen: Frozen
        self.activity: Activity
        self.frozen, self.activity = recording.freeze()
        self.value = recording.value
        self.outputs = recording.own_outputs()

    def seeds(self) -> dict[int, np.ndarray]:
        """Return random cotangents of the outputs, those of `cotangent_like`."""
        found: dict[int, np.ndarray] = {}
        for slot, w in zip(self.outputs, tree.leaves(cotangent_like(self.value)), strict=True):
            if slot is not None:
                found[slot] = found[slot] + w if slot in found else w
        return found

    def sweep(self) -> list[np.ndarray]:
        """Return the cotangents of the inputs from the engine."""
        return Sweep(self.frozen, self.activity).run(self.seeds(), range(self.count))

    def sweep_by_rules(self) -> list[np.ndarray]:
        """Return the cotangents of the inputs from the rules alone."""
        return sweep_traced(self.frozen, self.activity, self.seeds(), range(self.count))

    def op(self, node: int) -> Op:
        """Return the row of `node`."""
        return TABLE[self.frozen.op[node]]

    def needed(self, asked: frozenset[int]) -> Iterator[tuple[int, int]]:
        """Yield (node, operand position) of every pullback that inputs `asked` need, decided anew, in plain Python."""
        frozen = self.frozen
        depends: list[bool] = [slot in asked for slot in range(frozen.slots)]
        reaches: list[bool] = [slot in self.outputs for slot in range(frozen.slots)]
        for node in range(frozen.nodes):
            edges = enumerate(frozen.edges(node))
            if any(
                slot >= 0 and depends[slot] and self.op(node).pullback_of(k) is not None for k, slot in edges
            ):
                for i in range(self.op(node).outputs):
                    depends[frozen.out_start[node] + i] = True
        for node in range(frozen.nodes - 1, -1, -1):
            out = frozen.out_start[node]
            if not any(reaches[out + i] for i in range(self.op(node).outputs)):
                continue
            for k, slot in enumerate(frozen.edges(node)):
                if slot >= 0 and depends[slot] and self.op(node).pullback_of(k) is not None:
                    reaches[slot] = True
                    yield node, k

    def rules(self, asked: frozenset[int]) -> "Counter[tuple[str, str]]":
        """Return which pullbacks must run for inputs `asked`, as `Report.rules_run` counts them."""
        found: Counter[tuple[str, str]] = Counter()
        for node, k in self.needed(asked):
            op = self.op(node)
            found[op.name, op.operands[0 if op.variadic else k]] += 1
        return found

    def read(self) -> set[int]:
        """Return the slots that a needed pullback reads."""
        found: set[int] = set()
        for node, k in self.needed(frozenset(range(self.count))):
            op = self.op(node)
            edges, out = self.frozen.edges(node), int(self.frozen.out_start[node])
            pullback = op.pullback_of(k)
            assert pullback is not None
            todo = list(pullback.reads)
            while todo:
                read = todo.pop()
                if read.kind == "operand":
                    found.add(edges[read.index])
                elif read.kind == "operands":
                    found.update(edges)
                elif read.kind == "others":
                    found.update(slot for j, slot in enumerate(edges) if j != k)
                elif read.kind == "y":
                    found.update(range(out, out + op.outputs))
                elif read.kind == "shared" and op.shared[read.index].at_forward:
                    found.add(out + op.outputs + op.hidden.index(read.index))
                elif read.kind == "shared":
                    todo.extend(op.shared[read.index].reads)
        return found


# The laws -----------------------------------------------------------------------------------------
def law_value(case: Case, dtype: str) -> None:
    """The traced value is NumPy's, in value, dtype and shape."""
    args, wrt = case.draw(dtype)
    expected = case.function(*args)
    value, _ = nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
    assert tree.structure(value) == tree.structure(expected)
    for found, right in zip(tree.leaves(value), tree.leaves(expected), strict=True):
        assert type(found) is type(right)
        assert np.shape(found) == np.shape(right)
        assert np.asarray(found).dtype == np.asarray(right).dtype
        if case.exact or np.asarray(right).dtype.kind not in "fc":
            assert same_bits(found, right), f"{found} is not {right}"
        else:
            assert_close(found, right, 64, "value")


def check_single(function: Callable[..., Any], args: list[Any], wrt: tuple[int, ...], dtype: str) -> None:
    """Assert that cotangents in single precision are those in double precision, which finite differences judge."""
    value, found = gradient(function, args, wrt)
    w = tree.map_leaves(lambda c: c.astype(np.result_type(c, np.float64)), cotangent_like(value))
    _, expected = gradient(function, widened(args), wrt, w)
    for k, one, two in zip(wrt, found, expected, strict=True):
        assert (one.shape, one.dtype) == (args[k].shape, args[k].dtype)
        assert size_of(one - two) <= TOLERANCE[dtype] * (size_of(one) + size_of(two)), f"argument {k}"


def law_adjoint(case: Case, dtype: str) -> None:
    """<J v, w> = <v, J* w>."""
    args, wrt = case.draw(dtype)
    if dtype in WIDER and WIDER[dtype] in case.dtypes:
        check_single(case.function, args, wrt, dtype)
        return
    check_adjoint(case.function, args, wrt, TOLERANCE[dtype])


def law_second(case: Case, dtype: str) -> None:
    """The gradient of the gradient is the adjoint of the gradient's derivative."""
    args, wrt = case.draw(dtype)
    w = cotangent_like(case.function(*args))

    def first(*args: Any) -> Any:
        value, pullback = nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
        return pullback(
            tree.rebuild(
                value, [c.astype(x.dtype) if x.dtype.kind in "fc" else c for c, x in _pairs(w, value)]
            )
        )

    if dtype in WIDER and WIDER[dtype] in case.dtypes:
        check_single(first, args, wrt, dtype)
        return
    value, cotangents = gradient(first, args, wrt)
    w2 = outputs_of(cotangent_like(value))
    rng = np.random.default_rng(3)
    wide = widened(args)
    flat = outputs_of(first(*wide))
    for k, cotangent in zip(wrt, cotangents, strict=True):
        assert (cotangent.shape, cotangent.dtype) == (args[k].shape, args[k].dtype)
        v = direction(rng, wide[k])
        tangent = derivative(first, wide, k, v)
        left = sum(inner(t, c) for t, c in zip(tangent, w2, strict=True))
        right = inner(v, cotangent)
        # The first gradient's own size counts: its rounding is what the differences see of a linear function.
        scale = sum((size_of(t) + size_of(f)) * size_of(c) for t, f, c in zip(tangent, flat, w2, strict=True))
        scale += size_of(v) * size_of(cotangent)
        assert abs(left - right) <= TOLERANCE[dtype] * scale, (
            f"argument {k}: {left!r} by differences, {right!r} by nested vjp"
        )


def _pairs(w: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    return zip(
        tree.leaves(w), (x if hasattr(x, "dtype") else np.asarray(x) for x in tree.leaves(value)), strict=True
    )


def law_jitted(case: Case, dtype: str) -> None:
    """The engine computes what the rules say."""
    args, wrt = case.draw(dtype)
    taped = Taped(case.function, args, wrt)
    for k, found, expected in zip(wrt, taped.sweep(), taped.sweep_by_rules(), strict=True):
        assert found.dtype == expected.dtype
        assert_close(found, expected, 32, f"argument {k}")


def law_masked(case: Case, dtype: str) -> None:
    """What is not asked for is not computed, and changes nothing for the rest."""
    args, wrt = case.draw(dtype)
    full = Taped(case.function, args, wrt)
    everything = full.sweep()
    for left_out in range(len(wrt)):
        places = [place for place in range(len(wrt)) if place != left_out]
        if not places:
            break
        rest = tuple(wrt[place] for place in places)
        with nbad.report() as account:
            _, cotangents = gradient(case.function, args, rest)
        expected = full.rules(frozenset(places))
        assert account.rules_run == expected, f"without argument {wrt[left_out]}"
        for place, cotangent in zip(places, cotangents, strict=True):
            assert same_bits(cotangent, everything[place]), (
                f"argument {wrt[place]} without argument {wrt[left_out]}"
            )
    with nbad.report() as account:
        gradient(case.function, args, wrt)
    assert account.rules_run == full.rules(frozenset(range(len(wrt))))
    assert sum(account.rules_run.values()) > 0


def law_poison(case: Case, dtype: str) -> None:
    """What no needed pullback reads is not kept, and may be lost."""
    args, wrt = case.draw(dtype)
    subsets = {wrt, *((k,) for k in wrt)}
    for asked in subsets:
        expected = Taped(case.function, args, asked).sweep()
        own = [x.copy() if isinstance(x, np.ndarray) else x for x in args]
        taped = Taped(case.function, own, asked)
        frozen, objects = taped.frozen, taped.frozen.tape.objects
        read = taped.read()
        for slot in range(frozen.slots):
            if slot not in read:
                assert objects[slot] is None and frozen.ref[slot] == 0, f"slot {slot} is kept and never read"
        kept = [value for value in objects if isinstance(value, np.ndarray)]
        for array in (*own, *tree.leaves(taped.value)):
            if (
                is_floating(array)
                and not any(np.may_share_memory(array, other) for other in kept)
                and array.flags.writeable
            ):
                array[...] = np.nan
        for k, cotangent, right in zip(asked, taped.sweep(), expected, strict=True):
            assert same_bits(cotangent, right), f"argument {k} asked for in {asked}"


def law_results(case: Case, dtype: str) -> None:
    """A cotangent has its operand's shape and dtype, is writable and shares memory with nothing."""
    args, wrt = case.draw(dtype)
    value, pullback = nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
    w = cotangent_like(value)
    first, second = pullback(w), pullback(w)
    others = [x for x in (*args, *tree.leaves(value), *tree.leaves(w)) if isinstance(x, np.ndarray)]
    for k, cotangent, again in zip(wrt, first, second, strict=True):
        assert type(cotangent) is np.ndarray
        assert (cotangent.shape, cotangent.dtype) == (args[k].shape, args[k].dtype)
        assert cotangent.flags.writeable and cotangent.flags.c_contiguous
        assert same_bits(cotangent, again), f"argument {k}: the second call of the pullback differs"
        for other in (*others, *second, *(c for c in first if c is not cotangent)):
            assert not np.may_share_memory(cotangent, other), f"argument {k}: the cotangent shares memory"


def law_inputs(case: Case, dtype: str) -> None:
    """Neither inputs nor cotangents nor values are written to; a read-only array is no obstacle."""
    args, wrt = case.draw(dtype)
    expected = gradient(case.function, args, wrt)[1]
    arrays = [x for x in args if isinstance(x, np.ndarray)]
    before = [x.tobytes() for x in arrays]
    for x in arrays:
        x.setflags(write=False)
    value, pullback = nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
    w = cotangent_like(value)
    leaves = [x for x in (*tree.leaves(value), *tree.leaves(w)) if isinstance(x, np.ndarray)]
    later = [x.tobytes() for x in leaves]
    for k, cotangent, right in zip(wrt, pullback(w), expected, strict=True):
        assert same_bits(cotangent, right), f"argument {k}"
        assert cotangent.flags.writeable
    assert [x.tobytes() for x in arrays] == before
    assert [x.tobytes() for x in leaves] == later


def _strided(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x


def _reversed(x: np.ndarray) -> np.ndarray:
    return np.flip(np.ascontiguousarray(np.flip(x))) if x.ndim else x


def _swapped(x: np.ndarray) -> np.ndarray:
    return x.astype(x.dtype.newbyteorder(">"))


def fortran_order(x):
    """Return x in Fortran order; a 0-d array stays one, which np.asfortranarray does not promise."""
    return np.asarray(x, order="F")


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": _strided,
    "negative strides": _reversed,
    "Fortran order": fortran_order,
    "big-endian": _swapped,
}


def law_layouts(case: Case, dtype: str) -> None:
    """The layout of inputs and cotangents in memory does not matter."""
    args, wrt = case.draw(dtype)
    value, expected = gradient(case.function, args, wrt)
    w = cotangent_like(value)
    for name, change in LAYOUTS.items():
        changed = [change(x) if isinstance(x, np.ndarray) else x for x in args]
        for given in (w, tree.map_leaves(change, w)):
            _, found = gradient(case.function, changed, wrt, given)
            for k, cotangent, right in zip(wrt, found, expected, strict=True):
                assert cotangent.dtype.newbyteorder("=") == right.dtype
                assert_close(cotangent.astype(right.dtype), right, 64, f"{name}, argument {k}")


def law_sizes(case: Case, dtype: str) -> None:
    """Arrays without elements and without dimensions are arrays."""
    args, wrt = case.draw(dtype)
    for empty in ((0,), (0, 3), (3, 0)):
        none = [np.zeros(empty, x.dtype) if isinstance(x, np.ndarray) else x for x in args]
        value, cotangents = gradient(case.function, none, wrt)
        assert all(leaf.shape == empty for leaf in outputs_of(value))
        assert [(c.shape, c.dtype) for c in cotangents] == [(empty, args[k].dtype) for k in wrt]
    single = [np.asarray(x.reshape(-1)[0]) if isinstance(x, np.ndarray) else x for x in args]
    _, cotangents = gradient(case.function, single, wrt)
    assert [(c.shape, c.dtype) for c in cotangents] == [((), args[k].dtype) for k in wrt]
    check_adjoint(case.function, single, wrt, TOLERANCE[dtype])
    one = [x.reshape(-1)[:1].reshape(1, 1, 1) if isinstance(x, np.ndarray) else x for x in args]
    check_adjoint(case.function, one, wrt, TOLERANCE[dtype])


def _whole(x: np.ndarray) -> np.ndarray:
    return x


def _column(x: np.ndarray) -> np.ndarray:
    return x[:, :1]


def _row(x: np.ndarray) -> np.ndarray:
    return x[0]


def _number(x: np.ndarray) -> np.ndarray:
    return np.asarray(x[0, 0])


def law_broadcast(case: Case, dtype: str) -> None:
    """A cotangent is summed over the dimensions along which its operand was broadcast."""
    args, wrt = case.draw(dtype)
    for parts in (
        (_whole, _row, _column),
        (_column, _row, _whole),
        (_number, _whole, _column),
        (_row, _number, _number),
    ):
        for turn in range(2):
            shapes = parts if turn == 0 else (parts[1], parts[0], parts[2])
            changed = [shapes[i % 3](x) if isinstance(x, np.ndarray) else x for i, x in enumerate(args)]
            _, cotangents = gradient(case.function, changed, wrt)
            assert [c.shape for c in cotangents] == [changed[k].shape for k in wrt]
            check_adjoint(case.function, changed, wrt, TOLERANCE[dtype])


def law_threads(case: Case, dtype: str) -> None:
    """One thread and two give the same bits, value and gradient."""
    args, wrt = case.draw(dtype, case.large)
    before = threads.get_threads()
    found = []
    try:
        for count in (1, 2):
            threads.set_threads(count)
            value, cotangents = gradient(case.function, args, wrt)
            found.append([*tree.leaves(value), *cotangents])
    finally:
        threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        assert same_bits(one, two)


#: Name, function, and whether it runs at every dtype or only in double precision.
LAWS: dict[str, tuple[Callable[[Case, str], None], bool]] = {
    "value": (law_value, True),
    "adjoint": (law_adjoint, True),
    "second": (law_second, True),
    "jitted": (law_jitted, True),
    "results": (law_results, True),
    "masked": (law_masked, False),
    "poison": (law_poison, False),
    "inputs": (law_inputs, False),
    "layouts": (law_layouts, False),
    "sizes": (law_sizes, False),
    "broadcast": (law_broadcast, False),
    "threads": (law_threads, False),
}


def applies(law: str, case: Case) -> bool:
    """Return whether `law` says anything about `case`."""
    if law in case.off:
        return False
    if law == "threads":
        return case.large is not None
    if law == "sizes":
        return case.elementwise
    if law == "broadcast":
        return (
            case.elementwise
            and sum(isinstance(x, np.ndarray) and x.ndim == 2 for x in case.draw(case.dtypes[0])[0]) > 1
        )
    return True


def laws(cases: Sequence[Case]) -> type:
    """Return a test class with one test per law, over `cases` and their dtypes."""
    names = [case.name for case in cases]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two cases of one name: {twice}")
    members: dict[str, Any] = {}
    for law, (function, every) in LAWS.items():
        found = [
            pytest.param(case, _dtypes(case, every), id=case.name) for case in cases if applies(law, case)
        ]
        if found:
            members[f"test_{law}"] = pytest.mark.parametrize(("case", "dtypes"), found)(_test(function))
    return type("TestLaws", (), members)


def _dtypes(case: Case, every: bool) -> tuple[str, ...]:
    """Return the dtypes at which a law is tested."""
    wide = tuple(dtype for dtype in case.dtypes if dtype in WIDE)
    return case.dtypes if every or not wide else wide


def _test(function: Callable[[Case, str], None]) -> Any:
    def test(self: Any, case: Case, dtypes: tuple[str, ...]) -> None:
        for dtype in dtypes:  # in one test: there are tens of thousands, and pytest takes its time for each
            try:
                function(case, dtype)
            except BaseException as error:
                error.add_note(f"{case.name}, {dtype}")
                raise

    test.__doc__ = function.__doc__
    return test
