"""Models that are run to be known, and say at which sites they draw what: those of NumPyro and of Pyro."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from motes.errors import MotesError
from motes.laws.adapters.outside import Outside, Shapes, refuse_discrete, shapes_as_json

Sites = dict[str, dict[str, Any]]
"""The sites of one run of a model by name: "type", "fn" (a distribution), "value", and more."""


class Traced(Outside):
    """The law of the latent sites of a model, known from a run of it."""

    source: ClassVar[str]
    """Of which package the model is."""
    name: str
    shapes: Shapes
    _free: Shapes
    """The shapes of the latent sites as real numbers."""

    def _split(self, z: Any) -> dict[str, Any]:
        """The latent sites as real numbers, at one point z (dim,)."""
        parts, start = {}, 0
        for name, shape in self._free.items():
            parts[name] = z[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return parts

    def settings(self) -> dict[str, Any]:
        """What identifies this density, as JSON."""
        return {"source": self.source, "model": self.name, "parameters": shapes_as_json(self.shapes)}


def refuse(sites: Sites, latent: Sites, plates: list[str], fix: str) -> None:
    """Refuse a model that is no law of real numbers.

    Args:
        plates: those that subsample the data.
        fix: how to give a prior, or a value, to what the package optimises.

    Raises:
        MotesError: it has discrete latent variables, none, parameters to be optimised, or subsamples its data.
    """
    refuse_discrete([k for k, s in latent.items() if s["fn"].support.is_discrete])
    if not latent:
        raise MotesError("the model has no latent variable, so there is nothing to sample")
    if learnt := [k for k, s in sites.items() if s["type"] == "param"]:
        raise MotesError(f"{learnt} are parameters to be optimised, which a law has not: {fix}")
    if plates:
        raise MotesError(f"the plates {plates} subsample the data, so the density is random: leave out subsample_size")


def bijection(biject_to: Callable[[Any], Any], site: dict[str, Any]) -> Any:
    """The map from real numbers to the support of a latent site, one of the package's own.

    Raises:
        MotesError: it has none.
    """
    try:
        return biject_to(site["fn"].support)
    except NotImplementedError as error:
        raise MotesError(f"the support of {site['name']!r} has no map to the real line ({error})") from error


def is_real(constraints: Any, distribution: Any) -> bool:
    """Whether a distribution is on all real numbers, by the package's own constraints."""
    support = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector
