"""grad, value_and_grad, vjp and stop_gradient."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbad
from nbad import tree
from nbad.errors import InputTypeError, NonScalarOutputError, WrtError
from nbad.trace import is_traced

X = np.array([0.5, 1.0, 1.5])
Y = np.array([2.0, 3.0, 4.0])


def dot(x: Any, y: Any) -> Any:
    return np.sum(x * y)


# What wrt asks for --------------------------------------------------------------------------------
@pytest.mark.parametrize(("wrt", "expected"), [(0, Y), (1, X), ("x", Y), ("y", X), (-1, X), (-2, Y)])
def test_a_position_or_a_name(wrt: Any, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(nbad.grad(dot, wrt)(X, Y), expected)


@pytest.mark.parametrize("wrt", [(0, 1), ("x", "y"), (("x",), ("y",)), (("x",), (1,)), ((0,), "y")])
def test_several_give_a_tuple(wrt: Any) -> None:
    got = nbad.grad(dot, wrt)(X, Y)
    assert type(got) is tuple
    np.testing.assert_array_equal(got[0], Y)
    np.testing.assert_array_equal(got[1], X)


def test_the_order_asked_for_is_the_order_given() -> None:
    got = nbad.grad(dot, ("y", "x"))(X, Y)
    np.testing.assert_array_equal(got[0], X)
    np.testing.assert_array_equal(got[1], Y)


def test_a_tuple_of_one_gives_a_tuple_of_one() -> None:
    (got,) = nbad.grad(dot, (0,))(X, Y)
    np.testing.assert_array_equal(got, Y)


def test_arguments_passed_by_name() -> None:
    np.testing.assert_array_equal(nbad.grad(dot, "y")(X, y=Y), X)
    np.testing.assert_array_equal(nbad.grad(dot, "x")(y=Y, x=X), Y)


def test_a_default_can_be_asked_for() -> None:
    def f(x: Any, scale: Any = 2.0) -> Any:
        return np.sum(x) * scale

    got = nbad.grad(f, "scale")(X)
    assert type(got) is float
    assert got == 3.0


def test_repeated_wrt_gives_independent_arrays() -> None:
    first, second = nbad.grad(dot, (0, 0))(X, Y)
    np.testing.assert_array_equal(first, Y)
    np.testing.assert_array_equal(second, Y)
    assert not np.shares_memory(first, second)


def test_a_container_and_a_leaf_of_it() -> None:
    def f(p: Any) -> Any:
        return np.sum(p["a"] * p["b"])

    whole, leaf = nbad.grad(f, ("p", "p.a"))({"a": X, "b": Y})
    np.testing.assert_array_equal(whole["a"], Y)
    np.testing.assert_array_equal(whole["b"], X)
    np.testing.assert_array_equal(leaf, Y)
    assert not np.shares_memory(whole["a"], leaf)


def test_the_same_array_passed_twice_is_two_inputs() -> None:
    got = nbad.grad(dot, 0)(X, X)
    np.testing.assert_array_equal(got, X)
    both = nbad.grad(dot, (0, 1))(X, X)
    np.testing.assert_array_equal(both[0], X)
    np.testing.assert_array_equal(both[1], X)


def test_the_same_array_twice_in_a_container() -> None:
    got = nbad.grad(lambda p: np.sum(p[0] * 2.0 + p[1] * 3.0))([X, X])
    np.testing.assert_array_equal(got[0], np.full(3, 2.0))
    np.testing.assert_array_equal(got[1], np.full(3, 3.0))


@pytest.mark.parametrize(
    ("wrt", "words"),
    [
        (2, ["position 2", "0, 1"]),
        ("z", ["'z'", "x, y"]),
        ("x.a", ["x is a leaf", "'a'"]),
        ((), ["nothing"]),
        (1.5, ["float"]),
        (None, ["NoneType"]),
    ],
)
def test_unknown_wrt_names_what_exists(wrt: Any, words: list[str]) -> None:
    with pytest.raises(WrtError) as caught:
        nbad.grad(dot, wrt)(X, Y)
    for word in words:
        assert word in str(caught.value)


def test_a_path_that_leads_nowhere_lists_the_keys() -> None:
    with pytest.raises(WrtError, match="Existing keys in p: a, b"):
        nbad.grad(lambda p: p["a"], "p.c")({"a": 1.0, "b": 2.0})


# Containers ---------------------------------------------------------------------------------------
class Pair(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Lens:
    psf: Any
    na: Any = 1.4


class Box:
    def __init__(self, content: Any, label: str) -> None:
        self.content = content
        self.label = label


tree.register(
    Box,
    lambda box: ([("content", box.content)], box.label),
    lambda label, children: Box(children[0], label),
)


@pytest.mark.parametrize(
    ("container", "get"),
    [
        ({"a": X, "b": Y}, lambda p: (p["a"], p["b"])),
        ([X, Y], lambda p: p),
        ((X, Y), lambda p: p),
        (Pair(X, Y), lambda p: p),
        (Lens(X, Y), lambda p: (p.psf, p.na)),
        ({"in": [X, (Y, None)]}, lambda p: (p["in"][0], p["in"][1][0])),
    ],
)
def test_containers_come_back_as_they_were(container: Any, get: Any) -> None:
    got = nbad.grad(lambda p: dot(*get(p)))(container)
    assert tree.structure(got) == tree.structure(container)
    a, b = get(got)
    np.testing.assert_array_equal(a, Y)
    np.testing.assert_array_equal(b, X)


def test_a_registered_class() -> None:
    got = nbad.grad(lambda box: np.sum(box.content**2))(Box(X, "label"))
    assert type(got) is Box
    assert got.label == "label"
    np.testing.assert_array_equal(got.content, 2 * X)


def test_paths_into_containers() -> None:
    def f(p: Any, q: Any) -> Any:
        return np.sum(p["lens"].psf * p["stack"][1]) * q[0].b

    call = ({"lens": Lens(X), "stack": [1, Y]}, (Pair(0.0, 2.0),))
    np.testing.assert_array_equal(nbad.grad(f, "p.lens.psf")(*call), 2 * Y)
    np.testing.assert_array_equal(nbad.grad(f, (0, "stack", 1))(*call), 2 * X)
    assert nbad.grad(f, "q.0.b")(*call) == pytest.approx(float(np.sum(X * Y)))


def test_a_part_of_a_container_leaves_the_rest_plain() -> None:
    seen = []

    def f(p: Any) -> Any:
        seen.extend([is_traced(p["a"]), is_traced(p["b"])])
        return np.sum(p["a"] * p["b"])

    nbad.grad(f, "p.a")({"a": X, "b": Y})
    assert seen == [True, False]


def test_the_callers_container_is_not_changed() -> None:
    p = {"a": X, "b": [Y]}
    nbad.grad(lambda p: np.sum(p["a"] * p["b"][0]))(p)
    assert p["a"] is X
    assert p["b"][0] is Y


# Values and kinds ---------------------------------------------------------------------------------
def test_value_and_grad_gives_both() -> None:
    value, gradient = nbad.value_and_grad(dot)(X, Y)
    assert type(value) is np.float64
    assert value == np.sum(X * Y)
    np.testing.assert_array_equal(gradient, Y)


def test_python_floats_give_python_floats() -> None:
    value, gradient = nbad.value_and_grad(lambda x: x * x * 3.0)(2.0)
    assert (type(value), type(gradient)) == (float, float)
    assert (value, gradient) == (12.0, 12.0)


def test_python_complex_gives_python_complex() -> None:
    gradient = nbad.grad(lambda z: np.abs(z) ** 2)(1.0 + 2.0j)
    assert type(gradient) is complex
    assert gradient == pytest.approx(2.0 + 4.0j)  # the direction of steepest ascent


def test_numpy_scalars_give_numpy_scalars() -> None:
    gradient = nbad.grad(lambda x: x * x)(np.float64(3.0))
    assert type(gradient) is np.float64
    gradient = nbad.grad(lambda x: x * x)(np.float32(3.0))
    assert type(gradient) is np.float32


def test_arrays_without_dimensions_give_arrays() -> None:
    gradient = nbad.grad(lambda x: x * x)(np.array(3.0))
    assert type(gradient) is np.ndarray
    assert gradient.shape == ()
    assert gradient == 6.0


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_gradients_have_the_dtype_of_their_argument(dtype: str) -> None:
    x = X.astype(dtype)
    gradient = nbad.grad(lambda x: np.sum(np.abs(x * Y) ** 2))(x)
    assert gradient.dtype == x.dtype
    np.testing.assert_allclose(gradient, 2 * X * Y * Y, rtol=1e-5)


def test_the_complex_convention_is_steepest_ascent() -> None:
    z = np.array([1.0 + 2.0j, -0.5j])
    np.testing.assert_allclose(nbad.grad(lambda z: np.sum(np.abs(z) ** 2))(z), 2 * z)
    # dL/dRe + i dL/dIm of Re(c z)
    c = np.array([2.0 - 1.0j, 3.0j])
    np.testing.assert_allclose(nbad.grad(lambda z: np.sum(np.real(c * z)))(z), np.conj(c))


def test_a_real_operand_of_a_complex_operation_gets_the_real_part() -> None:
    c = np.array([2.0 - 1.0j, 3.0j, 1.0])
    gradient = nbad.grad(lambda x: np.sum(np.abs(c * x) ** 2))(X)
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, 2 * np.abs(c) ** 2 * X)


def test_unused_inputs_give_zeros() -> None:
    got = nbad.grad(lambda x, y, z, t: np.sum(x), (0, 1, 2, 3))(
        X, Y[:2].astype(np.complex64), 1.0, np.float32(2)
    )
    np.testing.assert_array_equal(got[1], np.zeros(2, np.complex64))
    assert got[1].dtype == np.complex64
    assert (got[2], type(got[2])) == (0.0, float)
    assert (got[3], type(got[3])) == (0.0, np.float32)


def test_an_output_that_is_a_constant_gives_zeros() -> None:
    value, gradient = nbad.value_and_grad(lambda x: 3.0)(X)
    assert value == 3.0
    np.testing.assert_array_equal(gradient, np.zeros(3))


def test_the_output_may_be_the_input() -> None:
    assert nbad.value_and_grad(lambda x: x)(2.0) == (2.0, 1.0)


def test_gradients_are_writable_and_share_memory_with_nothing() -> None:
    x, y = X.copy(), Y.copy()
    value, pullback = nbad.vjp(lambda x, y: (x + y, x * 1.0, y), x, y)
    seeds = (np.ones(3), np.ones(3), np.ones(3))
    answers = [*pullback(seeds), *pullback(seeds)]
    given = [x, y, *seeds, *(v for v in value if v is not y)]
    for i, answer in enumerate(answers):
        assert answer.flags.writeable
        for other in [*given, *answers[:i]]:
            assert not np.shares_memory(answer, other)
        answer[...] = 99.0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_inputs_of_unusual_layout() -> None:
    base = np.arange(24.0).reshape(4, 6)
    for x in (
        base[::2, ::3],
        base.T,
        base[::-1],
        np.asfortranarray(base),
        base[:, :0],
        np.broadcast_to(X, (2, 3)),
    ):
        gradient = nbad.grad(lambda x: np.sum(x * x))(x)
        np.testing.assert_array_equal(gradient, 2 * x)
        assert gradient.shape == x.shape


def test_big_endian_and_read_only_inputs() -> None:
    x = X.astype(">f8")
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(x * x))(x), 2 * X)
    x = X.copy()
    x.flags.writeable = False
    gradient = nbad.grad(lambda x: np.sum(x * x))(x)
    np.testing.assert_array_equal(gradient, 2 * X)
    assert gradient.flags.writeable


def test_subclasses_that_only_hold_memory_pass(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "x", dtype=np.float64, mode="w+", shape=(3,))
    mapped[:] = X
    np.testing.assert_array_equal(nbad.grad(lambda x: np.sum(x * x))(mapped), 2 * X)


def test_wrapped_functions_keep_their_name() -> None:
    assert nbad.grad(dot).__name__ == "dot"
    assert nbad.value_and_grad(dot).__name__ == "dot"


def test_functions_without_a_signature_and_partials() -> None:
    np.testing.assert_allclose(nbad.grad(functools.partial(dot, y=Y))(X), Y)
    assert nbad.grad(np.sin)(0.5) == pytest.approx(math.cos(0.5))


# has_aux ------------------------------------------------------------------------------------------
def test_aux_comes_out_plain() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0
        return np.sum(y), {"y": y, "text": "kept", "n": 3}

    gradient, aux = nbad.grad(f, has_aux=True)(X)
    np.testing.assert_array_equal(gradient, np.full(3, 2.0))
    assert type(aux["y"]) is np.ndarray
    np.testing.assert_array_equal(aux["y"], 2 * X)
    assert (aux["text"], aux["n"]) == ("kept", 3)
    (value, aux), gradient = nbad.value_and_grad(f, has_aux=True)(X)
    assert value == np.sum(2 * X)
    np.testing.assert_array_equal(aux["y"], 2 * X)
    value, pullback, aux = nbad.vjp(f, X, has_aux=True)
    np.testing.assert_array_equal(pullback(1.0), np.full(3, 2.0))
    np.testing.assert_array_equal(aux["y"], 2 * X)


def test_aux_may_be_anything() -> None:
    marker = object()
    for aux in (None, marker, (1, 2), "text"):
        _, got = nbad.grad(lambda x: (np.sum(x), aux), has_aux=True)(X)  # noqa: B023
        assert got == aux


def test_without_a_pair_has_aux_complains() -> None:
    for wrong in (lambda x: np.sum(x), lambda x: (np.sum(x),), lambda x: [np.sum(x), 1]):
        with pytest.raises(InputTypeError, match="pair"):
            nbad.grad(wrong, has_aux=True)(X)


# Outputs that have no gradient --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: x * 2.0, ["shape (3,)", ".sum()", "nbad.vjp"]),
        (lambda x: np.sum(x) * 1j, ["complex128", "real part"]),
        (lambda x: np.sum(x > 0), ["int", "no derivative"]),
        (lambda x: (np.sum(x), 1.0), ["tuple", "has_aux"]),
        (lambda x: {"loss": np.sum(x)}, ["dict", "has_aux"]),
        (lambda x: None, ["NoneType"]),
        (lambda x: "text", ["str"]),
        (lambda x: 3, ["int", "no derivative"]),
        (lambda x: True, ["bool", "no derivative"]),
        (lambda x: np.ones(3), ["shape (3,)"]),
    ],
)
def test_output_that_is_not_one_real_number(f: Any, words: list[str]) -> None:
    for transform in (nbad.grad, nbad.value_and_grad):
        with pytest.raises(NonScalarOutputError) as caught:
            transform(f)(X)
        for word in [transform.__name__, *words]:
            assert word in str(caught.value)


# vjp ----------------------------------------------------------------------------------------------
def test_vjp_of_one_primal_gives_one_cotangent() -> None:
    value, pullback = nbad.vjp(np.sin, X)
    np.testing.assert_allclose(value, np.sin(X))
    np.testing.assert_allclose(pullback(Y), Y * np.cos(X))


def test_vjp_of_several_primals_gives_a_tuple() -> None:
    value, pullback = nbad.vjp(lambda x, y: x * y, X, Y)
    np.testing.assert_array_equal(value, X * Y)
    got = pullback(np.ones(3))
    assert type(got) is tuple
    np.testing.assert_array_equal(got[0], Y)
    np.testing.assert_array_equal(got[1], X)


def test_vjp_with_wrt_and_keywords() -> None:
    _, pullback = nbad.vjp(lambda x, y, *, scale: x * y * scale, X, Y, wrt="y", scale=2.0)
    np.testing.assert_array_equal(pullback(np.ones(3)), 2 * X)


def test_a_pullback_can_be_called_many_times() -> None:
    _, pullback = nbad.vjp(lambda x: np.exp(x) * x, X)
    first = pullback(Y)
    kept = first.copy()
    pullback(np.ones(3))[...] = 7.0
    np.testing.assert_array_equal(pullback(Y), kept)
    np.testing.assert_array_equal(first, kept)
    # linear in its argument
    np.testing.assert_allclose(pullback(3.0 * Y), 3.0 * kept)


def test_containers_as_outputs() -> None:
    def f(x: Any, y: Any) -> Any:
        return {"product": x * y, "pair": Pair(np.sin(x), y), "constant": 3.0, "none": None}

    value, pullback = nbad.vjp(f, X, Y)
    assert tree.structure(value) == tree.structure(f(X, Y))
    seeds = tree.map_leaves(np.ones_like, value)
    gx, gy = pullback(seeds)
    np.testing.assert_allclose(gx, Y + np.cos(X))
    np.testing.assert_allclose(gy, X + 1.0)


def test_the_same_output_twice_adds_its_cotangents() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0
        return y, y, x

    _, pullback = nbad.vjp(f, X)
    np.testing.assert_array_equal(pullback((np.ones(3), 2 * np.ones(3), 5 * np.ones(3))), np.full(3, 11.0))


def test_outputs_that_do_not_depend_on_the_input() -> None:
    value, pullback = nbad.vjp(lambda x: (np.ones(2), 4.0), X)
    np.testing.assert_array_equal(pullback((np.ones(2), 1.0)), np.zeros(3))
    assert value[1] == 4.0


def test_integer_outputs_take_any_cotangent() -> None:
    _, pullback = nbad.vjp(lambda x: (x * 2.0, x > 1.0), X)
    np.testing.assert_array_equal(pullback((np.ones(3), np.zeros(3))), np.full(3, 2.0))


def test_complex_cotangents() -> None:
    z = np.array([1.0 + 2.0j, 0.5])
    _, pullback = nbad.vjp(lambda z: z * z, z)
    np.testing.assert_allclose(pullback(np.array([1.0, 1j])), np.array([1.0, 1j]) * np.conj(2 * z))


@pytest.mark.parametrize(
    ("cotangent", "words"),
    [
        (np.ones(4), ["shape (4,)", "shape (3,)"]),
        (1.0, ["shape ()", "shape (3,)"]),
        (np.ones(3) * 1j, ["complex128", "float64"]),
        ((np.ones(3),), ["structure"]),
        ({"a": np.ones(3)}, ["structure"]),
    ],
)
def test_a_wrong_cotangent_is_refused(cotangent: Any, words: list[str]) -> None:
    _, pullback = nbad.vjp(np.sin, X)
    with pytest.raises(InputTypeError) as caught:
        pullback(cotangent)
    for word in ["vjp", *words]:
        assert word in str(caught.value)
    np.testing.assert_allclose(pullback(np.ones(3)), np.cos(X))


def test_a_cotangent_of_integers_or_another_precision_is_cast() -> None:
    _, pullback = nbad.vjp(np.sin, X)
    np.testing.assert_allclose(pullback(np.array([1, 0, 2])), np.cos(X) * [1, 0, 2])
    np.testing.assert_allclose(pullback(np.ones(3, np.float32)), np.cos(X))


# Higher orders and nesting ------------------------------------------------------------------------
def test_gradient_of_gradient() -> None:
    assert nbad.grad(nbad.grad(lambda x: x**3))(2.0) == pytest.approx(12.0)
    assert nbad.grad(nbad.grad(nbad.grad(lambda x: np.sin(2.0 * x))))(0.3) == pytest.approx(
        -8.0 * math.cos(0.6)
    )


def test_perturbations_are_not_confused() -> None:
    # d/dx x * (d/dy (x + y)) = d/dx x = 1, not 2
    assert nbad.grad(lambda x: x * nbad.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    # d/dx x * d/dy (x * y) at y = 2 is d/dx x**2 = 2 x
    assert nbad.grad(lambda x: x * nbad.grad(lambda y: x * y)(2.0))(3.0) == 6.0


def test_an_outer_value_is_a_constant_of_the_inner_call() -> None:
    def outer(x: Any) -> Any:
        inner = nbad.grad(lambda y: np.sum(np.sin(y) * x))(Y)  # x cos(y)
        return np.sum(inner * inner)

    np.testing.assert_allclose(nbad.grad(outer)(X), 2 * X * np.cos(Y) ** 2)


def test_the_inner_input_is_the_outer_input() -> None:
    def outer(x: Any) -> Any:
        return np.sum(nbad.grad(lambda y: np.sum(y * y * x))(x) ** 2)  # (2 x x)**2

    np.testing.assert_allclose(nbad.grad(outer)(X), 16 * X**3)


def test_an_inner_gradient_that_the_outer_input_does_not_reach() -> None:
    def outer(x: Any) -> Any:
        inner = nbad.grad(lambda y: np.sum(y * y))(Y)
        assert type(inner) is np.ndarray
        return np.sum(inner * x)

    np.testing.assert_array_equal(nbad.grad(outer)(X), 2 * Y)


def test_three_levels() -> None:
    def f(x: Any) -> Any:
        def g(y: Any) -> Any:
            return nbad.grad(lambda z: x * y * z * z)(y) * x  # 2 x x y y

        return nbad.grad(g)(x)  # 4 x x y at y = x: 4 x**3

    assert nbad.grad(f)(2.0) == pytest.approx(48.0)


def test_mixed_second_derivatives() -> None:
    def f(x: Any, y: Any) -> Any:
        return x**2 * y**3

    assert nbad.grad(nbad.grad(f, "x"), "y")(2.0, 3.0) == pytest.approx(2 * 2 * 3 * 9)
    assert nbad.grad(nbad.grad(f, "y"), "x")(2.0, 3.0) == pytest.approx(3 * 9 * 2 * 2)


def test_a_pullback_can_be_differentiated_in_its_cotangent() -> None:
    # linear in the cotangent: its gradient is the forward-mode product
    def f(g: Any) -> Any:
        _, pullback = nbad.vjp(lambda x: np.sin(x) * Y, X)
        return np.sum(pullback(g) * np.array([1.0, 2.0, 3.0]))

    np.testing.assert_allclose(nbad.grad(f)(np.zeros(3)), np.cos(X) * Y * [1.0, 2.0, 3.0])


def test_a_pullback_made_outside_can_be_used_inside() -> None:
    _, pullback = nbad.vjp(np.sin, X)
    np.testing.assert_allclose(nbad.grad(lambda g: np.sum(pullback(g)))(np.ones(3)), np.cos(X))


def test_second_order_with_containers_and_aux() -> None:
    def f(p: Any) -> Any:
        return np.sum(p["a"] ** 2 * p["b"]), p["a"]

    def g(p: Any) -> Any:
        gradient, aux = nbad.grad(f, has_aux=True)(p)
        return np.sum(gradient["b"] * gradient["a"]) + np.sum(aux)  # 2 a**3 b + a

    got = nbad.grad(g)({"a": X, "b": Y})
    np.testing.assert_allclose(got["a"], 6 * X**2 * Y + 1)
    np.testing.assert_allclose(got["b"], 2 * X**3)


def test_no_rule_looks_at_the_value_of_the_cotangent() -> None:
    # The gradient of sin(x)**2 vanishes at 0, its second derivative does not.
    assert nbad.grad(nbad.grad(lambda x: np.sin(x) ** 2))(0.0) == pytest.approx(2.0)


def test_newton_with_inner_gradients_in_a_loop() -> None:
    def f(x: Any) -> Any:
        return x**4 - 3.0 * x

    first, second = nbad.grad(f), nbad.grad(nbad.grad(f))
    x = 2.0
    for _ in range(20):
        x = x - first(x) / second(x)
    assert x == pytest.approx((3 / 4) ** (1 / 3))


# Closures, control flow, side effects -------------------------------------------------------------
def test_closures_are_constants() -> None:
    w = Y.copy()

    def f(x: Any) -> Any:
        return np.sum(w * x)

    np.testing.assert_array_equal(nbad.grad(f)(X), Y)
    w[:] = 5.0
    np.testing.assert_array_equal(nbad.grad(f)(X), np.full(3, 5.0))


def test_python_control_flow_works_on_values() -> None:
    def f(x: Any) -> Any:
        total = x
        while total < 100.0:
            total = total * x
        return -total if total > 200.0 else total

    assert nbad.grad(f)(3.0) == -5 * 3.0**4
    assert nbad.grad(f)(11.0) == 22.0


def test_an_exception_inside_the_function_comes_out_and_nothing_stays() -> None:
    def f(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nbad.grad(f)(X)
    np.testing.assert_array_equal(nbad.grad(dot)(X, Y), Y)


def test_long_chains_need_no_recursion() -> None:
    def f(x: Any) -> Any:
        for _ in range(20_000):
            x = x * 0.9999
        return np.sum(x)

    np.testing.assert_allclose(nbad.grad(f)(X), np.full(3, 0.9999**20_000), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=5), st.floats(-2.0, 2.0))
def test_polynomials(coefficients: list[float], x: float) -> None:
    def f(x: Any) -> Any:
        total = 0.0 * x
        for c in coefficients:
            total = total * x + c
        return total

    derivative = np.polyval(np.polyder(np.array(coefficients)), x) if len(coefficients) > 1 else 0.0
    assert nbad.grad(f)(x) == pytest.approx(float(derivative), abs=1e-9)


# stop_gradient ------------------------------------------------------------------------------------
def test_stop_gradient_gives_plain_copies() -> None:
    seen = []

    def f(x: Any) -> Any:
        stopped = nbad.stop_gradient({"x": x, "n": 3})
        seen.append(stopped)
        return np.sum(x * stopped["x"])

    x = X.copy()
    np.testing.assert_array_equal(nbad.grad(f)(x), X)
    assert type(seen[0]["x"]) is np.ndarray
    assert not np.shares_memory(seen[0]["x"], x)
    assert seen[0]["n"] == 3
    seen[0]["x"][:] = 0.0
    np.testing.assert_array_equal(x, X)


def test_stop_gradient_stops_at_every_order() -> None:
    def f(x: Any) -> Any:
        return x * x * nbad.stop_gradient(x)

    assert nbad.grad(f)(2.0) == 8.0
    assert nbad.grad(nbad.grad(f))(2.0) == 4.0


def test_stop_gradient_leaves_plain_values_alone() -> None:
    assert nbad.stop_gradient(X) is X
    assert nbad.stop_gradient(2.0) == 2.0
