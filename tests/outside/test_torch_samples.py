"""Gradients of NumPy's and SciPy's functions on the samples of torch's tests, against torch's gradients.

torch names the NumPy function that is the reference of many of its operations; `NUMPY` adds more of them. A sample is compared
where the two functions give the same value.
"""

import functools
import warnings

import numpy as np
import pytest

import nbad
from nbad import tree
from nbad.errors import DetachError, InputTypeError, NoRuleError
from nbad.scipy import linalg, special

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's tables of samples need it

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo import core

pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLES = 12
#: References that nbad does not differentiate, and why.
REFUSED = {
    "nn.functional.gelu": "the reference takes the normal distribution from scipy.stats",
    "nn.functional.pdist": "the reference takes the distances from scipy.spatial",
    "cummax": "np.maximum.accumulate has no rule",
}
#: Operations whose reference calls torch, or has other arguments.
LEFT_OUT = ("masked.", "jiterator", "signal.", "nn.functional.conv_transpose")


#: Of a Hermitian matrix NumPy reads one triangle, and there lies nbad's gradient; torch's is that of both.
HERMITIAN = ("linalg.cholesky", "linalg.eigh", "linalg.eigvalsh", "linalg.pinv hermitian")


def addmm(m, a, b, beta=1, alpha=1):
    return beta * m + alpha * (a @ b)


def sort(x, axis=-1, descending=False, stable=False):
    found = np.sort(x, axis)
    return np.flip(found, axis) if descending else found


NUMPY = {
    **{name: getattr(np, name) for name in (
        "matmul", "dot", "vdot", "inner", "outer", "tensordot", "kron", "trace", "tril", "triu", "diagonal", "flip", "rot90",
        "fliplr", "flipud", "cumsum", "cumprod", "logaddexp", "logaddexp2", "hypot", "copysign", "fmax", "fmin", "gradient",
        "trapezoid", "cov", "corrcoef", "cross", "quantile", "nanquantile", "take", "moveaxis", "swapaxes", "stack", "hstack",
        "vstack", "dstack", "column_stack", "atleast_1d", "atleast_2d", "atleast_3d", "reshape", "squeeze", "unwrap",
    )},
    **{f"linalg.{name}": getattr(np.linalg, name) for name in (
        "inv", "det", "slogdet", "pinv", "solve", "cholesky", "eigvals", "eigvalsh", "eigh", "qr", "matrix_power", "multi_dot",
        "norm", "vector_norm", "matrix_norm", "cond",
    )},
    "linalg.svdvals": functools.partial(np.linalg.svd, compute_uv=False),
    "linalg.matrix_exp": linalg.expm,
    "mm": np.matmul, "mv": np.matmul, "bmm": np.matmul, "addmm": addmm, "sort": sort,
    "atan2": np.arctan2, "take_along_dim": np.take_along_axis, "repeat_interleave": np.repeat, "unsqueeze": np.expand_dims,
    "einsum": lambda arrays, equation: np.einsum(equation, *arrays),
    "index_select": lambda x, axis, index: np.take(x, index, axis),
    "masked_select": lambda x, mask: x[mask],
    "cat": np.concatenate, "complex": lambda a, b: a + 1j * b,
    "cummax": lambda x, axis: np.maximum.accumulate(x, axis),
    "logsumexp": lambda x, axis, keepdims=False: special.logsumexp(x, axis, keepdims=keepdims),
    "softmax": special.softmax, "log_softmax": special.log_softmax,
    "xlogy": special.xlogy, "special.xlog1py": special.xlog1py,
    "mvlgamma": special.multigammaln,
    "polygamma": lambda x, n: special.polygamma(n, x), "special.polygamma": lambda x, n: special.polygamma(n, x),
}  # fmt: skip
#: The output that is compared where there are several.
OUTPUT = {"linalg.slogdet": 1, "linalg.qr": 1}
NAMES = {
    "dim": "axis", "dims": "axis", "keepdim": "keepdims", "dim1": "axis1", "dim2": "axis2",
    "correction": "ddof", "unbiased": "ddof", "interpolation": "method",
}  # fmt: skip


