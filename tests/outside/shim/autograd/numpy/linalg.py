"""numpy.linalg, whose functions come to nbad by themselves, and two helpers that a test takes from autograd's."""

from functools import partial

import numpy as np
from numpy.linalg import *  # noqa: F403

from autograd.numpy.joining import of_arrays

norm = of_arrays(np.linalg.norm)
T = partial(np.swapaxes, axis1=-1, axis2=-2)
_dot = np.matmul
