"""Traced values inside lists, where NumPy's protocol does not see them."""

import numpy as np

from nbad import tree
from nbad.trace import is_traced


def array(value, *args, **kwargs):
    first = next((leaf for leaf in tree.leaves(value) if is_traced(leaf)), None)
    return np.array(value, *args, **kwargs) if first is None else np.array(value, *args, like=first, **kwargs)


def of_arrays(function):
    """Return `function`, which then takes a list as the array of it."""

    def called(value, *args, **kwargs):
        return function(array(value) if isinstance(value, list | tuple) else value, *args, **kwargs)

    return called


def append(values, more, axis=None):
    return np.append(array(values), array(more), axis)


class Joined:
    """`np.r_` and `np.c_`, which look into their items before NumPy's protocol can."""

    def __init__(self, plain, ndim):
        self.plain, self.ndim = plain, ndim

    def __getitem__(self, items):
        items = items if isinstance(items, tuple) else (items,)
        if not any(map(is_traced, items)):
            return self.plain[items]
        parts = [self.plain[item] if isinstance(item, slice) else item for item in items]
        if self.ndim == 1:
            return np.concatenate([np.atleast_1d(part) for part in parts])
        columns = [part if np.ndim(part) > 1 else np.reshape(part, (-1, 1)) for part in parts]
        return np.concatenate(columns, axis=-1)
