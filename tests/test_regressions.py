"""Bugs that were found once, each named after its symptom."""

import numpy as np
import pytest

import nbad


@pytest.mark.parametrize(("order", "expected"), [(1, 0.0), (2, -(np.pi**2) / 3), (3, 0.0), (4, np.pi**4 / 5)])
def test_sinc_lost_its_higher_derivatives_at_zero(order, expected):
    def derivative(x, order):
        return np.sinc(x) if order == 0 else nbad.grad(lambda t: derivative(t, order - 1))(x)

    np.testing.assert_allclose(derivative(0.0, order), expected, rtol=1e-12, atol=1e-12)


def test_the_shape_of_an_unread_constant_was_that_of_another_slot():
    before, after = np.ones((2, 3)), np.zeros((4, 3))

    def loss(x):
        return np.sum(np.concatenate([before, x, after]) ** 2)

    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(nbad.grad(loss)(x), 2 * x)
