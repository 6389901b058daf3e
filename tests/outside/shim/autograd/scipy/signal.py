"""The convolution of autograd, which can also contract axes and put others side by side, by nbad's, which broadcasts."""

import numpy as np

import nbad


def convolve(A, B, axes=None, dot_axes=((), ()), mode="full"):
    if axes is None:
        axes = [range(np.ndim(A)), range(np.ndim(B))]
    kept = [[k for k in range(np.ndim(x)) if k not in (*axes[i], *dot_axes[i])] for i, x in enumerate((A, B))]
    a, b = (np.transpose(x, [*kept[i], *dot_axes[i], *axes[i]]) for i, x in enumerate((A, B)))
    a = np.expand_dims(a, tuple(range(len(kept[0]), len(kept[0]) + len(kept[1]))))
    count = len(axes[0])
    if count:
        b = np.expand_dims(b, tuple(range(len(kept[0]))))
        y = nbad.convolve(a, b, mode, axes=tuple(range(-count, 0)))
    else:
        y = a * b
    first = len(kept[0]) + len(kept[1])
    return np.sum(y, axis=tuple(range(first, first + len(dot_axes[0]))))
