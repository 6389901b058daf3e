"""scipy.special on traced values."""

from nbad.scipy import special


def __getattr__(name):
    return getattr(special, name)
