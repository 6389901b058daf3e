"""Settings, and kernels compiled ahead."""

import numpy as np
import pytest

import nbad
from nbad.kernels import block


def test_a_setting_is_put_back_at_the_end_of_the_block():
    with nbad.config(mutation_check=False) as settings:
        assert settings.mutation_check is False
        with nbad.config(mutation_check=True):
            assert settings.mutation_check is True
        assert settings.mutation_check is False
    assert settings.mutation_check is True


def test_an_unknown_setting_is_refused_and_nothing_changes():
    with pytest.raises(TypeError, match="no setting 'fast'"):
        nbad.config(mutation_check=False, fast=True)
    with nbad.config() as settings:
        assert settings.mutation_check is True


def test_an_instruction_set_that_the_machine_lacks_is_refused_and_nothing_changes():
    with pytest.raises(ValueError, match="avx1024"):
        nbad.config(instruction_set="avx1024")
    with nbad.config() as settings:
        assert settings.instruction_set is None


def test_scalar_functions_give_the_same_gradient():
    def loss(x):
        return np.sum(np.exp(x) * np.sin(x))

    x = np.linspace(-2, 2, 101)
    expected = nbad.grad(loss)(x)
    with nbad.config(instruction_set="scalar"):
        np.testing.assert_allclose(nbad.grad(loss)(x), expected, rtol=1e-14)
    np.testing.assert_array_equal(nbad.grad(loss)(x), expected)


def test_idle_memory_is_bounded():
    with nbad.config(memory_limit=0):
        x = np.ones(1 << 18)
        nbad.grad(lambda x: np.sum(x * x * x))(x)
    assert nbad.grad(lambda x: np.sum(x * x * x))(x)[0] == 3


def test_warmup_compiles_the_kernels_that_rules_call():
    count = nbad.warmup([np.float64])
    assert count == np.count_nonzero(block.ADDRESS)
    assert all(block.ADDRESS[block.ID[name], block.F8] for name in ("mul", "cos", "where", "muladd"))
    assert nbad.warmup([]) >= count
    with pytest.raises(TypeError, match="int64"):
        nbad.warmup([np.int64])


def test_warmup_takes_the_convolution_in():
    assert nbad.warmup([np.float64], convolution=True) > 0
