"""What a posterior of this collection consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from motes import Density

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """A log-likelihood and a prior, with the names that other programs give to the parameters.

    Attributes:
        name: posteriordb's where it has it.
        log_likelihood: of a batch of N points, each parameter (N, ...), to (N,) nats.
        prior: by name.
        outward: our parameters as the reference's, each (N,).
        inward: the reference's parameters as ours.
    """

    name: str
    log_likelihood: Callable[[Named], Tensor]
    prior: Mapping[str, Distribution]
    outward: Callable[[Named], Named]
    inward: Callable[[Named], Named]

    def density(self, power: float = 1.0, **knobs: Any) -> Density:
        """The posterior with its likelihood to the power of `power`; `knobs` go to `motes.Density`."""
        f = self.log_likelihood if power == 1.0 else lambda p: power * self.log_likelihood(p)
        return Density(f, self.prior, vectorised=True, **knobs)


def real(x: np.ndarray | float) -> Tensor:
    """Data, or a parameter of a prior, in float64: a bare Python number would pass through torch's float32."""
    return torch.as_tensor(x, dtype=torch.float64)


def numbered(name: str, values: Tensor) -> Named:
    """The columns of (N, k) as "name[1]" to "name[k]"."""
    return {f"{name}[{i + 1}]": values[:, i] for i in range(values.shape[1])}


def gathered(name: str, values: Named) -> Tensor:
    """(N, k) from "name[1]" to "name[k]"."""
    k = sum(key.startswith(f"{name}[") for key in values)
    return torch.stack([values[f"{name}[{i + 1}]"] for i in range(k)], 1)


def without(law: Distribution, value: Tensor) -> Tensor:
    """(N,) what to add to a log-likelihood so that the prior `law` of `value` drops out of the posterior.

    So a program without a prior, or with one that cannot be drawn from, is represented exactly: `law` is where
    tempering starts, and the product of prior and likelihood has none of it.
    """
    value = law.log_prob(value)
    return -(value.flatten(1).sum(1) if value.ndim > 1 else value)
