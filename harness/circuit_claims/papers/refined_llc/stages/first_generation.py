"""What the published first-generation estimator of the LLC subtracts, and the correction that follows (RL-40). Pure.

The authors' published estimator (timaeus-research/icl, `OnlineLLCEstimator`) runs C chains one after another and, at
each draw, subtracts the mean over *all* chains of the first draw's loss, `losses[:, 0].mean()`. Chains that have not
run yet still hold 0 there, so chain k = 1 .. C subtracts (k/C) L0 in place of L0. Its running mean over T draws counts
the first draw as 0. With n beta = n / ln n, and a loss E[L] under the posterior, chain k ends at

    (T-1)/T n beta (E[L] - (k/C) L0):

the mean over chains is too high by (T-1)/T n beta (C-1)/(2C) L0, and even chains that agree perfectly spread by
(T-1)/T n beta sd(k/C) L0. The published settings (C = 20, T = 200, n = 100) give 10.26 L0 and 6.39 L0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class FirstGeneration:
    """The settings that the factors depend on; the defaults are those of the published run."""

    chains: int = 20
    draws: int = 200
    samples: int = 100

    @property
    def n_beta(self) -> float:
        """Inverse temperature times sample size: n / ln n."""
        return self.samples / math.log(self.samples)

    @property
    def excess(self) -> float:
        """How many times L0 the mean over chains is too high.

        >>> round(FirstGeneration().excess, 2)
        10.26
        """
        return self._scale * (self.chains - 1) / (2 * self.chains)

    @property
    def spread(self) -> float:
        """How many times L0 chains spread that agree perfectly (standard deviation with C - 1).

        >>> round(FirstGeneration().spread, 2)
        6.39
        """
        return self._scale * math.sqrt((self.chains + 1) / (12 * self.chains))

    @property
    def _scale(self) -> float:
        return self.n_beta * (self.draws - 1) / self.draws

    def estimate(self, losses: Float[np.ndarray, "*batch chain draw"]) -> Float[np.ndarray, "*batch chain"]:
        """What the published estimator makes of the chains' sampled losses: one coefficient a chain, wrong as it is."""
        chains, draws = losses.shape[-2:]
        known = np.cumsum(losses[..., 0], axis=-1) / chains  # while chain k runs, later chains' first losses are 0
        return self.n_beta * (losses[..., 1:].sum(-1) - (draws - 1) * known) / draws

    def estimate_right(self, losses: Float[np.ndarray, "*batch chain draw"]) -> Float[np.ndarray, "*batch chain"]:
        """The same with the one L0, the mean of all chains' first losses, that every chain should subtract."""
        draws = losses.shape[-1]
        initial = losses[..., 0].mean(-1)[..., None]
        return self.n_beta * (losses[..., 1:].sum(-1) - (draws - 1) * initial) / draws

    def corrected(
        self, published: Float[np.ndarray, " step"], loss: Float[np.ndarray, " step"]
    ) -> Float[np.ndarray, " step"]:
        """The mean over chains with what it is too high by taken off, `loss` standing for L0."""
        return published - self.excess * loss
