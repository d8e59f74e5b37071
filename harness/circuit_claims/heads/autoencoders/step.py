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

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def compiled_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled when it is first called; what was compiled is kept for the next process where it can be.

    With numpy's way of a division by zero (Python's raises, and a loop that may raise is not vectorised: 7 times
    slower), and without the interpreter's lock, so that threads run side by side.
    """
    settings = {"fastmath": True, "nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # neither beside this file nor in the user's own cache can anything be written
        return numba.njit(**settings)(function)


def over_seeds(run: Callable[..., None], seeds: int, *arguments: Any) -> None:
    """Call a pass of this module for seeds 0 to `seeds` - 1, in as many threads as torch uses.

    No seed is touched by two threads, so the number of threads changes no result.
    """
    threads = min(torch.get_num_threads(), seeds)
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
    """What Adam needs at step 1, 2, ..., in the numbers' own precision.

    Rate over the first bias correction, root of the second's inverse, epsilon, both decays and what is left of them.
    """
    corrected = rate / (1 - BETA1**step), 1 / (1 - BETA2**step) ** 0.5
    return np.array([*corrected, EPSILON, BETA1, 1 - BETA1, BETA2, 1 - BETA2], dtype=dtype)


@compiled_step
def _update(parameter, first, second, gradient, scalars):
    """torch.optim.Adam on one row: moments, then p -= rate / c1 m / (sqrt(v / c2) + eps)."""
    rate, root, eps, b1, rest1, b2, rest2 = scalars
    for j in range(parameter.shape[0]):
        g = gradient[j]
        m = b1 * first[j] + rest1 * g
        v = b2 * second[j] + rest2 * g * g
        first[j] = m
        second[j] = v
        parameter[j] -= rate * m / (np.sqrt(v) * root + eps)


@compiled_step
def _add(target, factor, row):
    for j in range(target.shape[0]):
        target[j] += factor * row[j]


@compiled_step
def _inner(left, right):
    total = left[0] * right[0]
    for j in range(1, left.shape[0]):
        total += left[j] * right[j]
    return total


@compiled_step
def _decode(codes, bias, decoder, wrong):
    """Pre-activations (feature, b) become codes, in place, and what they add is added to `wrong` (b, d)."""
    zero = bias[0] - bias[0]
    for f in range(codes.shape[0]):
        for b in range(codes.shape[1]):
            code = max(codes[f, b] + bias[f], zero)
            codes[f, b] = code
            if code > zero:
                _add(wrong[b], code, decoder[f])


@compiled_step
def _slopes(codes, x, wrong, feature, penalty, to_encoder, to_decoder):
    """Gradients of one feature's rows, and of its bias; returns whether any token activates it.

    `codes` (b) of the feature become the slopes of the loss in them, their sum stands in the first.
    """
    active = False
    to_encoder[:] = 0
    to_decoder[:] = 0
    for b in range(codes.shape[0]):
        if codes[b] > 0:
            active = True
            slope = penalty + _inner(wrong[b], feature)
            _add(to_encoder, slope, x[b])
            _add(to_decoder, codes[b], wrong[b])
            codes[b] = slope
    for b in range(1, codes.shape[0]):
        codes[0] += codes[b]
    return active


@compiled_step
def autoencoder_pass(low, high, x, raw, weights, first, second, bias, bias1, bias2, shift, shift1, shift2, idle,
                     penalty, unit, tied, scalars):  # fmt: skip
    """Loss, gradients and Adam for every run: x (seed, b, d), raw (seed, feature, b) pre-activations less the bias.

    Weights and their moments are (seed, 2, feature, d), encoder then decoder. `penalty` is (l1 / b, 2 / b, 1).
    """
    wrong, to_encoder, to_decoder = np.empty_like(x[0]), np.empty_like(x[0, 0]), np.empty_like(x[0, 0])
    for s in range(low, high):
        encoder, decoder, codes = weights[s, 0], weights[s, 1], raw[s]
        for b in range(x.shape[1]):
            wrong[b] = shift[s] - x[s, b]
        _decode(codes, bias[s], decoder, wrong)
        to_encoder[:] = 0
        for b in range(x.shape[1]):
            wrong[b] *= penalty[1]
            _add(to_encoder, penalty[2], wrong[b])
        _update(shift[s], shift1[s], shift2[s], to_encoder, scalars)
        for f in range(codes.shape[0]):
            active = _slopes(codes[f], x[s], wrong, decoder[f], penalty[0], to_encoder, to_decoder)
            idle[s, f] = 0 if active else idle[s, f] + 1
            _update(bias[s, f : f + 1], bias1[s, f : f + 1], bias2[s, f : f + 1], codes[f, :1], scalars)
            if tied:
                to_decoder += to_encoder
            else:
                _update(encoder[f], first[s, 0, f], second[s, 0, f], to_encoder, scalars)
            _update(decoder[f], first[s, 1, f], second[s, 1, f], to_decoder, scalars)
            if unit:
                decoder[f] /= np.sqrt(_inner(decoder[f], decoder[f]))
            if tied:
                encoder[f] = decoder[f]


def softmax_slopes(
    slopes: Float[Tensor, "seed b class"],
    bias: Float[Tensor, "seed class"],
    labels: Int[Tensor, "seed b modulus"],
    ends: Int[np.ndarray, " modulus_and_one"],
) -> None:
    """Logits less the bias become, in place, the slopes of each modulus' mean cross-entropy.

    The classes of modulus i are `ends[i]` to `ends[i + 1]`. torch takes the exponentials: numba's are not vectorised.
    """
    over_seeds(_below_the_highest, len(slopes), slopes.numpy(), bias.numpy(), ends)
    over_seeds(_shares_less_label, len(slopes), slopes.exp_().numpy(), labels.numpy(), ends)


@compiled_step
def _below_the_highest(low, high, logits, bias, ends):
    for s in range(low, high):
        for b in range(logits.shape[1]):
            logits[s, b] += bias[s]
            for group in range(len(ends) - 1):
                row = logits[s, b, ends[group] : ends[group + 1]]
                row -= row.max()


@compiled_step
def _shares_less_label(low, high, weights, labels, ends):
    n = weights.shape[1]
    for s in range(low, high):
        for b in range(n):
            for group in range(len(ends) - 1):
                row = weights[s, b, ends[group] : ends[group + 1]]
                row /= row.sum() * n
                row[labels[s, b, group]] -= 1 / n


@compiled_step
def adam_pass(low, high, parameters, first, second, gradients, scalars):
    """Adam on each seed's parameters, (seed, any)."""
    for s in range(low, high):
        _update(parameters[s], first[s], second[s], gradients[s], scalars)
