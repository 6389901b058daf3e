"""Contractions: products of every rank, all forms of einsum, diagonals, and that a product keeps only the other operand."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import COMPLEX, REAL, Case, Uniform, laws

import nbad
from nbad.errors import NoRuleError

#: Shapes of two operands of matmul: vectors, matrices and stacks, also broadcast against each other.
PRODUCTS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ((2, 1, 2, 3), (5, 3, 4)), ((2, 3), (2, 5, 3, 4)), ((2, 5, 2, 3), (3,)), ((3,), (2, 5, 3, 4)), ((1, 2, 3), (3, 4)),
]  # fmt: skip

#: One narrow and one wide dtype, one real and one complex: shapes are what most cases are about.
FEW = ("f4", "c16")

#: Subscripts, and the shapes of their operands.
SUBSCRIPTS: list[tuple[str, *tuple[tuple[int, ...], ...]]] = [
    # One operand: permutation, sums, diagonals.
    ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("ij->j", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)),
    ("iij->ij", (3, 3, 2)), ("iii->i", (3, 3, 3)), ("iijj->ij", (3, 3, 2, 2)), ("...ii->...i", (2, 3, 3)),
    ("i...->...", (2, 3, 4)), ("ba", (2, 3)),
    # Two: products, with letters that only one has, with diagonals, with broadcasting.
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("i,j->ij", (2,), (3,)), ("i,i", (3,), (3,)),
    ("ij,k->ik", (2, 3), (4,)), ("i,j->", (2,), (3,)), ("ii,ij->j", (3, 3), (3, 2)), ("iij,j->i", (2, 2, 3), (3,)),
    ("ba,cb", (2, 3), (4, 2)), (",i->i", (), (3,)), ("ij,ij->ij", (1, 3), (2, 3)), ("ij,ij->", (1, 3), (2, 3)),
    ("ij,ij->j", (2, 1), (2, 3)), ("...ij,...jk->...ik", (5, 2, 3), (1, 3, 4)), ("...ij,...jk", (2, 1, 2, 3), (5, 3, 4)),
    ("...,...", (2, 3), (3,)), ("i...,...j->j...i", (2, 4, 5), (4, 5, 3)),
    # More.
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("i,ij,j->", (2,), (2, 3), (3,)), ("bi,bij,bj->b", (4, 2), (4, 2, 3), (4, 3)),
    ("i,i,i,i->i", (3,), (3,), (3,), (3,)), (",,->", (), (), ()),
]  # fmt: skip


def named(name: str, function: Callable[..., Any], *shapes: tuple[int, ...], **more: Any) -> Case:
    """Return the case of a function of arrays of the given shapes."""
    texts = " ".join(str(shape).replace(" ", "") for shape in shapes)
    arguments = [(shape, -2.0, 2.0) for shape in shapes]
    return Case(f"{name} {texts}", function, arguments, **{"dtypes": FEW, **more})


def matmul(a: Any, b: Any) -> Any:
    return a @ b


def written(subscripts: str, **options: Any) -> Callable[..., Any]:
    """Return the contraction that `subscripts` describes."""

    def contract(*xs: Any) -> Any:
        return np.einsum(subscripts, *xs, **options)

    return contract


def tensordot(axes: Any) -> Callable[..., Any]:
    """Return ``np.tensordot`` over `axes`."""

    def contract(a: Any, b: Any) -> Any:
        return np.tensordot(a, b, axes=axes)

    return contract


def einsum_lists(a: Any, b: Any) -> Any:
    return (
        np.einsum(a, [0, 1], b, [1, 2], [0, 2]),
        np.einsum(a, [30, 1], b, [1, 2]),
        np.einsum(a, [..., 1], b, [1, 2]),
    )


def einsum_spaces(a: Any, b: Any) -> Any:
    return np.einsum("i j, j k -> i k", a, b)


def einsum_dtype(a: Any, b: Any) -> Any:
    return np.einsum("ij,jk", a, b, dtype=np.complex128)


def einsum_path(a: Any, b: Any, c: Any) -> Any:
    return np.einsum("ij,jk,kl->il", a, b, c, optimize=["einsum_path", (1, 2), (0, 1)])


def vecdot_first(a: Any, b: Any) -> Any:
    return np.linalg.vecdot(a, b, axis=0)


def cross_axes(a: Any, b: Any) -> Any:
    return np.cross(a, b, axisa=0, axisb=1, axisc=0)


def linalg_cross(a: Any, b: Any) -> Any:
    return np.linalg.cross(a, b, axis=0)


def multi_dot(*xs: Any) -> Any:
    return np.linalg.multi_dot(xs)


def diagonals(x: Any) -> Any:
    return (
        np.diagonal(x),
        np.diagonal(x, 1, 2, 0),
        np.diagonal(x, offset=-1),
        x.diagonal(7),
        np.linalg.diagonal(x, offset=1),
    )


def squared_diagonal(x: Any) -> Any:
    return np.diagonal(x, 1) ** 2


def traces(x: Any) -> Any:
    return np.trace(x), np.trace(x, 1, -1, 1), x.trace(offset=-1), np.linalg.trace(x, offset=1)


def trace_wide(x: Any) -> Any:
    return np.trace(x, dtype=np.complex128)


def methods(x: Any, y: Any) -> Any:
    return x.dot(y), np.linalg.matmul(x, y), np.linalg.tensordot(x, y, axes=1)


def stacks(a: Any, b: Any) -> Any:
    return np.matvec(a, b)


def rows_times(a: Any, b: Any) -> Any:
    return np.vecmat(a, b)


def real_and_complex(rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return a real and a complex operand."""
    return Uniform((2, 3), -2.0, 2.0, real=True)(rng, dtype), Uniform((3, 4), -2.0, 2.0)(rng, dtype)


