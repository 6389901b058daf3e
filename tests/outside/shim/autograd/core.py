"""make_vjp, make_jvp, vector spaces and primitives, on nbad's vjp, jvp, trees and primitive."""

import inspect
from itertools import count

import numpy as np

import nbad
from nbad import tree

# -------------------- vector spaces --------------------


def conjugated(value):
    """Return a container of cotangents in the other package's convention; real ones are the same in both."""
    return tree.map_leaves(lambda leaf: np.conj(leaf) if np.iscomplexobj(leaf) else leaf, value)


class VSpace:
    """The space of containers with the structure, shapes and dtypes of a value."""

    def __init__(self, value):
        self.example = value
        self.leaves = [_Leaf(leaf) for leaf in tree.leaves(value)]
        self.structure = tree.structure(value)
        self.size = sum(leaf.size for leaf in self.leaves)
        self.iscomplex = any(leaf.iscomplex for leaf in self.leaves)
        only = self.leaves[0] if len(self.leaves) == 1 and tree.leaves(value)[0] is value else None
        self.shape = only.shape if only else value

    def __eq__(self, other):
        return self.structure == other.structure and self.leaves == other.leaves

    def __repr__(self):
        return f"VSpace({[(leaf.shape, str(leaf.dtype)) for leaf in self.leaves]})"

    def _map(self, function, *trees):
        columns = zip(self.leaves, *map(tree.leaves, trees), strict=True)
        return tree.rebuild(self.example, [function(*column) for column in columns])

    def zeros(self):
        return self._map(lambda leaf: np.zeros(leaf.shape, leaf.dtype))

    def ones(self):
        return self._map(lambda leaf: np.full(leaf.shape, 1 + 1j if leaf.iscomplex else 1, leaf.dtype))

    def randn(self):
        return self._map(lambda leaf: leaf.randn())

    def standard_basis(self):
        for i, leaf in enumerate(self.leaves):
            for place in np.ndindex(*leaf.shape):
                for unit in (1, 1j) if leaf.iscomplex else (1,):
                    parts = tree.leaves(self.zeros())
                    parts[i][place] = unit
                    yield tree.rebuild(self.example, parts)

    def add(self, x, y):
        return self._map(lambda leaf, a, b: a + b, x, y)

    mut_add = add

    def scalar_mul(self, x, a):
        return self._map(lambda leaf, value: value * a, x)

    def inner_prod(self, x, y):
        pairs = zip(tree.leaves(x), tree.leaves(y), strict=True)
        return sum(np.real(np.dot(np.conj(np.ravel(a)), np.ravel(b))) for a, b in pairs)

    def covector(self, x):
        return conjugated(x)


class _Leaf:
    def __init__(self, value):
        dtype = getattr(value, "dtype", None)
        if dtype is None and type(value) in (float, complex):
            dtype = np.dtype(type(value))
        if dtype is None or dtype.kind not in "fc":
            raise TypeError(f"Can't find vector space for value {value} of type {type(value)}")
        self.dtype, self.shape = dtype, np.shape(value)
        self.iscomplex = dtype.kind == "c"
        self.size = int(np.prod(self.shape)) * (1 + self.iscomplex)

    def __eq__(self, other):
        return (self.dtype, self.shape) == (other.dtype, other.shape)

    def randn(self):
        drawn = self._drawn()
        return drawn + 1j * self._drawn() if self.iscomplex else drawn

    def _drawn(self):
        return np.array(np.random.randn(*self.shape)).astype(self.dtype)  # noqa: NPY002 (it follows the tests' seed)


vspace = VSpace

# -------------------- the two products --------------------


def make_vjp(fun, x):
    value, pullback = nbad.vjp(fun, x)
    return lambda g: conjugated(pullback(conjugated(g))), value


def make_jvp(fun, x):
    return lambda v: nbad.jvp(fun, (x,), (v,))


# -------------------- primitives --------------------


#: Function made by `primitive` to its maker of pullbacks.
primitive_vjps = {}

#: The calls that nodes refer to: a node can hold numbers only, autograd's primitives take anything.
_CALLS = []


def primitive(function):
    """Return an operation of nbad for each number of traced arguments, whose pullbacks are those of `defvjp`."""
    rows = {}
    name = getattr(function, "__name__", "primitive")

    def wrapped(*args, **kwargs):
        traced = [k for k, x in enumerate(args) if nbad.trace.is_traced(x)]
        if not traced:
            return function(*args, **kwargs)
        if wrapped not in primitive_vjps:
            raise NotImplementedError(f"VJP of {name} wrt argnums {traced} not defined")
        if len(traced) not in rows:
            rows[len(traced)] = _row(wrapped, function, name, len(traced))
        _CALLS.append((args, kwargs, traced))
        return rows[len(traced)](*(args[k] for k in traced), call=len(_CALLS) - 1)

    wrapped.__name__, wrapped.fun = name, function
    wrapped.defvjp = _deprecated(wrapped, lambda maker, k: _unstaged(maker, k))
    wrapped.defgrad = _deprecated(wrapped, lambda maker, k: maker)
    wrapped.defvjp_is_zero = lambda argnums=(0,): defvjp(wrapped, *(None for _ in argnums), argnums=argnums)
    return wrapped


def _row(wrapped, function, name, number):
    operands = [f"x{i}" for i in range(number)]

    def whole(values, call):
        args, kwargs, traced = _CALLS[call]
        args = list(args)
        for k, value in zip(traced, values, strict=True):
            args[k] = value
        return args, kwargs, traced

    def forward(*values, call):
        args, kwargs, _ = whole(values, call)
        return function(*args, **kwargs)

    def pullback_of(i):
        def pullback(g, y, *values):
            *values, call = values
            args, kwargs, traced = whole(values, call)
            vjp = primitive_vjps[wrapped]((traced[i],), y, args, kwargs)
            return conjugated(next(iter(vjp(conjugated(g)))))

        return _named(pullback, ["g", "y", *operands, "call"])

    rules = {x: pullback_of(i) for i, x in enumerate(operands)}
    return nbad.primitive(name=name, **rules)(_named(forward, operands, ["call"]))


def _named(function, names, keywords=()):
    """Give a function the parameter names that nbad reads."""
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    parameters += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in keywords]
    function.__signature__ = inspect.Signature(parameters)
    return function


def defvjp_argnums(fun, maker):
    primitive_vjps[fun] = maker


def defvjp_argnum(fun, maker):
    defvjp_argnums(
        fun,
        lambda argnums, ans, args, kwargs: lambda g: [maker(k, ans, args, kwargs)(g) for k in argnums],
    )


def defvjp(fun, *makers, argnums=None):
    table = dict(zip(count() if argnums is None else argnums, makers, strict=False))

    def one(k, ans, args, kwargs):
        if k not in table:
            raise NotImplementedError(f"VJP of {fun.__name__} wrt argnum {k} not defined")
        if table[k] is None:
            return lambda g: vspace(args[k]).zeros()
        return table[k](ans, *args, **kwargs)

    defvjp_argnum(fun, one)


def defjvp(fun, *makers, argnums=None):
    """Do nothing: nbad derives the forward product from the pullbacks."""


defjvp_argnum = defjvp_argnums = def_linear = defjvp


def _deprecated(wrapped, staged):
    makers = {}

    def define(maker, argnum=0):
        makers[argnum] = staged(maker, argnum)
        defvjp(wrapped, *makers.values(), argnums=list(makers))

    return define


def _unstaged(maker, argnum):
    def staged(ans, *args, **kwargs):
        return lambda g: maker(g, ans, vspace(args[argnum]), vspace(g), *args, **kwargs)

    return staged
