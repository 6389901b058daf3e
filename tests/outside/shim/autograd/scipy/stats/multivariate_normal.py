"""The normal density of several variables, written out in NumPy."""

import numpy as np


def logpdf(x, mean, cov, allow_singular=False):
    d = x - mean
    if allow_singular:
        values = np.linalg.eigvalsh(cov)
        values = values[values > 1e-10]
        rank, size, solved = len(values), np.sum(np.log(values)), np.matmul(d, np.linalg.pinv(cov))
    else:
        rank, size = np.shape(cov)[0], np.linalg.slogdet(cov)[1]
        solved = np.transpose(np.linalg.solve(cov, np.transpose(d)))
    return -(np.sum(d * solved, axis=-1) + size + rank * np.log(2 * np.pi)) / 2


def pdf(x, mean, cov, allow_singular=False):
    return np.exp(logpdf(x, mean, cov, allow_singular))


def entropy(mean, cov):
    return (np.shape(cov)[0] * (1 + np.log(2 * np.pi)) + np.linalg.slogdet(cov)[1]) / 2
