"""Accounts of what a call did."""

from typing import Any

import numpy as np
import pytest

import nbad
from nbad.report import Report, count_ffts, current

X, Y = np.array([0.5, 1.0, 1.5]), np.array([2.0, 3.0, 4.0])


def product(x: Any, y: Any) -> Any:
    return np.sum(np.sin(x) * y)


def test_what_ran_and_what_was_skipped() -> None:
    with nbad.report() as account:
        nbad.grad(product)(X, Y)
    assert account.rules_run == {("sin", "x"): 1, ("multiply", "a"): 1, ("sum_all", "x"): 1}
    assert account.rules_skipped == {("multiply", "b"): 1}
    assert account.run("multiply", "a") == 1
    assert account.run("multiply", "b") == 0
    assert account.skipped("multiply", "b") == 1
    assert account.pullbacks == 3
    assert (account.nodes, account.sweeps, account.ffts) == (3, 1, 0)


def test_bytes_kept_and_borrowed() -> None:
    with nbad.report() as account:
        nbad.grad(product)(X, Y)
    # sin reads x and multiply reads y, both the caller's own
    assert (account.bytes_kept, account.bytes_borrowed) == (0, X.nbytes + Y.nbytes)
    with nbad.report() as account:
        nbad.grad(product, "y")(X, Y)
    # y's pullback reads sin(x), which is a constant here: computed by NumPy, seen by us as the caller's
    assert account.bytes_kept + account.bytes_borrowed == X.nbytes
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(np.exp(x)))(X)
    assert (account.bytes_kept, account.bytes_borrowed) == (X.nbytes, 0)
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(x + 1.0))(X)
    assert (account.bytes_kept, account.bytes_borrowed) == (0, 0)


def test_an_array_kept_for_two_pullbacks_counts_once() -> None:
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(np.sin(x) + np.cos(x) + x * x))(X)
    assert (account.bytes_kept, account.bytes_borrowed) == (0, X.nbytes)


def test_calls_add_up_and_reports_nest() -> None:
    with nbad.report() as outer:
        nbad.grad(product)(X, Y)
        with nbad.report() as inner:
            nbad.grad(product)(X, Y)
            nbad.grad(product, "y")(X, Y)
        nbad.grad(product)(X, Y)
    assert inner.sweeps == 2
    assert outer.sweeps == 4
    assert inner.run("multiply", "a") == 1
    assert inner.run("multiply", "b") == 1
    assert outer.run("multiply", "a") == 3


def test_nothing_is_heard_outside() -> None:
    with nbad.report() as account:
        pass
    nbad.grad(product)(X, Y)
    assert account == Report()
    assert current() == ()


def test_an_error_ends_the_report() -> None:
    with pytest.raises(ZeroDivisionError), nbad.report() as account:
        raise ZeroDivisionError
    assert current() == ()
    assert account.sweeps == 0


def test_each_call_of_a_pullback_counts() -> None:
    with nbad.report() as account:
        _, pullback = nbad.vjp(product, X, Y, wrt="x")
    assert account.sweeps == 0
    assert account.skipped("multiply", "b") == 1
    with nbad.report() as account:
        pullback(1.0)
        pullback(2.0)
    assert account.sweeps == 2
    assert account.run("sin", "x") == 2


def test_many_nodes_of_one_kind() -> None:
    def chain(x: Any) -> Any:
        for _ in range(100):
            x = np.sin(x) * 0.5
        return np.sum(x)

    with nbad.report() as account:
        nbad.grad(chain)(X)
    assert account.run("sin", "x") == 100
    assert account.run("multiply", "a") == 100
    assert account.skipped("multiply", "b") == 100
    assert account.nodes == 201


@pytest.mark.parametrize("size", [1, 5, 3000, 200_000])
def test_the_account_is_the_same_for_every_size(size: int) -> None:
    with nbad.report() as account:
        nbad.grad(product)(np.ones(size), np.ones(size))
    assert account.rules_run == {("sin", "x"): 1, ("multiply", "a"): 1, ("sum_all", "x"): 1}


def test_higher_orders_are_counted_too() -> None:
    with nbad.report() as account:
        nbad.grad(lambda x: np.sum(nbad.grad(lambda x: np.sum(np.sin(x)))(x)))(X)
    assert account.sweeps == 2
    assert account.run("sin", "x") == 1
    assert account.run("cos", "x") == 1  # of the second order


def test_ffts_are_counted_where_they_run() -> None:
    with nbad.report() as account:
        nbad.grad(lambda u: np.sum(np.real(np.fft.ifft(np.fft.fft(u) * np.fft.fft(Y)))))(X)
    # forward: u and back (the one of the constant is NumPy's own), sweep: two
    assert account.ffts == 4
    with nbad.report() as account:
        np.fft.fft(X)
    assert account.ffts == 0


def test_counting_by_hand() -> None:
    with nbad.report() as outer, nbad.report() as inner:
        count_ffts()
        count_ffts(3)
    assert (outer.ffts, inner.ffts) == (4, 4)


def test_times_are_measured() -> None:
    with nbad.report() as account:
        nbad.grad(product)(X, Y)
    assert account.time_forward > 0
    assert account.time_sweep > 0


def test_the_table_for_people() -> None:
    with nbad.report() as account:
        nbad.grad(product)(X, Y)
    text = str(account)
    for words in (
        "nodes recorded",
        "pullbacks run     3",
        "pullbacks skipped 1",
        "FFTs",
        "multiply, b: 0 run, 1 skipped",
    ):
        assert words in text
