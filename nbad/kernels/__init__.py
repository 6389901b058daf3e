"""Compiled kernels: called by address from the jitted loops, compiled on demand."""
