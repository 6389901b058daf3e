"""NumPy itself, and the few names that autograd has beside it or that NumPy cannot bring to a traced value inside a list."""

import builtins

import numpy as np
from numpy import *  # noqa: F403
from numpy import __version__  # noqa: F401

import autograd.numpy.fft
import autograd.numpy.linalg
import autograd.numpy.random  # noqa: F401
import nbad
from autograd.numpy.joining import Joined, append, array, of_arrays  # noqa: F401
from nbad import tree

mean, std, var = map(of_arrays, (np.mean, np.std, np.var))
row_stack = np.vstack
r_, c_ = Joined(np.r_, 1), Joined(np.c_, 2)


def where(condition, *args, **kwargs):
    """Do as NumPy, but of Python's own numbers and lists make the same: an addition of autograd's."""
    branches = (*args, *kwargs.values())
    found = np.where(condition, *branches)
    own = {type(leaf) for leaf in tree.leaves((condition, *branches))} <= {builtins.bool, int, float}
    return found.tolist() if branches and own else found


def make_diagonal(values, offset=0, axis1=0, axis2=1):
    return values[..., None] * np.eye(np.shape(values)[-1])


def _integer(kind):
    class Integer(kind):
        def __new__(cls, value):
            return kind(nbad.stop_gradient(value))

    return Integer


int32, int64 = _integer(np.int32), _integer(np.int64)
