"""scipy.linalg on traced values."""

from nbad.scipy import linalg


def __getattr__(name):
    return getattr(linalg, name)
