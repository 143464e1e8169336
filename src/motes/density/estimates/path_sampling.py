"""Path sampling (thermodynamic integration): the evidence from the mean log-likelihood at each temperature."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.run import Run
from motes.errors import MotesError

APART = 4.0
"""Standard errors by which the rule may differ from the weights and still have theirs."""
NEEDS = ("temperature", "log_likelihood_mean", "log_likelihood_variance")


def path_sampling(run: Run, *, correct: bool = True) -> Estimate[Tensor]:
    """The log evidence from the temperatures that a `Tempering` run went through, nats, by the trapezoidal rule.

    With E_b and V_b the mean and the variance of the log-likelihood under prior x likelihood^b,

        log Z = integral_0^1 E_b db  ~  sum_k d_k (E_k + E_k+1) / 2 - d_k^2 (V_k+1 - V_k) / 12,   d_k = b_k+1 - b_k,

    where V = dE/db gives the second term. What is left is the error of the rule, of fourth order in d; where
    neighbouring temperatures leave 0.9 of the effective sample size it was a tenth of the second term or less.

    It uses the same particles as the weights do, so to first order it makes the same error, and the run's standard
    error of the log evidence is its own. It does not exponentiate: a difference of more than the standard error from
    `run.log_evidence` says that temperatures are too far apart or that a few particles carried a step; where it is more
    than four of them there is no error bar.

    References:
        Gelman & Meng (1998), Simulating normalizing constants: from importance sampling to bridge sampling to path
        sampling, Statistical Science 13(2), section 3.
        Friel, Hurn & Wyse (2014), Improving power posterior estimation of statistical evidence, Statistics and
        Computing 24(5), eq. 6, on the second-order term.

    Args:
        run: a finished `Tempering` run.
        correct: with the second term.

    Raises:
        MotesError: the run recorded no such ladder, has not ended, or the likelihood is zero where the prior is not, so
            that the mean at temperature 0 is minus infinity.

    >>> import torch, motes
    >>> from motes.density.estimates.path_sampling import path_sampling
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = motes.Tempering(motes.Density(lambda x: -0.5 * (x / 0.5).square().sum(-1), normal))
    >>> run = motes.sample(model, 512, seed=0, progress=False)
    >>> abs(float(path_sampling(run)) - math.log(1 / 5)) < 0.1
    True
    """
    run = run.alone("path_sampling")
    if any(name not in run.trace for name in NEEDS):
        raise MotesError(f"path sampling needs the trace of a motes.Tempering run, not of {run.setup['model']}")
    raised, mean, variance = (run.trace[name] for name in NEEDS)
    if not run.particles.shared.get("final", False):
        raise MotesError(f"the run stopped at temperature {raised[-1]:.3g}: resume it first")
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise MotesError(
            "the log-likelihood has no finite mean and variance at the first temperature: the likelihood is zero, or "
            "nearly, where the prior is not, and path sampling cannot start there. Use the weights (run.log_evidence) "
            "or bridge sampling"
        )
    at = np.concatenate([[0.0], raised[:-1]])  # each row tells of the temperature that the row before reached
    step = np.diff(at)
    value = float((step * (mean[1:] + mean[:-1]) / 2).sum())
    if correct:
        value -= float((step**2 * np.diff(variance)).sum()) / 12
    error = run.standard_error
    apart, reason = abs(value - run.log_evidence), error.reason
    if not reason and apart > APART * error.value:
        reason = (
            f"it is {apart:.2g} nats from the weights' own log evidence, which knows itself to {error.value:.2g}: the "
            "temperatures are too far apart for the rule"
        )
    found, se = (
        torch.tensor(v, dtype=torch.float64)
        for v in (value, error.value if not reason and math.isfinite(error.value) else math.nan)
    )
    return Estimate(found, se, reason, method="that of the weights", bias="what the trapezoid rule leaves")
