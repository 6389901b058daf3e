"""Cosine and sine transforms: the matrices of their definitions, any axes and layouts, the same bits for any threads."""

import numpy as np
import pytest

from nbad.kernels import cosine, threads

TOLERANCE = {"f4": 1e-5, "c8": 1e-5, "f8": 1e-12, "c16": 1e-12}
KINDS = [(kind, sine) for kind in (1, 2, 3, 4) for sine in (False, True)]
#: The weighted elements, by kind and whether it is a sine transform.
WEIGHTED = {(1, False): [0, -1], (2, False): [0], (3, False): [0], (2, True): [-1], (3, True): [-1]}


def matrix(kind: int, sine: bool, n: int, end: float = 1.0) -> np.ndarray:
    """Return the matrix of a transform of length `n`, from its definition."""
    row, column = np.arange(n)[:, None], np.arange(n)
    if sine:
        row, column = row + 1, column + 1
    if kind == 1:
        angle = row * column / (n + 1 if sine else n - 1)
    elif kind == 2:
        angle = row * (column + (-0.5 if sine else 0.5)) / n
    elif kind == 3:
        angle = (row + (-0.5 if sine else 0.5)) * column / n
    else:
        angle = (row + (-0.5 if sine else 0.5)) * (column + (-0.5 if sine else 0.5)) / n
    found = 2 * (np.sin if sine else np.cos)(np.pi * angle)
    scale = np.ones(n)
    for place in WEIGHTED.get((kind, sine), []):
        if kind != 2:
            found[:, place] /= 2
        scale[place] = end
    if kind != 2:
        found = found * scale
    return found / scale[:, None] if kind != 3 else found


def numbers(shape, dtype):
    rng = np.random.default_rng(0)
    found = rng.standard_normal(shape)
    return (found + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else found).astype(dtype)


def applied(x, axes, kind, sine, end):
    for axis in axes:
        moved = np.moveaxis(x, axis, -1) @ matrix(kind, sine, x.shape[axis], end).T
        x = np.moveaxis(moved, -1, axis)
    return x


@pytest.mark.parametrize(("kind", "sine"), KINDS)
@pytest.mark.parametrize("end", [1.0, 2**0.5, 2.0])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_axis_is_a_product_with_its_matrix(kind, sine, end, dtype):
    for n in (1, 2, 3, 4, 5, 8, 9, 17, 30):
        if (kind, sine, n) == (1, False, 1):
            continue
        x = numbers((3, n, 2), dtype)
        before = x.tobytes()
        found = cosine.real_transform(x, (1,), kind, sine, 0.5, end)
        expected = 0.5 * applied(x.astype(np.result_type(dtype, "f8")), (1,), kind, sine, end)
        assert (found.dtype, found.shape, x.tobytes()) == (x.dtype, x.shape, before)
        assert np.abs(found - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "sine"), KINDS)
def test_with_twice_the_ends_it_is_the_transposed_matrix_of_the_other_kind(kind, sine):
    other = {2: 3, 3: 2}.get(kind, kind)
    for n in (2, 3, 6, 7):
        found = cosine.real_transform(np.eye(n), (0,), kind, sine, 1.0, 2.0)
        np.testing.assert_allclose(found, matrix(other, sine, n).T, atol=1e-12)
        right = cosine.real_transform(np.eye(n), (0,), kind, sine, 1.0, 2**0.5)
        np.testing.assert_allclose(
            right @ right.T, np.eye(n) * 2 * (n + (0 if kind != 1 else 1 if sine else -1)), atol=1e-11
        )


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "big-endian", "read-only"])
def test_any_axes_and_layouts(axes, layout):
    x = numbers((4, 5, 6), "f8")
    given = {
        "C": x,
        "F": np.asfortranarray(x),
        "reversed": x[::-1, :, ::-1].copy()[::-1, :, ::-1],
        "big-endian": x.astype(">f8"),
        "read-only": x.copy(),
    }[layout]
    if layout == "read-only":
        given.setflags(write=False)
    found = cosine.real_transform(given, axes, 2, True, 1.0, 2**0.5)
    np.testing.assert_allclose(found, applied(x, axes, 2, True, 2**0.5), rtol=1e-11, atol=1e-11)
    assert found.flags.c_contiguous and found.dtype.isnative


@pytest.mark.parametrize(
    ("shape", "axes"), [((300, 301), (0, 1)), ((3, 20_000, 3), (1,)), ((40_000, 7), (1,)), ((200_000,), (0,))]
)
@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_as_many_bits_with_two_threads(shape, axes, dtype):
    x = numbers(shape, dtype)
    before, found = threads.get_threads(), []
    try:
        for count in (1, 2):
            threads.set_threads(count)
            found.append(cosine.real_transform(x, axes, 1, False, 1.0, 2.0))
    finally:
        threads.set_threads(before)
    assert found[0].tobytes() == found[1].tobytes()
    assert np.abs(found[0]).max() > 0
