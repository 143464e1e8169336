"""A density target as other packages want it: the same prior and likelihood, called back in torch.

So no target is written twice. A call costs a tenth of a millisecond more than the package's own arrays would, which the
seconds of the peers include; the evaluations do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from benchmarks.trust.target import Target
from scipy.special import betaincinv, gammaincinv, ndtri
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Gamma, HalfCauchy, Normal, Uniform

from motes.errors import MotesError

LOWEST = -1e300
"""What packages get that take no infinities."""
TINY = 1e-300
"""Draws that underflow are moved here."""


@dataclass(frozen=True)
class Block:
    """One parameter: its name, its prior and its shape."""

    name: str
    prior: torch.distributions.Distribution
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """(N, size) draws of the prior from (N, size) numbers in (0, 1), independent uniform ones."""
        p = self.prior
        if isinstance(p, Normal):
            return _flat(p.loc, p) + _flat(p.scale, p) * ndtri(u)
        if isinstance(p, HalfCauchy):
            return _flat(p.scale, p) * np.tan(0.5 * math.pi * u)
        if isinstance(p, Uniform):
            return _flat(p.low, p) + (_flat(p.high, p) - _flat(p.low, p)) * u
        if isinstance(p, Beta):
            return betaincinv(_flat(p.concentration1, p), _flat(p.concentration0, p), u)
        if isinstance(p, Gamma):
            return np.maximum(gammaincinv(_flat(p.concentration, p), u) / _flat(p.rate, p), TINY)
        if isinstance(p, Dirichlet):
            gamma = np.maximum(gammaincinv(p.concentration.numpy(), u), TINY)
            return gamma / gamma.sum(-1, keepdims=True)
        raise TypeError(f"no quantiles of {type(p).__name__}")


def _flat(value: Tensor, prior: torch.distributions.Distribution) -> np.ndarray:
    return value.expand(prior.batch_shape).reshape(-1).numpy()


class Problem:
    """Prior, likelihood and functions of a target, for numpy, with a count of the points evaluated.

    Attributes:
        blocks: the parameters.
        dim: numbers in all of them, which is what a point of the unit cube has (a simplex of K has K there).
        free: numbers of an unconstrained point z.
        points: points evaluated so far.
    """

    def __init__(self, target: Target):
        self.target, self.law = target, target.model("Tempering", 64).model.density  # type: ignore[attr-defined]
        parameters = self.law.parameters
        self.blocks = [Block(b.name, b.prior, tuple(b.shape)) for b in parameters.blocks]
        self.flat = parameters.flat
        self.dim, self.free, self.points = sum(b.size for b in self.blocks), self.law.dim, 0

    # ------------------------------------------------------------------------------------------------ constrained

    def from_cube(self, u: np.ndarray) -> np.ndarray:
        """(..., dim) parameters, flattened, from points of the unit cube."""
        rows = np.clip(np.atleast_2d(u), 1e-16, 1 - 1e-16)
        ends = np.cumsum([b.size for b in self.blocks])[:-1]
        parts = [b.quantile(v) for b, v in zip(self.blocks, np.split(rows, ends, axis=1), strict=True)]
        return np.concatenate(parts, 1).reshape(np.shape(u))

    def values(self, x: np.ndarray) -> Any:
        """What the target's functions take, from flattened parameters (N, dim)."""
        named, start = {}, 0
        for b in self.blocks:
            named[b.name] = torch.as_tensor(x[:, start : start + b.size]).reshape(len(x), *b.shape)
            start += b.size
        return named["x"] if self.flat else named

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """(...,) nats at flattened parameters (..., dim)."""
        rows = np.atleast_2d(x)
        self.points += len(rows)
        with torch.no_grad():
            found = self.law._call(self.values(rows), len(rows)).numpy()
        return np.where(np.isnan(found), LOWEST, np.maximum(found, LOWEST)).reshape(np.shape(x)[:-1])

    def with_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same at (N, dim) with gradients (N, dim), zero where they are not finite."""
        self.points += len(x)
        leaf = torch.as_tensor(np.array(x, dtype=float)).requires_grad_()
        value = self.law._call(self.values(leaf), len(leaf))  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        found = value.detach().numpy()
        return np.where(np.isnan(found), -np.inf, found), np.nan_to_num(slope.numpy(), nan=0, posinf=0, neginf=0)

    # ------------------------------------------------------------------------------------------------ unconstrained

    def parts(self, z: np.ndarray, gradient: bool = False) -> dict[str, np.ndarray]:
        """Log-prior and log-likelihood (N,) at real vectors (N, free), with their gradients; -inf where they fail."""
        z = np.asarray(z, dtype=float)
        self.points += len(z)
        try:
            state = self.law.evaluate(torch.as_tensor(z), gradient)
        except (MotesError, ValueError):
            if len(z) > 1:
                rows = [self.parts(row[None], gradient) for row in z]
                return {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
            none = {"log_prior": np.full(1, -np.inf), "log_likelihood": np.full(1, -np.inf)}
            slopes = {k: np.zeros((1, self.free)) for k in ("prior_gradient", "likelihood_gradient")}
            return none | (slopes if gradient else {})
        return {k: v.numpy() for k, v in state.items() if k != "position"}

    def draw(self, seed: int, n: int) -> np.ndarray:
        """(n, free) draws of the prior, as real vectors."""
        from motes import Rng

        return self.law.sample(Rng(seed).at("peer"), n).numpy()

    # ------------------------------------------------------------------------------------------------ what is found

    def functions(self, view: Any) -> dict[str, np.ndarray]:
        """Each listed function (N,) at what `values` or the law's `constrain` returns."""
        return {name: _value(view, f).double().numpy() for name, f in self.target.functions.items()}

    def of_free(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Each listed function at real vectors (N, free)."""
        return self.functions(self.law.constrain(torch.as_tensor(np.asarray(z, dtype=float))))


def _value(view: Any, f: Any) -> Tensor:
    """A function of the parameters, or the number of one place in one, by its name."""
    if not isinstance(f, str):
        return f(view)
    name, _, place = f.rstrip("]").partition("[")
    value = view[name] if isinstance(view, Mapping) else view
    return value[:, int(place)] if place else value


def unknown(mean: Mapping[str, float]) -> dict[str, list[float]]:
    """Means without errors, as a record has them."""
    return {k: [float(v), math.nan] for k, v in mean.items()}


def weighted(found: Mapping[str, np.ndarray], log_weight: np.ndarray) -> dict[str, list[float]]:
    """Weighted means for which the package states no error."""
    w = np.exp(log_weight - log_weight.max())
    return unknown({k: float(w @ v / w.sum()) for k, v in found.items()})
