"""numpy.random, of plain numbers."""

from numpy.random import *  # noqa: F403
