"""What a resampling scheme is, and the registry that holds them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from motes.core.cite import Reference
from motes.core.registry import Registry
from motes.core.weights import check_log_weight
from motes.errors import AllWeightsZero, MotesError, ShapeError, WrongType, plural
from motes.rng import Rng


@dataclass(frozen=True)
class Scheme:
    """A way to choose N parents for the next generation, so that particle i has n W_i children on average.

    Attributes:
        name: how `motes.sample(resampling=...)` calls it.
        function: (rng, log_weight, n) -> parents (n,); sorted schemes also take `order`.
        variance: which estimator of the literature for the log evidence's variance is right for it, "chan_lai" or
            "lee_whiteley"; None if none is known.
        bounded: the number of children of particle i is promised to be within 1 of n W_i.
        needs_order: takes `order` (N,), a number by which the particles are sorted first.
        same_n: can only make as many children as there are parents.
        references: where it comes from.
    """

    name: str
    function: Callable[..., Tensor]
    variance: Literal["chan_lai", "lee_whiteley"] | None
    bounded: bool = False
    needs_order: bool = False
    same_n: bool = False
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        if self.variance not in ("chan_lai", "lee_whiteley", None):
            raise MotesError(f'variance must be "chan_lai", "lee_whiteley" or None, not {self.variance!r}')

    def __call__(self, rng: Rng, log_weight: Tensor, *, n: int | None = None, order: Tensor | None = None) -> Tensor:
        """The parents of the next generation.

        Args:
            rng: where the random numbers come from.
            log_weight: (N,) float64, nats, not normalised.
            n: number of children; None is N.
            order: (N,) for a sorted scheme.

        Returns:
            (n,) int64 indices into the N particles; one of weight zero is never among them.

        Raises:
            NanLogPotential: a log-weight is NaN or +inf.
            AllWeightsZero: no particle has a positive weight.
            ShapeError: the log-weights are no float64 vector, or `order` has another length or is NaN somewhere.
        """
        check_log_weight(log_weight, None, self.name)
        size = len(log_weight)
        n = size if n is None else n
        if float(log_weight.max()) == -math.inf:
            raise AllWeightsZero(f"{self.name}: all {size} weights are zero, so there are no parents to choose")
        if n < 0 or (self.same_n and n != size):
            raise MotesError(f"{self.name} cannot make {n} children of {plural(size, 'particle')}")
        if not self.needs_order:
            return self.function(rng, log_weight, n)
        if order is None or order.shape != log_weight.shape or bool(order.isnan().any()):
            what = "no order" if order is None else f"an order of shape {tuple(order.shape)}, or with NaN"
            raise ShapeError(f"{self.name} needs order, one number for each of the {size} particles, and got {what}")
        return self.function(rng, log_weight, n, order)


schemes: Registry[Scheme] = Registry("resampling scheme", "motes.core.resampling", named=lambda scheme: scheme.name)
"""All resampling schemes by name."""


def scheme(name: str, **about: object) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register the decorated function as the resampling scheme `name`; see `Scheme` for what else to say about it."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        schemes.register(Scheme(name, function, **about), function)  # type: ignore[arg-type]
        return function

    return register


def find_scheme(name: str | Scheme) -> Scheme:
    """The scheme of that name (a scheme is its own).

    Raises:
        UnknownName: there is none; the message lists those that there are.
        WrongType: it is neither; a function becomes a scheme by `Scheme`.
    """
    if callable(name) and not isinstance(name, Scheme):
        raise WrongType(
            f"{name!r} is no resampling scheme: give a name, or Scheme(name, function, variance) with a function "
            "(rng, log_weight, n) -> parents (n,)"
        )
    return name if isinstance(name, Scheme) else schemes.find(name)
