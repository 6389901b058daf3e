"""Gradients of the NumPy functions that torch names as references of its own, on torch's samples, against torch's gradients."""

import warnings

import numpy as np
import pytest

import nbad
from nbad.errors import DetachError, InputTypeError, NoRuleError

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's tables of samples need it

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo import core

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = (
    core.UnaryUfuncInfo,
    core.BinaryUfuncInfo,
    core.ReductionOpInfo,
    core.SpectralFuncInfo,
    core.ShapeFuncInfo,
    core.OpInfo,
)
SAMPLES = 12
#: References that nbad does not differentiate, and why.
REFUSED = {
    "nn.functional.gelu": "the reference takes the normal distribution from scipy.stats",
    "nn.functional.pdist": "the reference takes the distances from scipy.spatial",
    "linalg.vander": "np.vander has no rule",
}
#: Operations whose reference calls torch, or has other arguments.
LEFT_OUT = ("masked.", "jiterator", "signal.", "nn.functional.conv_transpose")


def cases():
    """Yield (operation, dtype) for every operation with a reference in NumPy and a gradient."""
    for op in op_db:
        if not callable(op.ref) or not op.supports_autograd or op.name.startswith(LEFT_OUT):
            continue
        for dtype in (torch.float64, torch.complex128):
            if dtype in op.supported_backward_dtypes("cpu"):
                name = f"{op.name} {op.variant_test_name}".strip()
                yield pytest.param(op, dtype, id=f"{name} {dtype}".replace("torch.", ""))


def as_array(value):
    return value.numpy(force=True).copy() if isinstance(value, torch.Tensor) else value


def reference(op, dtype, sample):
    """Return the call of the reference as a function of arrays."""
    kwargs = {key: as_array(value) for key, value in sample.kwargs.items()}
    if isinstance(op, core.UnaryUfuncInfo):
        kwargs = op.sample_kwargs("cpu", dtype, sample.input)[1]
    elif isinstance(op, core.ReductionOpInfo):
        names = {"dim": "axis", "keepdim": "keepdims", "correction": "ddof", "unbiased": "ddof"}
        kwargs = {names.get(key, key): value for key, value in kwargs.items()}
    elif isinstance(op, core.SpectralFuncInfo):
        axes = "axis" if op.ndimensional is core.SpectralFuncType.OneD else "axes"
        kwargs = {axes if key == "dim" else key: value for key, value in kwargs.items()}

    def call(*arrays):
        arrays = iter(arrays)
        given = [next(arrays) if is_operand(x) else as_array(x) for x in given_by_position(op, sample)]
        return op.ref(*given, **kwargs)

    return call


def given_by_position(op, sample):
    """Return the arguments that the reference takes by position; those of unary functions have names of their own."""
    return (sample.input,) if isinstance(op, core.UnaryUfuncInfo) else (sample.input, *sample.args)


def is_operand(value):
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def compare(op, dtype, sample):
    """Compare the gradients of one sample; return whether there was something to compare."""
    given = given_by_position(op, sample)
    operands = [x for x in given if is_operand(x)]
    if isinstance(op, core.UnaryUfuncInfo):
        sample.kwargs = op.sample_kwargs("cpu", dtype, sample.input)[0]
    for x in operands:
        x.requires_grad_()
    theirs = op(*given, **sample.kwargs)
    if not operands or not isinstance(theirs, torch.Tensor) or not theirs.requires_grad:
        return False
    arrays = [as_array(x) for x in operands]
    call = reference(op, dtype, sample)
    try:
        mine = call(*arrays)
    except Exception:
        return False  # the reference has not all of torch's arguments
    value = as_array(theirs)
    if np.shape(mine) != value.shape or not np.allclose(mine, value, rtol=1e-7, atol=1e-10, equal_nan=True):
        return False
    rng = np.random.default_rng(0)
    g = rng.normal(size=value.shape) + (1j * rng.normal(size=value.shape) if value.dtype.kind == "c" else 0)
    expected = torch.autograd.grad(theirs, operands, torch.from_numpy(np.asarray(g)), allow_unused=True)
    found = nbad.vjp(call, *arrays)[1](g)
    for a, b in zip(found if len(arrays) > 1 else (found,), expected, strict=True):
        b = np.zeros_like(a) if b is None else as_array(b)
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
