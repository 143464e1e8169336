"""A Pyro model: its prior as the reference, its observations as the likelihood."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from motes.errors import needing
from motes.kernels import State
from motes.laws.adapters.outside import (
    EDGE,
    Outside,
    finite_draws,
    named,
)
from motes.laws.adapters.traced import Traced, bijection, is_real, refuse
from motes.laws.parameters import Values
from motes.rng import Rng, register
from motes.rng.distributions import SAMPLERS

INSTALL = "from_pyro needs Pyro: pip install 'motes[pyro]'"
FIX = "give them a prior with pyro.sample (pyro.poutine.lift, or PyroSample in a module), or make them plain tensors"
MEND = "rescale the parameter, or choose a prior with less mass at the edge"
DOUBLE = (
    "the model is called in float64, with its arguments converted; tensors and modules that it holds itself must be "
    "converted by their owner, with .double()"
)

log = logging.getLogger("motes")

Place = Callable[[dict[str, Any]], Tensor]
"""The value of a latent site."""


def from_pyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Outside:
    """A Pyro model with its data, as prior x likelihood; the evidence is its marginal likelihood.

    The log-prior is that of the sites that are not observed, mapped to real vectors by torch's bijections, with their
    Jacobians; the log-likelihood is that of observed sites and factors. What `scale` and `mask` handlers do to the
    density of a latent site counts as likelihood, so that the reference stays normalised.

    The model is written for one point; it is mapped over particles by `torch.func.vmap`, or, where that cannot be
    (values decide which way the program goes), called for one after the other, which is slow and says so in the log.
    Draws from the prior run the model once a particle, with every site drawn by our generator at the address of the
    site's name and the particle: they depend on nothing else. The model is called with torch's default type float64,
    and without the checks of arguments, both set back afterwards.

    Args:
        model: a function with Pyro primitives, or a PyroModule.
        args, kwargs: what it is called with, its data among them; their float32 tensors become float64.

    Raises:
        ImportError: Pyro is not installed.
        MotesError: the model has discrete latent variables, parameters to be optimised, subsamples its data, or has
            nothing to sample.

    >>> import motes, pyro, torch, pyro.distributions as dist
    >>> from motes.laws.adapters import from_pyro
    >>> def coin(heads, of):
    ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
    ...     pyro.sample("heads", dist.Binomial(of, p), obs=heads)
    >>> run = motes.sample(motes.Tempering(from_pyro(coin, torch.tensor(3.0), of=4)), 512, seed=0, progress=False)
    >>> abs(run.log_evidence + 1.6094) < 0.1  # log(1/5)
    True
    """
    with needing(INSTALL):
        import pyro.distributions
    for family in list(SAMPLERS):  # Pyro's classes are torch's with more methods
        own = vars(pyro.distributions).get(family.__name__)
        if isinstance(own, type) and own is not family and issubclass(own, family):
            register(own)(SAMPLERS[family])
    return Pyro(model, args, kwargs)


class Pyro(Traced):
    """What `from_pyro` returns."""

    source = "pyro"

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        args, kwargs = _double(args), _double(kwargs)
        self._model = lambda: model(*args, **kwargs)
        self.name = getattr(model, "__name__", type(model).__name__)
        try:
            sites = self._sites(lambda site: _drawn(site, Rng(0).at("probe"), 0))
        except RuntimeError as error:
            error.add_note(DOUBLE)
            raise
        latent = {k: s for k, s in sites.items() if _is_latent(s)}
        plates = [k for k, s in sites.items() if _is_subsample(s)]
        part = [k for k in plates if sites[k]["fn"].subsample_size not in (None, sites[k]["fn"].size)]
        refuse(sites, latent, part, FIX)
        self.shapes = {k: tuple(s["value"].shape) for k, s in latent.items()}
        free = {k: _bijection(s).inv(s["value"]) for k, s in latent.items()}
        self._free = {k: tuple(v.shape) for k, v in free.items()}
        self._derived = [k for k, s in sites.items() if s.get("infer", {}).get("_deterministic")]
        self._real = torch.cat(
            [torch.full((v.numel(),), is_real(constraints, latent[k]["fn"])) for k, v in free.items()]
        )
        self.dim = len(self._real)
        self._observes = any(s["type"] == "sample" and s["is_observed"] for s in sites.values())
        z = self.sample(Rng(0).at("probe"), 3).requires_grad_()
        self.vectorised = True
        one = [self._point(row) for row in z]
        try:
            likelihood, prior, _ = self._parts(z)
            pairs = [(likelihood, [p[0] for p in one]), (prior, [p[1] for p in one])]
            same = all(torch.allclose(m, torch.stack(s), equal_nan=True) for m, s in pairs)
            problem = "" if same else "it gives other values for several points at once than for one"
        except Exception as error:  # noqa: BLE001 - the user's code may fail in any way under vmap
            problem = f"{type(error).__name__}: {error}"
        if problem:
            log.warning("%s is called for one particle after the other: %s", self.name, problem)
            self.vectorised: bool = False
        likelihood, prior, _ = self._parts(z)
        self.differentiable = likelihood.requires_grad or (not self._observes and prior.requires_grad)

    # ---------------------------------------------------------------- one point

    def _sites(self, place: Place) -> dict[str, Any]:
        """All sites of the model, with the latent ones at what `place` says."""
        from pyro import poutine
        from pyro.poutine.messenger import Messenger

        class At(Messenger):
            def _pyro_sample(self, msg: Any) -> None:
                if _is_latent(msg):
                    msg["value"], msg["done"] = place(msg), True

        with _float64(), At():
            trace = poutine.trace(self._model).get_trace()
        sites: dict[str, Any] = dict(trace.nodes)
        return {k: s for k, s in sites.items() if s["type"] in ("sample", "param")}

    def _at(self, z: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The sites at one point z (dim,), and the free values of the latent ones."""
        free = self._split(z)
        return self._sites(lambda site: _bijection(site)(free[site["name"]])), free

    def _point(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from pyro.distributions.util import scale_and_mask

        sites, free = self._at(z)
        prior, likelihood = z.new_zeros(()), z.new_zeros(())
        inside = (self._real | (z.abs() < EDGE)).all()
        for name, site in sites.items():
            value, fn = site["value"], site["fn"]
            if _is_subsample(site):
                continue
            counted = scale_and_mask(fn.log_prob(value), site["scale"], site["mask"]).sum()
            if name not in free:
                likelihood = likelihood + counted
                continue
            whole = _unmasked(fn).log_prob(value).sum()
            if site["mask"] is not None or not _is_one(site["scale"]) or _unmasked(fn) is not fn:
                likelihood = likelihood + counted - whole
            prior = prior + whole + _bijection(site).log_abs_det_jacobian(free[name], value).sum()
            inside = inside & fn.support.check(value).all() & torch.isfinite(value).all()
        return likelihood, prior, inside & ~(prior == -math.inf)

    # ---------------------------------------------------------------- batches

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.vectorised:
            likelihood, prior, inside = torch.func.vmap(self._point)(z)
        else:
            likelihood, prior, inside = (torch.stack(v) for v in zip(*map(self._point, z), strict=True))
        return likelihood, prior, inside

    def parts(self, z: Tensor, gradient: bool) -> State:
        z = z.detach()
        if not gradient:
            with torch.no_grad():
                likelihood, prior, inside = self._parts(z)
            return {"log_likelihood": likelihood, "log_prior": prior, "inside": inside}
        likelihood, prior, inside = self._parts(z.requires_grad_())
        return {
            "log_likelihood": likelihood.detach(),
            "log_prior": prior.detach(),
            "inside": inside,
            "likelihood_gradient": _slope(likelihood, z),
            "prior_gradient": _slope(prior, z),
        }

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The Hessians of log-prior and log-likelihood at z (N, dim), each times `vector` (N, dim)."""
        z = z.detach().requires_grad_()
        likelihood, prior, _ = self._parts(z)
        prior, likelihood = (
            _slope((_slope(part, z, again=True) * vector).sum(1), z).detach() for part in (prior, likelihood)
        )
        return prior, likelihood

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the prior, as real vectors."""
        ids = range(n) if rng.ids is None else rng.ids.tolist()
        together: dict[str, tuple[Any, Tensor]] = {}

        def drawn(site: dict[str, Any], row: int, i: int) -> Tensor:
            """The draw of particle i; where all have one distribution they are drawn at once, at the same addresses."""
            name, fn = site["name"], _unmasked(site["fn"])
            if name not in together:
                together[name] = _numbers(fn), rng.at(name).sample(fn, n)
            numbers, draws = together[name]
            return draws[row] if numbers is not None and numbers == _numbers(fn) else _drawn(site, rng, i)

        rows = []
        for row, i in enumerate(ids):
            sites = self._sites(lambda site, row=row, i=i: drawn(site, row, i))
            rows.append(torch.cat([_bijection(sites[k]).inv(sites[k]["value"]).reshape(-1) for k in self._free]))
        return finite_draws(torch.stack(rows).to(torch.float64), MEND)

    def constrain(self, z: Tensor) -> Values:
        """The latent sites and the deterministic ones by name, at real vectors z (N, dim)."""

        def one(z: Tensor) -> dict[str, Tensor]:
            sites, _ = self._at(z)
            return {k: sites[k]["value"] for k in [*self.shapes, *self._derived]}

        with torch.no_grad():
            if self.vectorised:
                return torch.func.vmap(one)(z)
            rows = [one(row) for row in z]
        return {k: torch.stack([row[k] for row in rows]) for k in rows[0]}

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of the latent sites; deterministic ones may be there, and are not looked at."""
        given, rows = named(values, self.shapes), []
        for i in range(len(next(iter(given.values())))):
            sites = self._sites(lambda site, i=i: given[site["name"]][i])
            rows.append(torch.cat([_bijection(sites[k]).inv(sites[k]["value"]).reshape(-1) for k in self._free]))
        return torch.stack(rows)


def _is_latent(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not _is_subsample(site)


def _is_subsample(site: Any) -> bool:
    from pyro.poutine.util import site_is_subsample

    return site_is_subsample(site)


def _drawn(site: dict[str, Any], rng: Rng, i: int) -> Tensor:
    """The value of a latent site for particle i."""
    return rng.at(site["name"]).shard(torch.tensor([i])).sample(_unmasked(site["fn"]), 1)[0]


def _numbers(what: Any) -> Any:
    """Everything that tells one distribution from another of its kind, comparable with ==; None if that is unclear."""
    if isinstance(what, Tensor):
        return tuple(what.shape), what.dtype, what.detach().cpu().numpy().tobytes()
    if what is None or isinstance(what, (bool, int, float, str)):
        return (what,)
    if isinstance(what, (list, tuple)):
        inside = [_numbers(v) for v in what]
        return None if None in inside else inside
    if isinstance(what, (Distribution, Transform, constraints.Constraint)):
        inside = {k: _numbers(v) for k, v in vars(what).items()}
        return None if None in inside.values() else (type(what), inside)
    return None


def _is_one(scale: Any) -> bool:
    return isinstance(scale, (int, float)) and scale == 1


def _unmasked(distribution: Any) -> Any:
    from pyro.distributions import MaskedDistribution

    return _unmasked(distribution.base_dist) if isinstance(distribution, MaskedDistribution) else distribution


def _bijection(site: dict[str, Any]) -> Any:
    return bijection(biject_to, site)


def _slope(part: Tensor, z: Tensor, again: bool = False) -> Tensor:
    if not part.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(part.sum(), z, retain_graph=True, create_graph=again, materialize_grads=True)[0]


def _double(value: Any) -> Any:
    """The same tree with its floating-point tensors in float64."""
    if isinstance(value, Tensor):
        return value.to(torch.float64) if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_double(v) for v in value)
    return {k: _double(v) for k, v in value.items()} if type(value) is dict else value


@contextmanager
def _float64() -> Iterator[None]:
    """New tensors are float64, and arguments of distributions are not checked."""
    import pyro

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.set_default_dtype(before)
