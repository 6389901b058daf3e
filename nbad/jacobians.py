"""Whole matrices of derivatives: jacobian and hessian.

Owns the choice between rows and columns, the shapes of blocks, and the rules for complex numbers. The products that fill the
matrices come from one recording (`nbad.recorded`); those of sparse matrices from `nbad.sparse_matrices`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nbad import tree
from nbad.batched import SMALL
from nbad.errors import InputTypeError
from nbad.methods import user_line
from nbad.recorded import Recorded, Replayed, one_by_one, record, run_plainly, zeros_like
from nbad.sparse_matrices import Colors, dtype_of, refuse_traced, sparse_hessian, sparse_jacobian, split
from nbad.trace import cast, is_traced, underlying
from nbad.transforms import gradient_of, hook_of, like, packed, read_wrt
from nbad.wrt import Asked, Leaf, signature_of

__all__ = ["hessian", "jacobian"]

#: A column costs about as much as this many rows: it is a sweep over a sweep, which is recorded first (measured: 1.05 to 1.4).
COLUMN_COST = 1.25


def jacobian(
    function: Callable[..., Any],
    wrt: Any = 0,
    *,
    sparse: bool = False,
    holomorphic: bool = False,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Return a function that computes the Jacobian of `function`.

    Parameters
    ----------
    function : callable
        Returns an array, a number or a container of these.
    wrt : int, str or tuple
        As in `value_and_grad`.
    sparse : bool
        Find the pattern of the matrix from what was recorded, and return ``scipy.sparse.csr_array`` of shape
        ``(output.size, input.size)``; needs SciPy.
    holomorphic : bool
        The function is complex differentiable in complex inputs; the result is dy/dz. This is checked in one direction.
    has_aux : bool
        The function returns ``(output, aux)``; the result is then ``(jacobian, aux)``.

    Returns
    -------
    callable
        Takes the arguments of `function`. Returns the container of the output; in the place of each leaf of it stands what
        `wrt` asks for, and in the place of each leaf of that an array of shape ``output.shape + input.shape``, of the dtype
        of the input (complex for complex outputs). For a scalar output this is the gradient.

    Raises
    ------
    InputTypeError
        If an input or output leaf is not of floating or complex dtype; for complex inputs without `holomorphic`; if a
        function that is said to be holomorphic is not.
    WrtError
        If `wrt` names nothing.

    Notes
    -----
    The function runs once. Rows (one cotangent for each number in the output) or columns (one for each number in the input)
    are computed over that one recording, whichever is cheaper, those of small arrays many at once; an output that does not
    depend on an input costs nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> nbad.jacobian(lambda x: x[1:] * x[:-1])(np.array([1.0, 2.0, 3.0]))
    array([[2., 1., 0.],
           [0., 3., 2.]])
    """
    colors = Colors()

    @functools.wraps(function, updated=())
    def matrix(*args: Any, **kwargs: Any) -> Any:
        # The pattern is read from a tape, so a compiled function is recorded for it rather than replayed.
        replay = not sparse and _is_replayed(function, args, kwargs)
        run = record("jacobian", function, args, kwargs, wrt, has_aux=has_aux, replay=replay)
        _check_kinds(run, holomorphic)
        blocks = _sparse(run, holomorphic, colors) if sparse else _dense(run, holomorphic)
        rows = [packed(run.asked, run.indices, row) for row in blocks]
        answer = tree.rebuild(run.value, rows)
        return (answer, run.aux) if has_aux else answer

    return matrix


