"""What autograd's tests import from its tracer."""

from autograd.core import primitive
from nbad.trace import Traced

__all__ = ["getval", "isbox", "notrace_primitive", "primitive"]


def isbox(value):
    return isinstance(value, Traced)


def getval(value):
    import nbad

    return nbad.stop_gradient(value)


def notrace_primitive(function):
    def plain(*args, **kwargs):
        return function(*map(getval, args), **kwargs)

    return plain
