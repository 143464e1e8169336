"""A `torch.distributions` object as the law to be sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import ShapeError
from motes.laws.adapters.torch_function import from_torch
from motes.laws.density import Density
from motes.laws.parameters import Parameters, Values


def from_distribution(
    distribution: Distribution | Mapping[str, Distribution],
    *,
    start: Distribution | Mapping[str, Distribution] | None = None,
    dtype: torch.dtype = torch.float64,
    compile: bool | Literal["auto"] = "auto",
) -> Density:
    """A torch distribution as the target itself, to try samplers on a law that is known: its log evidence is 0.

    Without a start the draws are exact, by `Rng.sample`, and the likelihood is 1; kernels then start in equilibrium.
    With a start, the law is start x [distribution / start], and samplers have to get from one to the other.

    Args:
        distribution: over a flat vector, or a dict of them by name, which are independent.
        start: of the same names and shapes, with a support that covers the distribution's.

    Raises:
        MotesError: the distribution is discrete.
        ShapeError: the start has other names or shapes.

    >>> import torch, motes
    >>> from motes.laws.adapters import from_distribution
    >>> gamma = torch.distributions.Gamma(torch.tensor([3.0]), 2.0)
    >>> law = from_distribution(gamma, start=torch.distributions.Exponential(1.0))
    >>> run = motes.sample(motes.Tempering(law), 512, seed=0, progress=False)
    >>> abs(run.log_evidence) < 0.2
    True
    """
    target = Parameters(distribution, dtype)
    if start is None:
        return Density(_one, distribution, vectorised=True, dtype=dtype, compile=False)
    given = {b.name: b.shape for b in Parameters(start, dtype).blocks}
    wanted = {b.name: b.shape for b in target.blocks}
    if given != wanted:
        raise ShapeError(f"start must have the names and shapes of the distribution, {wanted}, not {given}")

    def log_density(values: Values) -> Tensor:
        named = {"x": values} if isinstance(values, Tensor) else values
        inside = None
        for b in target.blocks:
            if not b.real:
                legal = b.support.check(named[b.name])
                legal = legal.reshape(len(legal), -1).all(1)
                inside = legal if inside is None else inside & legal
        value = target.log_prior(values)
        return value if inside is None else torch.where(inside, value, -math.inf)

    return from_torch(log_density, start=start, vectorised=True, dtype=dtype, compile=compile)


def _one(values: Values) -> Tensor:
    """The likelihood 1, in nats, with a gradient of zeros."""
    first = values if isinstance(values, Tensor) else next(iter(values.values()))
    return first.reshape(len(first), -1)[:, 0].clamp(0.0, 0.0)
