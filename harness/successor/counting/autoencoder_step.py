"""One training step of many sparse autoencoders, or of many probes, compiled: sparse gradients and Adam in one pass.

Why not autograd: a step's codes have a few active features a token, so three of the four products of the backward
pass and the decoding are nearly all zeros, and what remains, Adam's pass over parameters and moments, is bound by
memory. Here a row's gradient lives in cache only, and the row is updated where it is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# numpy's way with a division by zero: Python's raises, and a loop that may raise is not vectorised (7 times slower).
OPTIONS: dict[str, Any] = {"fastmath": True, "nogil": True, "error_model": "numpy"}


@functools.cache
def compiled(name: str) -> Callable[..., Any]:
    """A pass of this module by name, compiled at its first call; it lets other Python threads run."""
    import numba

    return numba.njit(**OPTIONS)(_PASSES[name]())


def over_seeds(name: str, seeds: int, *arguments: Any) -> None:
    """Run a pass over seeds 0 to `seeds` - 1, in as many threads as torch uses; no seed is touched by two threads."""
    run, threads = compiled(name), min(torch.get_num_threads(), seeds)
    if threads == 1:
        run(0, seeds, *arguments)
        return
    ends = np.linspace(0, seeds, threads + 1).astype(int).tolist()
    jobs = [_pool(threads).submit(run, low, high, *arguments) for low, high in pairwise(ends)]
    for job in jobs:
        job.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="seeds")


def adam_scalars(rate: float, step: int, dtype: Any) -> np.ndarray:
    """What `_adam_row` needs at step 1, 2, ..., in the numbers' own precision.

    Rate over the first bias correction, root of the second's inverse, epsilon, both decays and what is left of them.
    """
    corrected = rate / (1 - BETA1**step), 1 / (1 - BETA2**step) ** 0.5
    return np.array([*corrected, EPSILON, BETA1, 1 - BETA1, BETA2, 1 - BETA2], dtype=dtype)


@functools.cache
def adam_row() -> Callable[..., None]:
    """torch.optim.Adam on one row, compiled: moments, then p -= rate / c1 m / (sqrt(v / c2) + eps)."""
    import numba

    def run(parameter, first, second, gradient, scalars):
        rate, root, eps, b1, rest1, b2, rest2 = scalars
        for j in range(parameter.shape[0]):
            g = gradient[j]
            m = b1 * first[j] + rest1 * g
            v = b2 * second[j] + rest2 * g * g
            first[j] = m
            second[j] = v
            parameter[j] -= rate * m / (np.sqrt(v) * root + eps)

    return numba.njit(**OPTIONS)(run)


@functools.cache
def add_times() -> Callable[..., None]:
    """target += factor row, compiled."""
    import numba

    def run(target, factor, row):
        for j in range(target.shape[0]):
            target[j] += factor * row[j]

    return numba.njit(**OPTIONS)(run)


@functools.cache
def dot() -> Callable[..., Any]:
    """Inner product of two rows, compiled."""
    import numba

    def run(left, right):
        total = left[0] * right[0]
        for j in range(1, left.shape[0]):
            total += left[j] * right[j]
        return total

    return numba.njit(**OPTIONS)(run)


def _autoencoder_pass() -> Callable[..., None]:
    update, add, inner = adam_row(), add_times(), dot()

    def run(low, high, x, raw, weights, first, second, bias, bias1, bias2, shift, shift1, shift2, idle, penalty, unit,
            tied, scalars):  # fmt: skip
        """x (seed, b, d); raw (seed, L, b) pre-activations; weights and moments (seed, 2, L, d): encoder, decoder.

        `penalty` is (l1 / b, 2 / b, 1); raw becomes the slope of the loss in each code.
        """
        n, features = x.shape[1], weights.shape[2]
        wrong, to_encoder, to_decoder = np.empty_like(x[0]), np.empty_like(x[0, 0]), np.empty_like(x[0, 0])
        zero = penalty[0] - penalty[0]
        for s in range(low, high):
            encoder, decoder, codes = weights[s, 0], weights[s, 1], raw[s]
            for b in range(n):
                wrong[b] = shift[s] - x[s, b]
            for f in range(features):
                for b in range(n):
                    code = max(codes[f, b] + bias[s, f], zero)
                    codes[f, b] = code
                    if code > zero:
                        add(wrong[b], code, decoder[f])
            to_encoder[:] = zero
            for b in range(n):
                wrong[b] *= penalty[1]
                add(to_encoder, penalty[2], wrong[b])
            update(shift[s], shift1[s], shift2[s], to_encoder, scalars)
            for f in range(features):
                to_encoder[:] = zero
                to_decoder[:] = zero
                idle[s, f] += 1
                for b in range(n):
                    code = codes[f, b]
                    if code > zero:
                        slope = penalty[0] + inner(wrong[b], decoder[f])
                        add(to_encoder, slope, x[s, b])
                        add(to_decoder, code, wrong[b])
                        codes[f, b] = slope
                        idle[s, f] = 0
                for b in range(1, n):
                    codes[f, 0] += codes[f, b]
                update(bias[s, f : f + 1], bias1[s, f : f + 1], bias2[s, f : f + 1], codes[f, :1], scalars)
                if tied:
                    to_decoder += to_encoder
                else:
                    update(encoder[f], first[s, 0, f], second[s, 0, f], to_encoder, scalars)
                update(decoder[f], first[s, 1, f], second[s, 1, f], to_decoder, scalars)
                if unit:
                    decoder[f] /= np.sqrt(inner(decoder[f], decoder[f]))
                if tied:
                    encoder[f] = decoder[f]

    return run


def _softmax_pass() -> Callable[..., None]:
    def run(low, high, slopes, bias, labels, ends):
        """slopes (seed, b, class): logits less bias, becomes the slope of the mean cross-entropy of each modulus."""
        n = slopes.shape[1]
        for s in range(low, high):
            for b in range(n):
                for group in range(len(ends) - 1):
                    start = ends[group]
                    row = slopes[s, b, start : ends[group + 1]]
                    row += bias[s, start : ends[group + 1]]
                    row[:] = np.exp(row - row.max())
                    row /= row.sum() * n
                    row[labels[s, b, group]] -= row.dtype.type(1) / n

    return run


def _adam_pass() -> Callable[..., None]:
    update = adam_row()

    def run(low, high, parameters, first, second, gradients, scalars):
        for s in range(low, high):
            update(parameters[s], first[s], second[s], gradients[s], scalars)

    return run


_PASSES: dict[str, Callable[[], Callable[..., None]]] = {
    "autoencoder": _autoencoder_pass,
    "softmax": _softmax_pass,
    "adam": _adam_pass,
}
