"""Derivatives of functions that numba compiled: the tape of scalars."""