def cases():
    """Yield (operation, dtype) for every operation with a function of NumPy and a gradient."""
    for op in op_db:
        if (
            not (op.name in NUMPY or callable(op.ref))
            or not op.supports_autograd
            or op.name.startswith(LEFT_OUT)
        ):
            continue
        for dtype in (torch.float64, torch.complex128):
            if dtype in op.supported_backward_dtypes("cpu"):
                name = f"{op.name} {op.variant_test_name}".strip()
                yield pytest.param(op, dtype, id=f"{name} {dtype}".replace("torch.", ""))


def as_array(value):
    return value.numpy(force=True).copy() if isinstance(value, torch.Tensor) else value


def is_operand(value):
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def hermitian(a):
    return (a + a.mH) / 2


def first(op, found):
    return found[OUTPUT.get(op.name, 0)] if isinstance(found, tuple | list) else found


def reference(op, dtype, sample, given):
    """Return NumPy's function as one of the arrays among `given`."""
    kwargs = {key: as_array(value) for key, value in sample.kwargs.items()}
    if isinstance(op, core.UnaryUfuncInfo):
        kwargs = op.sample_kwargs("cpu", dtype, sample.input)[1]
    elif isinstance(op, core.SpectralFuncInfo):
        axes = "axis" if op.ndimensional is core.SpectralFuncType.OneD else "axes"
        kwargs = {axes if key == "dim" else key: value for key, value in kwargs.items()}
    elif op.name in NUMPY or isinstance(op, core.ReductionOpInfo):
        kwargs = {NAMES.get(key, key): tuple(x) if isinstance(x, list) else x for key, x in kwargs.items()}
    function = NUMPY.get(op.name, op.ref)

    def call(*arrays):
        arrays = iter(arrays)
        filled = tree.map_leaves(lambda x: next(arrays) if is_operand(x) else as_array(x), given)
        return first(op, function(*filled, **kwargs))

    return call


def compare(op, dtype, sample):
    """Compare the gradients of one sample; return whether there was something to compare."""
    only_hermitian = f"{op.name} {op.variant_test_name}".strip() in HERMITIAN
    given = (hermitian(sample.input) if only_hermitian else sample.input, *sample.args)
    if isinstance(op, core.UnaryUfuncInfo):  # whose options have names that differ from NumPy's
        given, sample.kwargs = given[:1], op.sample_kwargs("cpu", dtype, sample.input)[0]
    operands = [x for x in tree.leaves(given) if is_operand(x)]
    for x in operands:
        x.requires_grad_()
    theirs = first(op, op(*given, **sample.kwargs))
    if not operands or not isinstance(theirs, torch.Tensor) or not theirs.requires_grad:
        return False
    arrays = [as_array(x) for x in operands]
    call = reference(op, dtype, sample, given)
    try:
        mine = call(*arrays)
    except Exception:
        return False  # NumPy's function has not all of torch's arguments
    value = as_array(theirs)
    if np.shape(mine) != value.shape or not np.allclose(mine, value, rtol=1e-7, atol=1e-10, equal_nan=True):
        return False
    rng = np.random.default_rng(0)
    g = rng.normal(size=value.shape) + (1j * rng.normal(size=value.shape) if np.iscomplexobj(mine) else 0)
    expected = torch.autograd.grad(
        theirs, operands, torch.from_numpy(np.asarray(g, value.dtype)), allow_unused=True
    )
    found = nbad.vjp(call, *arrays)[1](g)
    for a, b in zip(found if len(arrays) > 1 else (found,), expected, strict=True):
        b = np.zeros_like(a) if b is None else as_array(b)
        if only_hermitian:
            a, b = (as_array(hermitian(torch.from_numpy(x))) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    return True


@pytest.mark.parametrize(("op", "dtype"), list(cases()))
def test_gradient_is_that_of_torch(op, dtype):
    compared = refused = 0
    samples = list(op.sample_inputs("cpu", dtype))
    for sample in samples[:: max(1, len(samples) // SAMPLES)]:
        try:
            compared += compare(op, dtype, sample)
        except (NoRuleError, DetachError, InputTypeError) as error:
            assert op.name in REFUSED, error
            refused += 1
    assert bool(refused) == (op.name in REFUSED) or not compared
    if not compared:
        pytest.skip(f"none of {len(samples)} samples can be compared; {refused} refused")
