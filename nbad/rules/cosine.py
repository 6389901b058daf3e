"""Cosine and sine transforms of types 1 to 4.

Owns one linear operation, which is its own adjoint in another form. With M_t the matrix of type t as SciPy defines it under
``norm="backward"``, and D the diagonal matrix that is `c` at the weighted elements (listed in `nbad.kernels.cosine`) and 1
elsewhere,

===========  ====================  ======================================
form         matrix of type t      its transpose
===========  ====================  ======================================
plain        M_t      (c = 1)      transposed, of type t'
orthogonal   c = the root of 2     orthogonal, of type t'
transposed   c = 2                 plain, of type t'
===========  ====================  ======================================

where t' is 3 for 2, 2 for 3, else t, and the matrix is M_t D for type 3, D^-1 M_t for type 2 and D^-1 M_t D for cosines of type
1. For instance M_2 has the entries ``2 cos(pi k (2 n + 1) / (2 N))`` and M_3 is its transpose but for its first column, which
is half as large: so ``M_2^T = M_3 D`` with c = 2. References: Makhoul, IEEE Trans. ASSP 28 (1980) 27; Martucci, IEEE Trans.
Signal Process. 42 (1994) 1038; the tables of SciPy's `dct` and `dst`. The factor of a norm is a number beside the matrix.
"""

import math
from collections.abc import Sequence
from typing import Any

from nbad.errors import NoRuleError
from nbad.kernels import cosine, memory
from nbad.methods import user_line
from nbad.rules.fourier import resized
from nbad.table import operation
from nbad.trace import apply, is_traced

PLAIN, ORTHOGONAL, TRANSPOSED = "plain", "orthogonal", "transposed"
_END = {PLAIN: 1.0, ORTHOGONAL: math.sqrt(2.0), TRANSPOSED: 2.0}
_ADJOINT = {PLAIN: TRANSPOSED, ORTHOGONAL: ORTHOGONAL, TRANSPOSED: PLAIN}
_OTHER = {1: 1, 2: 3, 3: 2, 4: 4}


def real_transform_forward(
    x: Any, *, axes: tuple[int, ...], kind: int, sine: bool, form: str, factor: float
) -> Any:
    """Return the cosine or sine transform of `x` over `axes`, of its real and imaginary part."""
    if is_traced(x):
        return apply(REAL_TRANSFORM, x, axes=axes, kind=kind, sine=sine, form=form, factor=factor)
    if x.size == 0:
        return memory.empty(x.shape, x.dtype.newbyteorder("="))
    return cosine.real_transform(x, axes, kind, sine, factor, _END[form])


def real_transform_x(g: Any, axes: tuple[int, ...], kind: int, sine: bool, form: str, factor: float) -> Any:
    return apply(
        REAL_TRANSFORM, g, axes=axes, kind=_OTHER[kind], sine=sine, form=_ADJOINT[form], factor=factor
    )


REAL_TRANSFORM = operation(real_transform_forward, name="real_transform", x=real_transform_x, linear=True)


def transformed(
    name: str,
    x: Any,
    lengths: Sequence[int],
    axes: Sequence[int],
    *,
    kind: int,
    norm: str | None,
    orthogonalize: bool | None,
) -> Any:
    """Return SciPy's transform `name` (``idstn``, say) of `x`, cut or padded to `lengths` along `axes`.

    Raises
    ------
    ValueError
        An unknown type or norm, or a length that the type does not have.
    NoRuleError
        A complex array and an `orthogonalize` that is not what `norm` implies: SciPy ignores it there.
    """
    sine, inverse = "dst" in name, name.startswith("i")
    if kind not in _OTHER:
        raise ValueError(f"invalid type {kind} of {name}; must be 1, 2, 3 or 4")
    if norm not in (None, "backward", "ortho", "forward"):
        raise ValueError(f'Invalid norm value {norm!r}, should be "backward", "ortho" or "forward"')
    least = 2 if kind == 1 and not sine else 1
    if any(n < least for n in lengths):
        raise ValueError(f"invalid number of data points ({list(lengths)}) specified")
    orthogonal = norm == "ortho" if orthogonalize is None else bool(orthogonalize)
    if orthogonal != (norm == "ortho") and x.dtype.kind == "c":
        raise NoRuleError.of(
            f"scipy.fft.{name} of a complex array with orthogonalize={orthogonalize}",
            at=user_line(),
            instead="SciPy ignores it there: transform x.real and x.imag.",
        )
    total = 2.0 ** len(lengths) * math.prod(n + (0 if kind != 1 else 1 if sine else -1) for n in lengths)
    if norm == "ortho":
        factor = 1 / math.sqrt(total)
    else:
        factor = 1 / total if inverse != (norm == "forward") else 1.0
    return apply(
        REAL_TRANSFORM, resized(x, lengths, axes), axes=tuple(sorted(axes)), kind=_OTHER[kind] if inverse else kind,
        sine=sine, form=ORTHOGONAL if orthogonal else PLAIN, factor=factor,
    )  # fmt: skip
