"""Vectors of containers, and recorded functions."""

from functools import partial

import nbad

__all__ = ["const_graph", "flatten"]


def flatten(value):
    return nbad.ravel(value)


def const_graph(fun, *args, **kwargs):
    return nbad.compile(partial(fun, *args, **kwargs))
