"""Containers and questions about types: nbad's traced functions are given Python's own containers."""

import builtins

import nbad

tuple, list, dict = builtins.tuple, builtins.list, builtins.dict


def isinstance(value, kind):
    return builtins.isinstance(nbad.stop_gradient(value), kind)


def type(value):
    return builtins.type(nbad.stop_gradient(value))
