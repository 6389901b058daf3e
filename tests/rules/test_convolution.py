"""Convolution and correlation: values against SciPy and NumPy, the laws, adjoint pairs, and what each gradient costs."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import Case, Uniform, laws, same_bits
from scipy import signal

import nbad
import nbad.rules.fourier
import nbad.rules.rearranging
from nbad.kernels import threads
from nbad.kernels.lengths import fast_length
from nbad.rules.convolution import box_lengths, part_of

Shape = tuple[int, ...]
BOTH_NAMES = ("convolve", "correlate")
MODES = ("full", "same", "valid", "wrap")
DOUBLE = ("f8",)

# A fixed kernel of odd size, a complex one, and a batch of kernels.
KERNEL = np.random.default_rng(7).standard_normal((2, 3))
COMPLEX_KERNEL = KERNEL + 1j * KERNEL[::-1]
KERNELS = np.random.default_rng(8).standard_normal((3, 2))


def case(
    name: str, u: Shape, v: Shape, mode: str, *, dtypes: tuple[str, ...] = DOUBLE, **options: Any
) -> Case:
    """Return the case of `name` on operands of these shapes; `large` shapes run the law on threads."""
    large = options.pop("large", None)
    axes = options.get("axes")
    return Case(
        f"{name} {mode} {'x'.join(map(str, u))} by {'x'.join(map(str, v))}"
        + ("" if axes is None else f" axes={axes}"),
        functools.partial(getattr(nbad, name), mode=mode, **options),
        [(u, -1.0, 1.0), (v, -1.0, 1.0)],
        dtypes=dtypes,
        exact=False,
        large=None if large is None else [(shape, -1.0, 1.0) for shape in large],
    )


def cotangent_case(name: str, kernel: np.ndarray, shape: Shape, wrt: int, mode: str, **options: Any) -> Case:
    """Return the case of a pullback as a function of its cotangent: the spectrum is at hand, only `g` is traced."""
    function = functools.partial(getattr(nbad, name), mode=mode, **options)

    def pulled(g: Any) -> Any:
        x = np.ones(shape, kernel.dtype)
        pair = (x, kernel) if wrt == 0 else (kernel, x)
        return nbad.vjp(function, *pair, wrt=wrt)[1](g)

    x = np.ones(shape)
    out = function(x, np.ones(kernel.shape)) if wrt == 0 else function(np.ones(kernel.shape), x)
    return Case(
        f"cotangent of {'uv'[wrt]} of {name} {mode} {kernel.dtype}",
        pulled,
        [(out.shape, -1.0, 1.0)],
        dtypes=("c16",) if kernel.dtype.kind == "c" else DOUBLE,
        exact=False,
        off={"masked": "the function sweeps a tape of its own, whose rules the report counts too"},
    )


def of_itself(name: str) -> Case:
    """Return the case where one array is both operands."""
    function = getattr(nbad, name)
    return Case(
        f"{name} with itself",
        lambda u: function(u, u, "wrap"),
        [((7,), -1.0, 1.0)],
        dtypes=DOUBLE,
        exact=False,
    )


CASES = [
    # Each mode of one axis: odd, even, length 1, and v longer than u where that is allowed.
    *(
        case(name, (n,), (m,), mode)
        for name in BOTH_NAMES
        for mode, n, m in (
            ("full", 5, 4),
            ("full", 3, 6),
            ("same", 6, 3),
            ("same", 3, 6),
            ("valid", 7, 4),
            ("valid", 4, 7),
            ("wrap", 6, 6),
            ("wrap", 7, 2),
            ("wrap", 5, 1),
            ("full", 1, 1),
        )
    ),
    # Two and three axes.
    case("convolve", (4, 5), (3, 2), "full"),
    case("correlate", (4, 5), (3, 2), "same"),
    case("convolve", (4, 6), (4, 5), "wrap", dtypes=("f4", "f8"), large=((256, 512), (256, 512))),
    case("correlate", (5, 3), (1, 3), "wrap"),
    case("correlate", (2, 3), (4, 5), "valid"),
    case("convolve", (3, 4, 5), (2, 1, 3), "valid"),
    case("correlate", (2, 4, 3), (2, 3, 2), "wrap"),
    # Some axes only, and batches of either operand.
    case("convolve", (3, 5), (3, 2), "full", axes=1),
    case("correlate", (5, 3), (2, 3), "same", axes=(0,)),
    case("convolve", (4, 2, 5), (3, 2, 2), "wrap", axes=(2, 0)),
    case("convolve", (1, 5), (3, 4), "full", axes=-1),
    case("convolve", (3, 5), (1, 4), "full", axes=-1),
    case("correlate", (1, 5), (3, 4), "wrap", axes=-1),
    case("correlate", (3, 5), (1, 4), "wrap", axes=-1),
    case("convolve", (2, 1, 5), (1, 3, 4), "wrap", axes=2),
    case("correlate", (2, 1, 5), (1, 3, 4), "valid", axes=2),
    case("convolve", (5,), (3, 4), "same", axes=-1),
    case("correlate", (2, 3, 5), (3,), "full", axes=-1),
    # Complex operands, and one of each.
    case("convolve", (4, 3), (2, 3), "full", dtypes=("c16",)),
    case("correlate", (4, 3), (2, 3), "wrap", dtypes=("c16",)),
    *(
        Case(
            f"{name} of real u and complex v" if turn == 0 else f"{name} of complex u and real v",
            functools.partial(getattr(nbad, name), mode="wrap"),
            [Uniform((4, 3), -1.0, 1.0, real=turn == 0), Uniform((2, 3), -1.0, 1.0, real=turn == 1)],
            dtypes=("c16",),
            exact=False,
        )
        for name in BOTH_NAMES
        for turn in range(2)
    ),
    # Only the cotangent is traced.
    *(
        cotangent_case(name, kernel, (2, 3) if wrt else (4, 5), wrt, mode)
        for name in BOTH_NAMES
        for wrt, mode, kernel in (
            (0, "wrap", KERNEL),
            (0, "same", COMPLEX_KERNEL),
            (1, "full", KERNEL),
            (1, "full", COMPLEX_KERNEL),
        )
    ),
    cotangent_case("convolve", KERNELS, (1, 4), 0, "full", axes=1),
    of_itself("convolve"),
    of_itself("correlate"),
]

TestLaws = laws(CASES)


# Values -------------------------------------------------------------------------------------------
def numbers(*shapes: Shape, dtype: Any = np.float64) -> list[np.ndarray]:
    """Return random arrays of these shapes."""
    rng = np.random.default_rng(0)
    found = [rng.standard_normal(shape) for shape in shapes]
    if np.dtype(dtype).kind == "c":
        found = [x + 1j * rng.standard_normal(x.shape) for x in found]
    return [x.astype(dtype) for x in found]


def cyclic(u: np.ndarray, v: np.ndarray, conj: bool) -> np.ndarray:
    """Return the cyclic convolution or correlation of the period of `u`."""
    v_hat = np.fft.fftn(v, s=u.shape, axes=tuple(range(u.ndim)))
    y = np.fft.ifftn(np.fft.fftn(u) * (v_hat.conj() if conj else v_hat))
    return np.asarray(y if np.iscomplexobj(u) else y.real)


@pytest.mark.parametrize("name", BOTH_NAMES)
@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize(
    ("n", "m"),
    [
        ((1,), (1,)),
        ((1,), (4,)),
        ((8,), (3,)),
        ((3,), (8,)),
        ((7,), (4,)),
        ((6, 5), (3, 2)),
        ((2, 3), (5, 3)),
        ((4, 3, 5), (2, 3, 2)),
    ],
)
def test_values(name: str, dtype: str, n: Shape, m: Shape) -> None:
    u, v = numbers(n, m, dtype=dtype)
    for mode in MODES[:3]:
        expected = getattr(signal, name)(u, v, mode, method="direct")
        found = getattr(nbad, name)(u, v, mode)
        assert found.dtype == u.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=mode)
    if all(a >= b for a, b in zip(n, m, strict=True)):
        found = getattr(nbad, name)(u, v, "wrap")
        np.testing.assert_allclose(found, cyclic(u, v, name == "correlate"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BOTH_NAMES)
@pytest.mark.parametrize(
    ("n", "m"),
    [((1, 5), (3, 4)), ((3, 5), (1, 4)), ((5,), (3, 4)), ((2, 3, 5), (3, 4)), ((2, 1, 5), (1, 3, 4))],
)
def test_batches_broadcast(name: str, n: Shape, m: Shape) -> None:
    u, v = numbers(n, m)
    batch = np.broadcast_shapes(n[:-1], m[:-1])
    us, vs = np.broadcast_to(u, (*batch, n[-1])), np.broadcast_to(v, (*batch, m[-1]))
    for mode in MODES[:3]:
        found = getattr(nbad, name)(u, v, mode, axes=-1)
        assert found.shape[:-1] == batch
        for at in np.ndindex(batch):
            np.testing.assert_allclose(
                found[at], getattr(signal, name)(us[at], vs[at], mode), rtol=1e-12, atol=1e-12
            )


def test_axes_in_any_order() -> None:
    u, v = numbers((4, 2, 5), (3, 2, 2))
    orders: tuple[Any, ...] = ((0, 2), (2, 0), (-3, -1), [2, -3], (np.int64(0), np.int64(2)))
    for axes in orders:
        found = nbad.convolve(u, v, axes=axes)
        for k in range(2):
            np.testing.assert_allclose(found[:, k], signal.convolve(u[:, k], v[:, k]), rtol=1e-12, atol=1e-12)


def test_the_dtype_is_the_common_one() -> None:
    u, v = numbers((6,), (3,))
    assert nbad.convolve(u.astype(np.float32), v.astype(np.float32)).dtype == np.float32
    assert nbad.convolve(u.astype(np.float32), v).dtype == np.float64
    assert nbad.convolve(u, v * 1j).dtype == np.complex128


def test_integers_are_constants_in_double_precision() -> None:
    u, v = np.arange(6), np.array([2, 0, 1])
    found = nbad.convolve(u, v)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.convolve(u, v), atol=1e-12)
    x = np.linspace(0.0, 1.0, 6)
    cotangent = nbad.grad(lambda x: np.sum(nbad.convolve(x, v)))(x)
    np.testing.assert_allclose(cotangent, np.full(6, 3.0), atol=1e-12)


# Adjoint pairs ------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["f8", "c16"])
@pytest.mark.parametrize(("there", "back"), [("wrap", "wrap"), ("full", "valid"), ("valid", "full")])
@pytest.mark.parametrize(("name", "other"), [BOTH_NAMES, BOTH_NAMES[::-1]])
def test_each_is_the_adjoint_of_the_other(dtype: str, there: str, back: str, name: str, other: str) -> None:
    u, v = numbers((7, 6), (3, 2), dtype=dtype)
    y, pullback = nbad.vjp(lambda u: getattr(nbad, name)(u, v, there), u)
    (w,) = numbers(y.shape, dtype=dtype)
    adjoint = getattr(nbad, other)(w, v, back)
    np.testing.assert_allclose(np.vdot(w, y), np.vdot(adjoint, u), rtol=1e-12)
    np.testing.assert_allclose(pullback(w), adjoint, rtol=1e-12, atol=1e-12)


# What it costs ------------------------------------------------------------------------------------
N = 15
HALF = 16 * N * (N // 2 + 1)  # bytes of one spectrum of real data


def spectra(bytes_kept: int) -> float:
    return bytes_kept / HALF


@pytest.mark.parametrize("name", BOTH_NAMES)
@pytest.mark.parametrize(
    ("wrt", "sweep", "kept"),
    [
        # Least: the cotangent there and back once; the spectrum of v.
        (0, 2, 1),
        # Least: the same, with the spectrum of u.
        (1, 2, 1),
        # Least: the cotangent there once for both, and back to each; both spectra.
        ((0, 1), 3, 2),
    ],
)
def test_transforms_and_bytes(name: str, wrt: Any, sweep: int, kept: int) -> None:
    u, v = numbers((N, N), (N, N))
    function: Callable[..., Any] = getattr(nbad, name)
    with nbad.report() as forward:
        y, pullback = nbad.vjp(lambda u, v: function(u, v, "wrap"), u, v, wrt=wrt)
    assert forward.ffts == 3  # least: 3, of u, of v, and back
    assert spectra(forward.bytes_kept) == kept
    assert forward.bytes_borrowed == 0
    for _ in range(2):  # the second call repeats nothing of the forward
        with nbad.report() as account:
            pullback(y)
        assert account.ffts == sweep
        assert account.run("filter", "u") == (wrt != 1)
        assert account.run("filter", "v") == (wrt != 0)
    with nbad.report() as account:
        nbad.grad(lambda u, v: np.sum(function(u, v, "wrap")), wrt)(u, v)
    assert account.ffts == 3 + sweep  # least: 5, 5, 6
    assert account.run("filter", "u") == (wrt != 1)
    assert account.run("filter", "v") == (wrt != 0)


@pytest.mark.parametrize(("wrt", "sweep"), [(0, 2), (1, 2), ((0, 1), 3)])
@pytest.mark.parametrize("shapes", [((1, 8), (3, 5)), ((3, 8), (1, 5))])
def test_a_batch_is_summed_in_as_many_transforms(shapes: tuple[Shape, Shape], wrt: Any, sweep: int) -> None:
    y, pullback = nbad.vjp(lambda u, v: nbad.convolve(u, v, axes=1), *numbers(*shapes), wrt=wrt)
    with nbad.report() as account:
        pullback(y)
    assert account.ffts == sweep  # least: one there, one back for each operand


def test_a_product_with_the_hessian() -> None:
    u, v, s = numbers((N, N), (N, N), (N, N))
    gradient = nbad.grad(lambda u: np.sum(nbad.convolve(u, v, "wrap") ** 2))
    with nbad.report() as account:
        found = nbad.grad(lambda u: np.sum(gradient(u) * s))(u)
    # Least when the gradient is evaluated too: 9, 5 for it, and two for the adjoint of each of its two filters.
    # The tenth: the spectrum of v is made once for the tape of each of the two nested calls.
    assert account.ffts == 10
    expected = 2 * nbad.correlate(nbad.convolve(s, v, "wrap"), v, "wrap")
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# What is refused ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", BOTH_NAMES)
@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4,), (3,)), {"mode": "reflect"}, "mode must be 'full', 'same', 'valid' or 'wrap', not 'reflect'"),
        (((4,), (0,)), {}, "an operand is empty"),
        (((0,), (3,)), {"mode": "same"}, "an operand is empty"),
        (((3,), (4,)), {"mode": "wrap"}, "v is longer"),
        (((4, 3), (3, 4)), {"mode": "wrap"}, "v is longer"),
        (((4, 3), (3, 4)), {"mode": "valid"}, "at least as long along each axis"),
        (((4, 3), (3, 3)), {"axes": 2}, "axis 2 does not exist"),
        (((4, 3), (3, 3)), {"axes": (0, -3)}, "axis -3 does not exist"),
        (((4, 3), (3, 3)), {"axes": (1, -1)}, "different axes"),
        (((4, 3), (3, 3)), {"axes": ()}, "one or more"),
        (((2, 4), (3, 4)), {"axes": 1}, "batch axis 0 does not broadcast"),
        (((4, 3), (3,)), {}, "give axes= or reshape"),
        (((), ()), {}, "at least one dimension"),
        (((), (3,)), {}, "give axes= or reshape"),
    ],
)
def test_what_is_refused(
    name: str, shapes: tuple[Shape, Shape], options: dict[str, Any], message: str
) -> None:
    u, v = numbers(*shapes)
    function: Callable[..., Any] = functools.partial(getattr(nbad, name), **options)
    for call in (lambda: function(u, v), lambda: nbad.vjp(function, u, v, wrt=(0, 1))):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            call()


# Threads ------------------------------------------------------------------------------------------
def test_as_many_bits_with_two_threads_in_padded_boxes() -> None:
    u, v = numbers((300, 400), (31, 30))
    before, found = threads.get_threads(), []
    try:
        for count in (1, 2):
            threads.set_threads(count)
            y, pullback = nbad.vjp(lambda u, v: nbad.correlate(u, v, "same"), u, v, wrt=(0, 1))
            found.append([y, *pullback(u)])
    finally:
        threads.set_threads(before)
    for one, two in zip(*found, strict=True):
        assert same_bits(one, two)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_a_box_has_room_for_what_is_asked_for_and_no_more(mode: str) -> None:
    for n, m in [(512, 15), (15, 512), (100, 50), (7, 7), (1, 9)]:
        start, shape = part_of((n,), (m,), mode, False, "convolve")
        (length,) = box_lengths((n,), (m,), start, shape, True)
        # Least: the longer operand, and so much that what comes around falls before the part.
        assert length == fast_length(max(n, m, n + m - 1 - start[0], start[0] + shape[0]), True)
    assert box_lengths((512,), (15,), (14,), (498,), True) == (512,)
