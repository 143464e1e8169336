"""Parameters with supports: a prior over names, seen from outside constrained and from inside as a flat real vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution, biject_to, constraints
from torch.distributions.transforms import Transform, identity_transform

from motes.errors import MotesError, ShapeError, name_particles
from motes.laws.log_space import LogSpace, log_space
from motes.rng import Rng

Values = Tensor | dict[str, Tensor]
"""Constrained parameters: one tensor (N, d), or tensors (N, ...) by name."""


@dataclass(frozen=True)
class ParameterBlock:
    """One parameter: where it sits in the flat vector, and how it gets there."""

    name: str
    prior: Distribution
    support: constraints.Constraint
    bijection: Transform
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int
    logs: LogSpace | None = None
    """What takes the place of the bijection where the prior's draws may underflow."""

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.free_shape)

    @property
    def real(self) -> bool:
        return self.bijection is identity_transform


class Parameters:
    """A prior and the map between its parameters and real vectors z (N, dim).

    Args:
        prior: a `torch.distributions` object over a flat vector, or a dict of them by name. All batch dimensions count
            as independent components of one parameter.

    Raises:
        MotesError: a prior is discrete, or its support has no map to the real line.
    """

    flat: bool
    dtype: torch.dtype

    def __init__(self, prior: Distribution | Mapping[str, Distribution], dtype: torch.dtype = torch.float64):
        self.flat, self.dtype = isinstance(prior, Distribution), dtype
        named = {"x": prior} if isinstance(prior, Distribution) else prior
        if not named or not isinstance(named, Mapping):
            raise MotesError("a prior is a torch.distributions object, or a dict of them by name that is not empty")
        self.blocks: list[ParameterBlock] = []
        for name, distribution in named.items():
            start = self.blocks[-1].stop if self.blocks else 0
            self.blocks.append(_block(name, distribution, start, self.flat, dtype))
        self.dim: int = self.blocks[-1].stop
        self.real: bool = all(b.real for b in self.blocks)
        self._normal = _normal(self.blocks) if self.real else None

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the prior."""
        z = []
        for b in self.blocks:
            if b.logs is not None:
                z.append(b.logs.sample(rng.at(b.name), n).reshape(n, -1))
                continue
            draw = rng.at(b.name).sample(b.prior, n).to(self.dtype)
            z.append(as_tensor(b.bijection.inv(draw)).reshape(n, -1))
        z = torch.cat(z, 1)
        bad = (~torch.isfinite(z).all(1)).nonzero().flatten().tolist()
        if bad:
            raise MotesError(
                f"the prior drew a point on the edge of its support for {name_particles(bad)}: the draw underflows or "
                "overflows; rescale the parameter or choose a prior with less mass at the edge"
            )
        return z

    def constrain(self, z: Tensor) -> tuple[Values, Tensor | None, Tensor | None]:
        """The parameters at z (N, dim), the log-determinant of the map's Jacobian (N,), and where it did not overflow.

        The last two are None where they are zero and true everywhere. A point whose parameters underflow or overflow
        to the edge of their support counts as outside. Of a prior in logarithms (see `LogSpace`) the second is the
        log-density of z less that of the parameters, so that with `log_prior` it adds up to that of z.
        """
        if self.flat and self.real:
            return z, None, None
        values: dict[str, Tensor] = {}
        jacobian = inside = None
        edge = math.log(torch.finfo(self.dtype).max) - 10  # exp of it, of its negative, and 1 over that are all normal
        for b in self.blocks:
            free = z[:, b.start : b.stop].reshape(-1, *b.free_shape)
            if b.logs is not None:
                value = b.logs.value(free)
                volume = _rows(b.logs.log_density(free)) - _rows(b.prior.log_prob(value))
                legal = _rows(torch.isfinite(free), all)
            elif b.real:
                values[b.name] = free
                continue
            else:
                value = as_tensor(b.bijection(free))
                volume = _rows(b.bijection.log_abs_det_jacobian(free, value))
                legal = _rows(b.support.check(value) & _finite(value, b.support.event_dim), all)
                legal = legal & _off_the_edge(b.support, value)
                legal = legal & _rows(free.abs() < edge, all)
            values[b.name] = value
            jacobian = volume if jacobian is None else jacobian + volume
            inside = legal if inside is None else inside & legal
        return (values["x"] if self.flat else values), jacobian, inside

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of parameters with a first axis of N points."""
        named = {"x": values} if isinstance(values, Tensor) else values
        if named.keys() != {b.name for b in self.blocks}:
            raise MotesError(f"the parameters are {[b.name for b in self.blocks]}, not {list(named)}")
        parts = []
        for b in self.blocks:
            value = named[b.name].to(self.dtype)
            if tuple(value.shape[1:]) != b.shape:
                legal = ", ".join(("N", *map(str, b.shape)))
                raise ShapeError(f"{b.name} must have shape ({legal}), not {tuple(value.shape)}")
            free = as_tensor(b.bijection.inv(value)) if b.logs is None else b.logs.inverse(value)
            parts.append(free.reshape(len(value), -1))
        return torch.cat(parts, 1)

    def log_prior(self, values: Values) -> Tensor:
        """(N,) the prior's log-density at constrained parameters, nats."""
        named = {"x": values} if isinstance(values, Tensor) else values
        total = None
        for b in self.blocks:
            term = _rows(b.prior.log_prob(named[b.name]))
            total = term if total is None else total + term
        assert total is not None
        return total

    def normal(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Log-density (N,) and its gradient (N, dim) in closed form, where every prior is an independent normal."""
        if self._normal is None:
            return None
        location, precision, constant = self._normal
        off = z - location
        pull = off * precision
        return torch.linalg.vecdot(off, pull).mul_(-0.5).add_(constant), pull.neg_()


def _block(name: str, prior: Distribution, start: int, flat: bool, dtype: torch.dtype) -> ParameterBlock:
    if not isinstance(prior, Distribution):
        raise MotesError(f"the prior of {name!r} is a {type(prior).__name__}, not a torch.distributions object")
    if flat and not prior.batch_shape and not prior.event_shape:
        prior = prior.expand(torch.Size([1]))
    shape = tuple(prior.batch_shape + prior.event_shape)
    if flat and len(shape) != 1:
        raise MotesError(f"a flat prior is over one vector (d,), not {shape}; give parameters of other shapes a name")
    try:
        support = prior.support
        if support is None or support.is_discrete:
            raise NotImplementedError("it is discrete")
        bijection = identity_transform if _is_real(support) else biject_to(support)
        free_shape = tuple(bijection.inverse_shape(torch.Size(shape)))
    except NotImplementedError as error:
        raise MotesError(
            f"the support of {name!r}'s prior, {type(prior).__name__}, has no map to the real line ({error}): sum a "
            "discrete parameter out of the likelihood, or choose another parametrisation"
        ) from error
    prior = unchecked(prior, dtype)
    logs = log_space(prior, dtype)
    return ParameterBlock(
        name, prior, support, bijection, shape, free_shape if logs is None else logs.free_shape, start, logs
    )


def _off_the_edge(support: constraints.Constraint, value: Tensor) -> Tensor:
    """(N,) no rounding onto the ends of an interval, which supports that are closed count as inside."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, type(constraints.unit_interval)):  # torch's class of all intervals
        return _rows((value > support.lower_bound) & (value < support.upper_bound), all)
    if support is constraints.simplex or support is constraints.nonnegative:
        return _rows(value > 0, all)
    return torch.ones(len(value), dtype=torch.bool)


def _is_real(support: constraints.Constraint) -> bool:
    base = support
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    return base is constraints.real


def unchecked(prior: Distribution, dtype: torch.dtype) -> Distribution:
    """A copy with parameters of type `dtype` that does not check its arguments: points out of the support are ours."""
    prior = copy.copy(prior)
    prior._validate_args = False
    for key, value in list(vars(prior).items()):
        if isinstance(value, Distribution):
            setattr(prior, key, unchecked(value, dtype))
        elif isinstance(value, Tensor) and value.is_floating_point():
            setattr(prior, key, value.detach().to(dtype))
    return prior


def _normal(blocks: list[ParameterBlock]) -> tuple[Tensor, Tensor, Tensor] | None:
    locations, precisions, constant = [], [], 0.0
    for b in blocks:
        base = b.prior
        while isinstance(base, Independent):
            base = base.base_dist
        if type(base) is not Normal or isinstance(b.prior, TransformedDistribution):
            return None
        location, scale = (p.expand(b.shape).reshape(-1) for p in (base.loc, base.scale))
        locations.append(location)
        precisions.append(scale.square().reciprocal())
        constant -= float(scale.log().sum()) + 0.5 * math.log(2 * math.pi) * len(scale)
    location, precision = torch.cat(locations), torch.cat(precisions)
    return location, precision, torch.tensor(constant, dtype=location.dtype)


def as_tensor(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _finite(value: Tensor, event_dim: int) -> Tensor:
    """Whether each event (the last `event_dim` axes) is finite."""
    finite = torch.isfinite(value)
    return finite.flatten(-event_dim).all(-1) if event_dim else finite


def _rows(x: Tensor, reduce: object = None) -> Tensor:
    """Everything but the first axis summed, or joined by "and"."""
    if x.ndim == 1:
        return x
    x = x.flatten(1)
    return x.all(1) if reduce is all else x.sum(1)