def hessian(function: Callable[..., Any], wrt: Any = 0, *, sparse: bool = False) -> Callable[..., Any]:
    """Return a function that computes the Hessian of `function`.

    Parameters
    ----------
    function : callable
        Returns one real number.
    wrt : int, str or tuple
        As in `value_and_grad`. Blocks of what is not asked for are not computed.
    sparse : bool
        As in `jacobian`; the products needed are then fewer, since the matrix is symmetric.

    Returns
    -------
    callable
        Takes the arguments of `function`. Returns what `wrt` asks for, with what `wrt` asks for again in the place of each
        leaf, and in the place of each leaf of that an array of shape ``row.shape + column.shape``: for one array one
        array, for two arguments a tuple of two tuples of blocks. The matrix is symmetric to the bit.

    Raises
    ------
    NonScalarOutputError, WrtError
        As in `value_and_grad`.
    InputTypeError
        If an asked-for leaf is complex or has no derivative.

    Notes
    -----
    The gradient is recorded once and pulled back once for each number in the input; a block below the diagonal is the
    transpose of the one above it.

    Examples
    --------
    >>> import numpy as np
    >>> import nbad
    >>> nbad.hessian(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    signature = signature_of(function)
    colors = Colors()

    @functools.wraps(function, updated=())
    def matrix(*args: Any, **kwargs: Any) -> Any:
        asked, listed, indices = read_wrt("hessian", wrt, signature, args, kwargs)
        for leaf in listed:
            if np.iscomplexobj(underlying(leaf.value)):
                raise InputTypeError(
                    f"hessian: {leaf.text} is complex, and the derivative of a gradient is then no complex matrix",
                    at=user_line(),
                    fix="Use nbad.hvp, or take the real and imaginary parts as real numbers with nbad.ravel.",
                )
        if sparse:
            refuse_traced("hessian", listed)
            run = _gradient(function, asked, listed)
            inputs = [zeros_like(leaf.value) for leaf in listed]
            blocks = split(sparse_hessian(run, colors), inputs, inputs)
        else:
            make = _Product if _is_replayed(function, args, kwargs) else _gradient
            blocks = _symmetric(make(function, asked, listed), listed)
        return packed(asked, indices, [packed(asked, indices, row) for row in blocks])

    return matrix


def _is_replayed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether products come from replays: of a compiled function with large inputs, or one without its source."""
    if hook_of(function) is None:
        return False
    # The rows of small arrays are pulled many at once, which only a new recording can do.
    large = any(np.size(underlying(leaf)) > SMALL for leaf in tree.leaves((args, kwargs)))
    return large or getattr(function, "function", None) is None


class _Product:
    """Products with the Hessian of a compiled function: each is a replay of its `hvp`."""

    batch = 1

    def __init__(self, function: Callable[..., Any], asked: Asked, listed: list[Leaf]) -> None:
        self._call = hook_of(function)("hvp", wrt=_places(listed))
        self._asked = asked
        self._blank = [zeros_like(leaf.value) for leaf in listed]

    def pull(self, seeds: dict[int, Any], wanted: list[int]) -> list[Any]:
        direction = tuple(seeds.get(i, zeros) for i, zeros in enumerate(self._blank))
        answer = self._call(*self._asked.args, direction, **self._asked.kwargs)
        return [answer[i] for i in wanted]

    def pull_many(self, seeds: dict[int, Any], wanted: list[int]) -> list[Any]:
        return one_by_one(self.pull, seeds, wanted)


def _places(listed: list[Leaf]) -> tuple[Any, ...]:
    """Return the `wrt` that asks for each leaf by itself."""
    return tuple((leaf.argument, *leaf.path) for leaf in listed)


