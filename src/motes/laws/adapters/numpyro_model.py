"""A NumPyro model: its prior as the reference, its observations as the likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from motes.errors import MotesError, needing
from motes.kernels import State
from motes.laws.adapters.outside import (
    EDGE,
    Outside,
    finite_draws,
    named,
)
from motes.laws.adapters.traced import Traced, bijection, is_real, refuse
from motes.laws.adapters.with_jax import INSTALL, Batched, Evaluated, flat, keys, x64
from motes.laws.parameters import Values
from motes.rng import Rng

FIX = "fix them with numpyro.handlers.substitute, or give them a prior with numpyro.sample"
IMPROPER = "draw from a proper prior, or use from_jax with a start for a density that has none"


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Outside:
    """A NumPyro model with its data, as prior x likelihood; the evidence is its marginal likelihood.

    The log-prior is that of the sites that are not observed, mapped to real vectors by NumPyro's own bijections, with
    their Jacobians; the log-likelihood is that of observed sites and factors. What `scale` and `mask` handlers do to
    the density of a latent site counts as likelihood, so that the reference stays normalised.

    Draws from the prior come from NumPyro with one Threefry key a particle, made of 64 bits of ours at its address: a
    particle's draw depends on seed and particle, not on how many there are. It does depend on NumPyro's and JAX's
    samplers, so another version of them may draw other numbers. Everything is computed in float64, under
    `jax.enable_x64(True)`; data given as JAX float32 arrays have only the digits that they have.

    Args:
        model: a function with NumPyro primitives.
        args, kwargs: what it is called with, its data among them.

    Raises:
        ImportError: NumPyro is not installed.
        MotesError: the model has discrete latent variables, parameters to be optimised, subsamples its data, or has
            nothing to sample.

    >>> import motes, numpyro, numpyro.distributions as dist
    >>> from motes.laws.adapters import from_numpyro
    >>> def coin(heads, of):
    ...     p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    ...     numpyro.sample("heads", dist.Binomial(of, p), obs=heads)
    >>> run = motes.sample(motes.Tempering(from_numpyro(coin, 3, of=4)), 512, seed=0, progress=False)
    >>> abs(run.log_evidence + 1.6094) < 0.1  # log(1/5)
    True
    """
    with needing(INSTALL):
        import numpyro
    del numpyro
    return NumPyro(model, args, kwargs)


class NumPyro(Traced):
    """What `from_numpyro` returns."""

    source = "numpyro"

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        import jax
        from numpyro import handlers
        from numpyro.distributions import constraints

        self._model = lambda: model(*args, **kwargs)
        self.name = getattr(model, "__name__", type(model).__name__)
        real: list[Any] = []

        def look(words: Any) -> Any:
            """What there is to know of the model; traced, since running it operation by operation is slow."""
            sites = handlers.trace(handlers.seed(self._model, keys(words))).get_trace()
            latent = {k: s for k, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
            plates = [k for k, s in sites.items() if s["type"] == "plate" and s["args"][1] not in (None, s["args"][0])]
            refuse(sites, latent, plates, FIX)
            free = {k: _bijection(s).inv(s["value"]) for k, s in latent.items()}
            self.shapes = {k: tuple(s["value"].shape) for k, s in latent.items()}
            self._free = {k: tuple(v.shape) for k, v in free.items()}
            real.extend(is_real(constraints, latent[k]["fn"]) for k, v in free.items() for _ in range(v.size))
            return flat(free)

        with x64():
            try:
                jax.eval_shape(look, jax.ShapeDtypeStruct((2,), jax.numpy.uint32))
            except NotImplementedError as error:
                raise MotesError(f"a site of the model cannot be drawn ({error}): {IMPROPER}") from error
            self._real = jax.numpy.array(real)
        self.dim = len(self._real)
        self._evaluate = Evaluated(self._parts)
        self.differentiable = self._evaluate.differentiable(self.dim)
        self._draw, self._constrain = Batched(self._drawn), Batched(self._values)
        self._unconstrain = Batched(self._vector)

    # ---------------------------------------------------------------- one point, in JAX

    def _trace(self, z: Any) -> dict[str, Any]:
        """All sites of the model at z."""
        from numpyro import handlers

        free = self._split(z)

        def place(site: dict[str, Any]) -> Any:
            if site["type"] != "sample" or site["name"] not in free:
                return None
            value, bijection = free[site["name"]], _bijection(site)
            i = site["infer"].get("_scan_current_index")
            if i is not None:
                step = len(site["fn"].shape()) - bijection.codomain.event_dim + bijection.domain.event_dim
                value = value[i] if value.ndim > step else value
            return bijection(value)

        return handlers.trace(handlers.substitute(self._model, substitute_fn=place)).get_trace()

    def _parts(self, z: Any) -> tuple[Any, Any, Any]:
        import jax.numpy as jnp

        free, prior, likelihood = self._split(z), jnp.zeros(()), jnp.zeros(())
        inside = (self._real | (jnp.abs(z) < EDGE)).all()
        for name, site in self._trace(z).items():
            if site["type"] != "sample":
                continue
            value = site["value"]
            counted = _log_prob(site["fn"], value, site["intermediates"]).sum()
            if site["scale"] is not None:
                counted = site["scale"] * counted
            if name not in free:
                likelihood = likelihood + counted
                continue
            whole = _log_prob(_unmasked(site["fn"]), value, None).sum()
            if site["scale"] is not None or _unmasked(site["fn"]) is not site["fn"]:
                likelihood = likelihood + counted - whole
            bijection = _bijection(site)
            prior = prior + whole + bijection.log_abs_det_jacobian(free[name], value).sum()
            inside &= jnp.all(site["fn"].support(value)) & jnp.isfinite(value).all()
        return likelihood, prior, inside & ~(prior == -jnp.inf)

    def _drawn(self, words: Any) -> Any:
        from numpyro import handlers

        sites = handlers.trace(handlers.seed(self._model, keys(words))).get_trace()
        return flat({k: _bijection(sites[k]).inv(sites[k]["value"]) for k in self._free})

    def _values(self, z: Any) -> dict[str, Any]:
        sites = self._trace(z)
        derived = [k for k, s in sites.items() if s["type"] == "deterministic"]
        return {k: sites[k]["value"] for k in [*self.shapes, *derived]}

    def _vector(self, values: dict[str, Any]) -> Any:
        from numpyro import handlers

        sites = handlers.trace(handlers.substitute(self._model, data=values)).get_trace()
        return flat({k: _bijection(sites[k]).inv(values[k]) for k in self._free})

    # ---------------------------------------------------------------- batches, in torch

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the prior, as real vectors."""
        return finite_draws(self._draw(rng.at("numpyro").bits((n, 2))), IMPROPER)

    def parts(self, z: Tensor, gradient: bool) -> State:
        return self._evaluate(z, gradient)

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The Hessians of log-prior and log-likelihood at z (N, dim), each times `vector` (N, dim)."""
        prior, likelihood = self._evaluate.curved(z, vector)
        return prior, likelihood

    def constrain(self, z: Tensor) -> Values:
        """The latent sites and the deterministic ones by name, at real vectors z (N, dim)."""
        values = self._constrain(z)
        return {k: values[k] for k in [*self.shapes, *(k for k in values if k not in self.shapes)]}

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of the latent sites; deterministic ones may be there, and are not looked at."""
        return self._unconstrain(named(values, self.shapes))


def _unmasked(distribution: Any) -> Any:
    from numpyro.distributions import ExpandedDistribution, MaskedDistribution

    if isinstance(distribution, MaskedDistribution):
        return _unmasked(distribution.base_dist)
    if isinstance(distribution, ExpandedDistribution) and _unmasked(distribution.base_dist) is not (
        distribution.base_dist
    ):
        return _unmasked(distribution.base_dist).expand(distribution.batch_shape)
    return distribution


def _log_prob(distribution: Any, value: Any, intermediates: Any) -> Any:
    return distribution.log_prob(value, intermediates) if intermediates else distribution.log_prob(value)


def _bijection(site: dict[str, Any]) -> Any:
    from numpyro.distributions import biject_to

    return bijection(biject_to, site)
