"""numpy.fft, whose functions come to nbad by themselves."""

from numpy.fft import *  # noqa: F403