def _gradient(function: Callable[..., Any], asked: Asked, listed: list[Leaf]) -> Recorded:
    """Record the gradient, a tuple with one entry for each leaf; nobody gets a turn before its last pullback."""
    places = _places(listed)
    both = gradient_of(run_plainly(function), places, False, "hessian")

    @functools.wraps(function, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    run = Recorded("hessian", gradient, asked.args, asked.kwargs, places)
    run.settle()
    return run


class _Rows:
    """Equally shaped arrays, plain or traced, that come a few at a time and become one array with one more axis in front."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._plain = np.zeros((count, *shape), dtype)
        self._traced: dict[int, Any] = {}

    def put(self, start: int, rows: Any) -> None:
        if is_traced(rows):
            self._traced[start] = cast(rows, self._plain.dtype)
        else:
            self._plain[start : start + len(rows)] = rows

    def joined(self) -> Any:
        """Return the array."""
        if not self._traced:
            return self._plain
        parts = []
        done = 0
        for start, rows in self._traced.items():
            parts += [self._plain[done:start], rows]
            done = start + len(rows)
        return np.concatenate([*parts, self._plain[done:]])


def units_of(zeros: np.ndarray, batch: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (place, arrays like `zeros` with a one at this place and those that follow it, in C order)."""
    for start in range(0, zeros.size, batch):
        count = min(batch, zeros.size - start)
        units = np.zeros((count, zeros.size), zeros.dtype)
        units[np.arange(count), np.arange(start, start + count)] = 1
        yield start, units.reshape((count, *zeros.shape))


def _symmetric(product: Recorded | _Product, listed: list[Leaf]) -> list[list[Any]]:
    """Return the blocks of the Hessian of each pair of leaves; products fill rows from the diagonal block on."""
    zeros = [zeros_like(leaf.value) for leaf in listed]
    blocks: list[list[Any]] = [[None] * len(zeros) for _ in zeros]
    for i, x in enumerate(zeros):
        wanted = list(range(i, len(zeros)))
        rows = [_Rows(x.size, zeros[j].shape, zeros[j].dtype) for j in wanted]
        for start, units in units_of(x, product.batch):
            for into, found in zip(rows, product.pull_many({i: units}, wanted), strict=True):
                into.put(start, found)
        for j, into in zip(wanted, rows, strict=True):
            y = zeros[j]
            block = np.reshape(into.joined(), (x.size, y.size))
            if j == i:  # symmetric to the bit
                block = np.where(np.tri(x.size, k=-1, dtype=bool), np.transpose(block), block)
            blocks[j][i] = _finished(np.transpose(block).copy(), y, x, listed[j])
            blocks[i][j] = _finished(block, x, y, listed[i])
    return blocks


def _finished(block: Any, output: np.ndarray, leaf: np.ndarray, model: Leaf) -> Any:
    """Return a matrix in the shape of the output and then that of the input; a number where both are numbers."""
    block = np.reshape(block, output.shape + leaf.shape)
    if block.ndim:
        return block if is_traced(block) else np.ascontiguousarray(block)
    return like(block, model.value if block.dtype == leaf.dtype else block.dtype.type(0))


def _dense(run: Recorded | Replayed, holomorphic: bool) -> list[list[Any]]:
    """Return the blocks of the Jacobian: for each output leaf one for each asked-for leaf."""
    run.settle()
    outputs = [zeros_like(leaf) for leaf in run.outputs]
    inputs = [zeros_like(leaf.value) for leaf in run.listed]
    twofold = [y.dtype.kind == "c" and not holomorphic for y in outputs]
    sweeps = sum(outputs[i].size * (1 + twofold[i]) for i in run.live)
    if sweeps <= COLUMN_COST * sum(x.size for x in inputs):
        matrices = _by_rows(run, outputs, inputs, holomorphic)
    else:
        matrices = _by_columns(run, outputs, inputs)
    return [
        [_finished(block, y, x, leaf) for block, x, leaf in zip(row, inputs, run.listed, strict=True)]
        for y, row in zip(outputs, matrices, strict=True)
    ]


def _sparse(run: Recorded | Replayed, holomorphic: bool, colors: Colors) -> list[list[Any]]:
    """Return the blocks of the Jacobian as sparse matrices."""
    assert isinstance(run, Recorded)
    refuse_traced("jacobian", run.listed)
    run.settle()

    def rows_of(seeds: dict[int, Any]) -> list[Any]:
        return _pulled(run.pull, seeds, list(range(len(run.listed))), holomorphic)

    whole = sparse_jacobian(run, colors, rows_of, COLUMN_COST)
    outputs = [zeros_like(leaf) for leaf in run.outputs]
    return split(whole, outputs, [zeros_like(leaf.value) for leaf in run.listed])


def _pulled(
    pull: Callable[[dict[int, Any], list[int]], list[Any]],
    seeds: dict[int, Any],
    wanted: list[int],
    holomorphic: bool,
) -> list[Any]:
    """Return the sum of the rows that `seeds` marks with ones, one part for each leaf of `wanted`."""
    found = pull(seeds, wanted)
    turned = {i: 1j * seed for i, seed in seeds.items() if seed.dtype.kind == "c"}
    if not turned:
        return found
    if holomorphic:  # a pullback is the adjoint
        return [np.conj(row) for row in found]
    # The pullbacks of 1 and i are the rows of the real and the imaginary part.
    return [a + 1j * b for a, b in zip(found, pull(turned, wanted), strict=True)]


def _by_rows(
    run: Recorded | Replayed, outputs: list[np.ndarray], inputs: list[np.ndarray], holomorphic: bool
) -> list[list[Any]]:
    """Return the blocks as matrices, by one pullback for each number in the output (two for a complex one)."""
    wanted = list(range(len(inputs)))
    matrices = []
    for i, y in enumerate(outputs):
        rows = [_Rows(y.size, x.shape, dtype_of(y, x)) for x in inputs]
        for start, units in units_of(y, run.batch) if i in run.live else ():
            for into, found in zip(
                rows, _pulled(run.pull_many, {i: units}, wanted, holomorphic), strict=True
            ):
                into.put(start, found)
        matrices.append([np.reshape(r.joined(), (y.size, x.size)) for r, x in zip(rows, inputs, strict=True)])
    return matrices


def _by_columns(
    run: Recorded | Replayed, outputs: list[np.ndarray], inputs: list[np.ndarray]
) -> list[list[Any]]:
    """Return the blocks as matrices, by one Jacobian-vector product for each number in the input."""
    batch = run.transposed.batch if isinstance(run, Recorded) and run.live else 1
    columns = [[_Rows(x.size, y.shape, dtype_of(y, x)) for x in inputs] for y in outputs]
    for j, x in enumerate(inputs):
        for start, units in units_of(x, batch) if run.live else ():
            for i, tangents in zip(run.live, run.push_many({j: units}, run.live), strict=True):
                columns[i][j].put(start, tangents)
    return [
        [np.transpose(np.reshape(c.joined(), (x.size, y.size))) for c, x in zip(row, inputs, strict=True)]
        for y, row in zip(outputs, columns, strict=True)
    ]


def _check_kinds(run: Recorded | Replayed, holomorphic: bool) -> None:
    """Refuse complex inputs, unless the function is holomorphic, and then real ones."""
    for leaf in run.listed:
        if np.iscomplexobj(underlying(leaf.value)) == holomorphic:
            continue
        if holomorphic:
            raise InputTypeError(
                f"jacobian: holomorphic=True is for complex inputs, and {leaf.text} is real", at=user_line()
            )
        raise InputTypeError(
            f"jacobian: {leaf.text} is complex, and the derivative of the function is then one complex matrix "
            "only if it is holomorphic",
            at=user_line(),
            fix="Pass holomorphic=True if it is; else take real and imaginary parts as real numbers with nbad.ravel.",
        )
    if holomorphic:
        _check_holomorphic(run)


def _check_holomorphic(run: Recorded | Replayed) -> None:
    """Pull one direction and i times it back: for a holomorphic function the answers differ by the factor i."""
    rng = np.random.default_rng(0)
    seeds = {}
    for i in run.live:
        y = zeros_like(run.outputs[i])
        if y.dtype.kind != "c":
            raise InputTypeError(
                "jacobian: holomorphic=True is for complex outputs, and the function returned real numbers",
                at=user_line(),
            )
        seeds[i] = np.asarray(rng.normal(size=y.shape) + 1j * rng.normal(size=y.shape)).astype(y.dtype)
    wanted = list(range(len(run.listed)))
    found = run.pull(seeds, wanted)
    turned = run.pull({i: np.asarray(1j * seed) for i, seed in seeds.items()}, wanted)
    for leaf, a, b in zip(run.listed, found, turned, strict=True):
        a, b = underlying(a), underlying(b)
        if np.linalg.norm(b - 1j * a) > np.sqrt(np.finfo(a.dtype).eps) * np.linalg.norm(a):
            raise InputTypeError(
                f"jacobian: the function is not holomorphic in {leaf.text}",
                at=user_line(),
                fix="Take real and imaginary parts as real numbers with nbad.ravel.",
            )
