"""How much a mean along parallel chains varies, from their autocovariances, and how many draws that is worth."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_variance(log_gain: Tensor) -> tuple[float, float]:
    """The variance of the log of the mean of exp(log_gain) (M, P) over M chains of P states.

    The autocovariances are summed by Geyer's initial monotone sequence. All chains share one mean, so what differs
    between them counts too.

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
    total, last, end = _geyer(at)
    if end < p:
        return max(total, at[0] / (m * p)) / (m * p), 0.0
    return total / (m * p), 2 * last / (m * p)


def effective_size(value: Tensor) -> float:
    """The effective sample size of the mean of `value` (chains, draws); NaN for less than 4 draws a chain.

    Chains are cut in halves. With W the mean of their variances, V = W (D - 1) / D + variance of their means, D draws a
    half, the autocorrelation at lag t is 1 - (W - mean autocovariance at t) / V. It is summed by Geyer's initial
    monotone sequence, so that chains in different places have a small size.

    References:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Rank-normalization, folding, and localization, Bayesian
        Analysis 16(2), section 3.2; without its rank-normalization.
    """
    half = value.shape[1] // 2
    if half < 2:
        return math.nan
    x = torch.cat([value[:, :half], value[:, -half:]]).double()
    m, d = x.shape
    off = x - x.mean(1, keepdim=True)
    if float(x.max() - x.min()) == 0.0:
        return float(m * d)
    spectrum = torch.fft.rfft(off, n=2 * d)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * d)[:, :d].mean(0) / d
    within = float(covariance[0]) * d / (d - 1)
    total = within * (d - 1) / d + float(x.mean(1).var(correction=1))
    rho = [1.0, *(1 - (within - covariance) / total).tolist()[1:]]
    time, _, end = _geyer(rho)
    time += max(0.0, rho[end]) if end < d else 0.0
    return m * d / max(time, 1 / math.log10(m * d))


def _geyer(gamma: list[float]) -> tuple[float, float, int]:
    """The sum of autocovariances (P,) over lags of both signs by Geyer's initial monotone sequence.

    Sums of two neighbours are added, Gamma_j = gamma_2j + gamma_2j+1, until one is not positive, none larger than the
    one before. With the sum come the last pair that was added and the lag at which it ended, P if nothing ended it.

    References:
        Geyer (1992), Practical Markov chain Monte Carlo, Statistical Science 7(4), section 3.3.
    """
    total, last = -gamma[0], math.inf
    for k in range(0, len(gamma) - 1, 2):
        pair = gamma[k] + gamma[k + 1]
        if pair <= 0:
            return total, last, k
        last = min(last, pair)
        total += 2 * last
    return total, last, len(gamma)