def mixed(a: Any, b: Any) -> Any:
    return (
        a @ b,
        np.einsum("ij,jk->ki", a, b),
        np.tensordot(a, b, 1),
        np.outer(a[0], b[:, 0]),
        np.vecdot(a, b[:, 0]),
    )


CASES = [
    *(named("matmul", matmul, *shapes, dtypes=REAL + COMPLEX) for shapes in PRODUCTS),
    *(named("dot", np.dot, *shapes, exact=False)
      for shapes in (((3,), (3,)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (2, 3, 4)), ((3,), (2, 3, 4)),
                     ((), (3, 2)), ((3, 2), ()))),
    *(named("inner", np.inner, *shapes, exact=False)
      for shapes in (((3,), (3,)), ((2, 3), (3,)), ((3,), (4, 3)), ((5, 2, 3), (2, 4, 3)), ((), (3, 2)))),
    *(named("vdot", np.vdot, *shapes) for shapes in (((3, 4), (12,)), ((3,), (3,)), ((), ()))),
    *(named("vecdot", np.vecdot, *shapes) for shapes in (((3,), (3,)), ((2, 3), (3,)), ((5, 1, 3), (4, 3)))),
    named("linalg.vecdot", vecdot_first, (3, 2), (3, 2)),
    *(named("cross", np.cross, *shapes) for shapes in (((3,), (3,)), ((4, 3), (2, 1, 3)))),
    named("cross axes", cross_axes, (3, 2), (2, 3)),
    named("linalg.cross", linalg_cross, (3, 2), (3, 1)),
    named("outer", np.outer, (3, 2), (4,)),
    named("outer", np.outer, (), (4,)),
    named("linalg.outer", np.linalg.outer, (3,), (4,)),
    named("multiply.outer", np.multiply.outer, (3, 2), (4, 5)),
    *(named("kron", np.kron, *shapes) for shapes in (((2, 3), (4, 2)), ((3,), (4, 2)), ((2, 3, 2), (2,)))),
    named("tensordot 0", tensordot(0), (2, 3), (4,)),
    named("tensordot 1", tensordot(1), (2, 3), (3, 4)),
    named("tensordot 2", tensordot(2), (2, 3, 4), (3, 4, 5)),
    named("tensordot swapped", tensordot(((0, 2), (1, 0))), (2, 3, 4), (4, 2, 5)),
    named("tensordot unsorted", tensordot(([2, 0], [0, 1])), (2, 3, 4), (4, 2, 5)),
    named("tensordot negative", tensordot((-1, -2)), (2, 3), (3, 4)),
    named("tensordot every", tensordot(((0, 1, 2), (2, 0, 1))), (2, 3, 4), (3, 4, 2)),
    *(named(f"einsum {subscripts}", written(subscripts), *shapes) for subscripts, *shapes in SUBSCRIPTS),
    named("einsum optimal", written("ij,jk,kl->il", optimize="optimal"), (2, 3), (3, 4), (4, 5)),
    named("einsum greedy", written("bi,bij,bj->b", optimize=True), (4, 2), (4, 2, 3), (4, 3)),
    named("einsum memory", written("i,ij,j->", optimize=("greedy", 100)), (2,), (2, 3), (3,)),
    named("einsum path", einsum_path, (2, 3), (3, 4), (4, 5)),
    named("einsum lists", einsum_lists, (2, 3), (3, 4)),
    named("einsum spaces", einsum_spaces, (2, 3), (3, 4)),
    named("einsum dtype", einsum_dtype, (2, 3), (3, 4)),
    named("einsum large", written("ij,jk->ik"), (30, 40), (40, 20), exact=False),
    *(named("multi_dot", multi_dot, *shapes, exact=False)
      for shapes in (((2, 3), (3, 4)), ((3,), (3, 4), (4, 2)), ((3,), (3, 4), (4,)),
                     ((2, 3), (3, 4), (4, 2), (2, 6), (6, 3), (3,)))),
    named("diagonals", diagonals, (3, 4, 5)),
    named("squared diagonal", squared_diagonal, (3, 4)),
    named("traces", traces, (3, 4, 5)),
    named("trace dtype", trace_wide, (3, 4)),
    named("methods", methods, (3, 4), (4, 3), wrt=(0,)),
    Case("real and complex", mixed, real_and_complex, dtypes=("c8", "c16"), exact=False),
]  # fmt: skip

