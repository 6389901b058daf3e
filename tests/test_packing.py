"""Packing of leaves into a vector and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbad.errors import InputTypeError
from nbad.packing import check_differentiable, ravel
from nbad.tree import leaves, structure

DTYPES = ["<f4", "<f8", ">f4", ">f8", "<c8", "<c16", ">c8", ">c16"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
NUMBERS = st.floats() | st.complex_numbers() | ARRAYS.filter(lambda a: a.size).map(lambda a: a.flat[0])
TREES = st.recursive(
    ARRAYS | NUMBERS | st.none(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=2), children, max_size=3)
    ),
    max_leaves=8,
)


def bits(leaf: Any) -> tuple[Any, ...]:
    """Describe a leaf exactly: type, dtype, shape and bits; NaNs are alike."""
    array = np.array(leaf)
    plain = array.astype(array.dtype.newbyteorder("="))
    for part in (plain.real, plain.imag) if plain.dtype.kind == "c" else (plain,):
        part[np.isnan(part)] = np.nan
    return type(leaf), array.dtype, array.shape, plain.tobytes()


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@given(TREES)
def test_round_trip_is_exact(tree: Any) -> None:
    vector, unravel = ravel(tree)
    assert vector.dtype == np.float64
    assert vector.shape == (sum(np.size(x) * (1 + np.iscomplexobj(x)) for x in leaves(tree)),)
    again = unravel(vector)
    assert structure(again) == structure(tree)
    assert list(map(bits, leaves(again))) == list(map(bits, leaves(tree)))


def test_layout() -> None:
    tree = {"f": np.array([[1, 2], [3, 4]], dtype=np.float32, order="F"), "z": np.array([5 + 6j]), "s": 7.0}
    assert ravel(tree)[0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert ravel(np.arange(6.0)[::-2])[0].tolist() == [5.0, 3.0, 1.0]


def test_nothing_to_pack() -> None:
    vector, unravel = ravel([None, {}])
    assert vector.shape == (0,)
    assert unravel(vector) == [None, {}]


def test_no_memory_is_shared() -> None:
    array = np.ones(3)
    vector, unravel = ravel({"a": array})
    vector[0] = 5.0
    again = unravel(vector)["a"]
    again[1] = 7.0
    assert array.tolist() == [1.0, 1.0, 1.0]
    assert vector.tolist() == [5.0, 1.0, 1.0]
    assert again.flags.writeable


def test_unravel_takes_sequences_and_checks_length() -> None:
    _, unravel = ravel([1.0, 2j])
    assert unravel([1, 2, 3]) == [1.0, 2 + 3j]
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(2,\)"):
        unravel(np.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(3, 1\)"):
        unravel(np.zeros((3, 1)))


class Recorded:
    """Stands for a traced vector: no ndarray, but with the operations that carry derivatives."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("detached")

    def __getitem__(self, index: Any) -> Recorded:
        return Recorded(self.array[index])

    def reshape(self, shape: tuple[int, ...]) -> Recorded:
        return Recorded(self.array.reshape(shape))

    def astype(self, dtype: Any) -> Recorded:
        return Recorded(self.array.astype(dtype))

    def __rmul__(self, number: complex) -> Recorded:
        return Recorded(number * self.array)

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(self.array + other.array)


def test_unravel_of_a_traced_vector_uses_operations_that_carry_derivatives() -> None:
    tree = [np.ones((2, 2), dtype=np.float32), np.array([1 + 2j, 3 + 4j]), 5.0, np.complex64(6 + 7j)]
    vector, unravel = ravel(tree)
    got = [leaf.array for leaf in unravel(Recorded(vector))]
    for new, old in zip(got, tree, strict=True):
        assert np.shape(new) == np.shape(old)
        assert np.asarray(new).dtype == np.asarray(old).dtype
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("good", [1.0, 1j, np.float32(1), np.zeros(0, ">c8"), np.zeros((2, 2))], ids=repr)
def test_floats_are_differentiable(good: Any) -> None:
    check_differentiable("x", good)


BAD = [
    np.arange(3),
    np.array([True]),
    np.float16(1),
    np.array([None]),
    np.zeros(2, dtype=[("a", "f8")]),
    np.ma.array([1.0], mask=[False]),
    3,
    True,
    "text",
    object,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda b: type(b).__name__)
def test_everything_else_is_refused_by_name(bad: Any) -> None:
    with pytest.raises(InputTypeError, match=r"with respect to params\.n: it is "):
        check_differentiable("params.n", bad)
    with pytest.raises(InputTypeError, match=r"tree\['a b'\]\[1\]"):
        ravel({"a b": [1.0, bad]})


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_matrix_is_refused() -> None:
    with pytest.raises(InputTypeError, match=r"np\.matrix"):
        check_differentiable("x", np.matrix([[1.0]]))


def test_unravel_reads_any_vector_and_copies() -> None:
    large = np.ones((512, 512), np.float32)  # lies in recycled memory
    tree = {"z": np.array([1 + 2j, 3 + 4j]), "x": large}
    vector, unravel = ravel(tree)
    for other in (np.repeat(vector, 2)[::2], vector.astype(np.float32), vector.astype(">f8")):
        again = unravel(other)
        assert again["z"].tolist() == [1 + 2j, 3 + 4j]
        again["x"][:] = 0
        assert np.all(other == vector)
