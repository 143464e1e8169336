"""How much a mean along parallel chains varies, from their autocovariances."""

from __future__ import annotations

import math

from torch import Tensor


def relative_variance(log_gain: Tensor) -> tuple[float, float]:
    """The variance of the log of the mean of exp(log_gain) (M, P) over M chains of P states.

    Geyer's initial monotone sequence: sums of two neighbouring autocovariances, until one is not positive, none larger
    than the one before. All chains share one mean, so what differs between them counts too.

    References:
        Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4), section 3.3.

    Args:
        log_gain: (M, P) nats, chain by chain.

    Returns:
        The variance, NaN if the mean is zero; and what the last pair gives to it if the chains ended before the sum
        did, else 0.
    """
    top = float(log_gain.max())
    if top == -math.inf:
        return math.nan, 0.0
    g = (log_gain - top).exp()
    g = g / g.mean() - 1
    m, p = g.shape
    at = [float((g[:, : p - k] * g[:, k:]).mean()) for k in range(p)]
    if at[0] == 0.0:
        return 0.0, 0.0
    if p == 1:
        return at[0] / (m - 1), 0.0
    # Gamma_j = gamma_2j + gamma_2j+1, Geyer (1992), section 3.3
    total, last = -at[0], math.inf
    for k in range(0, p - 1, 2):
        pair = at[k] + at[k + 1]
        if pair <= 0:
            return max(total, at[0] / (m * p)) / (m * p), 0.0
        last = min(pair, last)
        total += 2 * last
    return total / (m * p), 2 * last / (m * p)
