"""scipy.integrate: nbad has no rules for it."""

from scipy.integrate import odeint

__all__ = ["odeint"]