if hasattr(np, "matvec"):  # NumPy 2.2
    CASES += [
        *(named("matvec", stacks, *shapes, exact=False) for shapes in (((5, 2, 3), (3,)), ((2, 3), (5, 3)))),
        *(
            named("vecmat", rows_times, *shapes, exact=False)
            for shapes in (((2,), (5, 2, 3)), ((5, 2), (5, 2, 3)))
        ),
    ]

TestLaws = laws(CASES)

EMPTY = [
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 3), (3, 0)),
    ((0, 2, 3), (3, 4)),
    ((2, 3), (0, 3, 4)),
    ((0,), (0,)),
]


# Sizes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shapes", EMPTY)
@pytest.mark.parametrize("function", [matmul, np.dot, written("...ij,...jk->...ik"), np.outer])
def test_arrays_without_elements(function: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    one, two = shapes
    if len(one) == 1 and function not in (matmul, np.dot, np.outer):
        one, two = (0, 0), (0, 0)
    value, pullback = nbad.vjp(function, np.ones(one), np.ones(two), wrt=(0, 1))
    assert np.shape(value) == np.shape(function(np.ones(one), np.ones(two)))
    gradients = pullback(np.ones(np.shape(value)))
    assert [g.shape for g in gradients] == [one, two]
    assert not any(g.any() for g in gradients)


def test_tensordot_and_trace_of_nothing() -> None:
    value, pullback = nbad.vjp(tensordot(1), np.ones((2, 0)), np.ones((0, 3)), wrt=(0, 1))
    assert value.tolist() == [[0.0] * 3] * 2
    assert [g.shape for g in pullback(np.ones((2, 3)))] == [(2, 0), (0, 3)]
    assert nbad.grad(np.trace)(np.ones((0, 0))).shape == (0, 0)


def test_a_number_is_an_operand_without_dimensions() -> None:
    def loss(s: Any, x: Any) -> Any:
        return np.dot(s, x).sum() + np.einsum(",i->", s, x) + np.inner(x, s).sum() + np.outer(s, x).sum()

    gradients = nbad.grad(loss, wrt=(0, 1))(2.0, np.array([1.0, 3.0]))
    assert gradients[0] == 16.0 and gradients[1].tolist() == [8.0, 8.0]


def test_constants_of_other_kinds() -> None:
    def loss(x: Any) -> Any:
        return (
            (x @ [1, 2]).sum()
            + np.einsum("ij,j->", x, [1, 0])
            + np.dot(2, x).sum()
            + (np.eye(2, dtype=bool) @ x).sum()
        )

    assert nbad.grad(loss)(np.ones((2, 2))).tolist() == [[5.0, 5.0], [5.0, 5.0]]


# What is asked for and what is kept ---------------------------------------------------------------
def product_keeps(function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    """Assert for each operand alone: one pullback runs, and what is kept are the other operands."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    value, _ = nbad.vjp(function, *arrays)
    for k in range(len(arrays)):
        with nbad.report() as account:
            pullback = nbad.vjp(function, *arrays, wrt=k)[1]
            pullback(np.ones(np.shape(value)))
        assert account.pullbacks == 1
        others = sum(x.nbytes for j, x in enumerate(arrays) if j != k)
        assert (account.bytes_kept, account.bytes_borrowed) == (0, others)


def test_a_product_keeps_only_the_other_operand() -> None:
    product_keeps(matmul, (20, 30), (30, 10))
    product_keeps(tensordot(1), (20, 30), (30, 10))
    product_keeps(written("ij,jk->ik"), (20, 30), (30, 10))
    product_keeps(written("ij,jk,kl->il"), (20, 30), (30, 10), (10, 5))
    product_keeps(np.vecdot, (20, 30), (20, 30))
    product_keeps(multi_dot, (20, 30), (30, 10), (10, 5))


def test_an_operand_that_nobody_asked_for_is_left_alone() -> None:
    a, b, c = np.ones((3, 4)), np.ones((4, 5)), np.ones((5, 2))

    def chain(a: Any, b: Any, c: Any) -> Any:
        return np.sum(a @ b @ c)

    for wrt, run in (
        ((0,), {"a": 2, "b": 0}),
        ((1,), {"a": 1, "b": 1}),
        ((2,), {"a": 0, "b": 1}),
        ((0, 2), {"a": 2, "b": 1}),
    ):
        with nbad.report() as account:
            nbad.grad(chain, wrt=tuple((k,) for k in wrt))(a, b, c)
        assert {operand: account.run("matmul", operand) for operand in "ab"} == run

    def whole(a: Any, b: Any, c: Any) -> Any:
        return np.einsum("ij,jk,kl->", a, b, c)

    with nbad.report() as account:
        nbad.grad(whole, wrt=(0, 2))(a, b, c)
    assert account.run("einsum", "xs") == 2 and account.skipped("einsum", "xs") == 1


def test_linear_functions_keep_nothing() -> None:
    def loss(x: Any) -> Any:
        return np.trace(x) + np.sum(np.diagonal(x, 1)) + np.einsum("ij->", x) + np.einsum("ii->", x)

    with nbad.report() as account:
        nbad.grad(loss)(np.ones((9, 9)))
    assert account.bytes_kept == 0 and account.bytes_borrowed == 0


def test_one_matrix_for_many_makes_no_stack_of_cotangents() -> None:
    # The cotangent of the one matrix is a single product of matrices: 8 MB if the stack were made first.
    batch = np.ones((1000, 2, 100))
    value, pullback = nbad.vjp(matmul, batch, np.ones((100, 10)), wrt=1)
    cotangent = np.ones(value.shape)
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        gradient = pullback(cotangent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (gradient == 2000).all()
    assert peak < 4_000_000


# Agreement of the forms ---------------------------------------------------------------------------
def test_all_spellings_of_a_product_agree() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)) for _ in range(2))
    w = rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
    found = [
        nbad.vjp(function, a, b, wrt=(0, 1))[1](w)
        for function in (
            matmul,
            np.dot,
            tensordot(1),
            written("ij,jk"),
            written("ij,jk", optimize=True),
            lambda *x: multi_dot(*x),
        )
    ]
    for one, two in itertools.pairwise(found):
        for x, y in zip(one, two, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-13)


# Refusals -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "match", "function"),
    [
        (ValueError, "mismatch", lambda x: x @ np.ones(4)),
        (ValueError, "mismatch", lambda x: np.tensordot(x, np.ones((4, 2)), 1)),
        (ValueError, "mismatch", lambda x: np.tensordot(x, np.ones(3), 2)),
        (ValueError, "broadcast", lambda x: np.einsum("ij,jk->ik", x, np.ones((4, 4)))),
        (ValueError, "describes 2 operands, 1", lambda x: np.einsum("ij,jk->ik", x)),
        (ValueError, "more letters", lambda x: np.einsum("ijk...->i", x)),
        (ValueError, "ellipsis", lambda x: np.einsum("i...->i", x)),
        (ValueError, "at least two", lambda x: np.linalg.multi_dot([x])),
        (NoRuleError, "two elements.*\n.*\n.*Append a zero", lambda x: np.cross(x, np.ones(2))),
        (TypeError, "unexpected", lambda x: np.einsum("ij->", x, axis=1)),
        (np.exceptions.AxisError, "axis", lambda x: np.trace(x, axis1=2)),
        (NoRuleError, "out=", lambda x: np.dot(x, x, out=np.zeros((3, 3)))),
        (NoRuleError, "out=", lambda x: np.matmul(x, x, out=np.zeros((3, 3)))),
        (NoRuleError, "out=", lambda x: np.einsum("ij->i", x, out=np.zeros(3))),
        (NoRuleError, "out=", lambda x: np.trace(x, out=np.zeros(()))),
    ],
)
def test_what_is_wrong_or_has_no_rule(
    error: type[Exception], match: str, function: Callable[..., Any]
) -> None:
    with pytest.raises(error, match=match):
        nbad.grad(lambda x: np.sum(function(x)))(np.ones((3, 3)))
