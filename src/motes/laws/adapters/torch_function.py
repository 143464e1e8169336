"""A log-density written in torch, without a prior of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from motes.laws.adapters.adapter_start import around_mode, initial_point
from motes.laws.density import Density
from motes.laws.likelihood import LogLikelihood, batched
from motes.laws.parameters import Parameters, Values
from motes.rng import Rng


def from_torch(
    log_density: LogLikelihood,
    *,
    start: Distribution | Mapping[str, Distribution] | None = None,
    initial: Tensor | int | None = None,
    widen: float = 1.5,
    vectorised: bool | None = None,
    micro_batch: int | Literal["auto"] | None = "auto",
    dtype: torch.dtype = torch.float64,
    compile: bool | Literal["auto"] = "auto",
) -> Density:
    """A log-density in torch, sampled from a start that takes the place of the prior.

    The law is start(x) x [density(x) / start(x)]: the start is normalised, so the evidence is the integral of
    exp(log_density) over the start's support, whatever the start is, as long as it covers the density. Where there is
    a prior and a likelihood, `motes.Density` is the better choice: then the prior is where sampling starts.

    Args:
        log_density: maps the parameters, one tensor (N, d) or a dict of tensors (N, ...), to (N,) nats, or one point to
            a number; -inf where the density is zero.
        start: a `torch.distributions` object over a flat vector, or a dict of them by name; its support is that of the
            parameters. None is a Gaussian around the mode, by the curvature there,, over a flat real vector.
        initial: where there is no start, the number of dimensions, or the point (d,) from which the mode is looked for.
        widen: the factor by which the standard deviations of that Gaussian are stretched.
        vectorised, micro_batch, dtype, compile: see `motes.Density`.

    Raises:
        MotesError: neither `start` nor `initial` is given, or there is no mode.
        ShapeError: the log-density fits neither a batch nor a single point.
        NanLogPotential: it is NaN at a draw from the start.

    >>> import torch, motes
    >>> from motes.laws.adapters import from_torch
    >>> law = from_torch(lambda x: -0.5 * x.square().sum(-1), initial=2)
    >>> run = motes.sample(motes.Tempering(law), 256, seed=0, progress=False)
    >>> abs(run.log_evidence - 1.8379) < 0.2  # log(2 pi)
    True
    """
    if start is None:
        point = initial_point(initial)
        flat = Parameters(Normal(torch.zeros(len(point), dtype=torch.float64), 1.0))
        start = around_mode(_with_gradient(batched(log_density, flat, vectorised)), point, widen)
    parameters = Parameters(start, dtype)
    f = batched(log_density, parameters, vectorised)
    return Density(
        over_start(f, parameters), start, vectorised=True, micro_batch=micro_batch, dtype=dtype, compile=compile
    )


def over_start(f: LogLikelihood, parameters: Parameters) -> LogLikelihood:
    """`f`, a log-density of a batch, less that of the start; without a gradient where `f` has none."""
    z = parameters.sample(Rng(0).at("probe"), 2).requires_grad_()
    flows = f(parameters.constrain(z)[0]).requires_grad

    def log_likelihood(values: Values) -> Tensor:
        prior = parameters.log_prior(values)
        if not flows:
            prior = prior.detach()
        return torch.where(prior > -math.inf, f(values) - prior, -math.inf)

    return log_likelihood


def _with_gradient(f: LogLikelihood) -> Any:
    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = f(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        return value.detach().to(torch.float64), slope

    return both
