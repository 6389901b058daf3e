"""autograd's operators, each spelled as the transformation of nbad that does the same."""

import inspect

import numpy as np

import nbad
from autograd.core import conjugated, vspace
from autograd.core import make_jvp as _make_jvp
from autograd.core import make_vjp as _make_vjp
from autograd.wrap_util import unary_to_nary

make_vjp = unary_to_nary(_make_vjp)
make_jvp = unary_to_nary(_make_jvp)


def _scalar(fun):
    """Return `fun` with an output of one number reshaped to a scalar, which autograd leaves to its user."""

    def scalar(x):
        y = fun(x)
        return np.reshape(y, ()) if np.ndim(y) and np.size(y) == 1 else y

    return scalar


@unary_to_nary
def grad(fun, x):
    """
    Returns a function which computes the gradient of `fun`, by `nbad.grad`.
    """
    return conjugated(nbad.grad(_scalar(fun))(x))


@unary_to_nary
def value_and_grad(fun, x):
    value, gradient = nbad.value_and_grad(fun)(x)
    return value, conjugated(gradient)


@unary_to_nary
def grad_and_aux(fun, x):
    gradient, aux = nbad.grad(fun, has_aux=True)(x)
    return conjugated(gradient), aux


@unary_to_nary
def holomorphic_grad(fun, x):
    return conjugated(nbad.grad(lambda z: np.real(fun(z)))(x))


@unary_to_nary
def elementwise_grad(fun, x):
    vjp, value = _make_vjp(fun, x)
    return vjp(vspace(value).ones())


@unary_to_nary
def deriv(fun, x):
    return _make_jvp(fun, x)(vspace(x).ones())[1]


@unary_to_nary
def jacobian(fun, x):
    return nbad.jacobian(fun)(x)


@unary_to_nary
def hessian(fun, x):
    return nbad.hessian(_scalar(fun))(x)


@unary_to_nary
def make_hvp(fun, x):
    return _make_vjp(nbad.grad(fun), x)


def hessian_tensor_product(fun, argnum=0):
    return nbad.hvp(fun, argnum)


hessian_vector_product = hessian_tensor_product


def tensor_jacobian_product(fun, argnum=0):
    def product(*args, **kwargs):
        *args, vector = args
        return np.tensordot(vector, fun(*args, **kwargs), axes=np.ndim(vector))

    return jacobian(product, argnum)


vector_jacobian_product = tensor_jacobian_product


def grad_named(fun, argname):
    return grad(fun, inspect.getfullargspec(fun).args.index(argname))


def make_ggnvp(f, g=lambda x: 0.5 * np.sum(x**2, axis=-1), f_argnum=0):
    @unary_to_nary
    def make(f, x):
        value, linear = nbad.linearize(f, x)
        return lambda v: linear.vjp(nbad.hvp(g)(value, linear.jvp(v)))

    return make(f, f_argnum)


def checkpoint(fun):
    return nbad.checkpoint(fun)
