"""Many cotangents at once give what they give one by one, for any operation and for those of its sweep."""

from typing import Any

import numpy as np
import pytest
from cases import all_cases
from laws import Case

import nbad
from nbad import tree
from nbad.batched import BATCHED, batch_size
from nbad.recorded import Recorded, has_derivative, one_by_one
from nbad.table import TABLE


def check(run: Recorded) -> None:
    rng = np.random.default_rng(0)
    run.settle()
    wanted = list(range(len(run.listed)))
    if not run.live or run.batch == 1:
        return
    seeds = {}
    for i in run.live:
        shape, dtype = np.shape(run.outputs[i]), np.result_type(run.outputs[i])
        seed = rng.normal(size=(3, *shape)) + (
            1j * rng.normal(size=(3, *shape)) if dtype.kind == "c" else 0.0
        )
        seeds[i] = np.asarray(seed, dtype)
    with np.errstate(all="ignore"):
        expected = one_by_one(run.pull, seeds, wanted)
    for one, other in zip(run.pull_many(seeds, wanted), expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        tolerance = 1e3 * np.finfo(other.dtype).eps
        scale = np.abs(other[np.isfinite(other)]).max(initial=1.0)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(("case", "dtype"), all_cases())
def test_a_batch_gives_what_single_cotangents_give(case: Case, dtype: str) -> None:
    args, wrt = case.draw(dtype)
    places = tuple((k,) for k in wrt)
    check(Recorded("batch", case.function, tuple(args), {}, places))

    def gradient(*args: Any) -> Any:  # its tape holds the operations of sweeps
        value, pullback = nbad.vjp(case.function, *args, wrt=places)
        weights = [
            np.cos(np.arange(np.size(leaf))).reshape(np.shape(leaf)) if has_derivative(leaf) else leaf
            for leaf in tree.leaves(value)
        ]
        return pullback(tree.rebuild(value, weights))

    if "second" not in case.off:
        check(Recorded("batch", gradient, tuple(args), {}, places))


def test_batched_pullbacks_belong_to_operations() -> None:
    assert set(BATCHED) <= {op.name for op in TABLE}


def size_for(f: Any, x: Any) -> int:
    run = Recorded("batch", f, (x,), {}, 0)
    return batch_size(run.frozen, run.activity(run.live, [0]))


def test_large_cotangents_are_swept_one_by_one() -> None:
    assert size_for(np.sin, np.ones(1 << 13)) == 1
    assert size_for(np.sin, np.ones(1 << 10)) == 64
    assert size_for(lambda x: np.ones((200, 200)) @ x, np.ones(200)) == 256  # a constant is no cotangent
    traced = []

    def f(x: Any) -> Any:
        traced.append(size_for(np.sin, x))
        return np.sum(x)

    nbad.grad(f)(np.ones(3))
    assert traced == [1]


def test_every_pullback_of_a_batch_is_counted() -> None:
    @nbad.primitive(x=lambda g, y: g * y)
    def exponential(x):
        return np.exp(x)

    with nbad.report() as account:
        found = nbad.jacobian(lambda x: np.sin(exponential(x)))(np.zeros(3))
    np.testing.assert_allclose(found, np.cos(1.0) * np.eye(3), rtol=1e-14)
    # One call serves all rows of sin; the rule of a user takes single cotangents.
    assert account.rules_run == {("sin", "x"): 1, ("exponential", "x"): 3}
    assert account.sweeps == 1
