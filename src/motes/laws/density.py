"""A density to sample from: a log-likelihood and a prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.core import tree
from motes.core.micro_batches import in_parts
from motes.errors import MotesError, ShapeError, plural, warn
from motes.kernels import State, Undefined
from motes.laws.checking import check, pardon
from motes.laws.compiling import compiled_function
from motes.laws.explaining import alone, failure
from motes.laws.law import Law
from motes.laws.likelihood import LogLikelihood, batched, must_stand_alone, not_added_up, unknown
from motes.laws.parameters import Parameters, Values
from motes.laws.refusal import NEVER, is_refusal, spared
from motes.rng import Rng

CACHE = 1 << 20
"""Bytes of intermediate results that one part of an evaluation should keep to, so that they stay in a core's cache."""


FAR = 1000.0
"""Nats below all of some draws from the prior at which only trajectories that run off can be."""

SINGLE = (
    "log_likelihood comes back as {dtype} while the parameters are float64, so that it and its gradients have 7 digits "
    "or fewer: one of its tensors is {dtype}, most likely the data. Make them float64, as in data.double(), or say "
    "dtype=torch.float32 if single precision is meant"
)


class Density(Law):
    """A log-likelihood and a prior, with values and gradients for a whole population at once.

    Inside, a point is a real vector z (dim,); parameters with a support (a probability, a variance, a simplex) are
    mapped to it by bijections, whose Jacobian is part of the prior's density. The user sees constrained parameters.

    Args:
        log_likelihood: maps the parameters, one tensor (N, d) or a dict of tensors (N, ...), to (N,) nats; or one
            point, (d,) or a dict of (...), to a number, which is then batched by `torch.func.vmap`. -inf is allowed
            where the likelihood is zero. NaN, or an error of linear algebra or of a distribution's parameters, is an
            error where a particle starts or stands; a trial point of a move where that happens counts as outside of
            the support and the trajectory as diverged, and the trace says how many there were ("undefined").
        prior: a `torch.distributions` object over a flat vector, or a dict of them by name.
        vectorised: whether `log_likelihood` takes a batch; None finds out from a few draws of the prior.
        micro_batch: points a call. A number fixes it exactly (the last part is filled up), so that the bits of a
            particle's value do not depend on the population around it, as long as that is cut at multiples of the
            number (a matrix product's last bits depend on the row's place in it); "auto" cuts so that intermediate
            results stay in the cache; None is the whole population in one call.
        dtype: of the parameters and of every evaluation; data should have it too. (A log-likelihood that comes back
            in less than the float64 of its parameters is warned of.)
        compile: whether to evaluate through `torch.compile`; "auto" does so in runs that are long enough to pay for
            the compilation (the law is the same, the last bits are not).

    Attributes:
        dim: length of z.
        differentiable: whether gradients flow through the log-likelihood.

    Raises:
        ShapeError: the log-likelihood fits neither a batch nor a single point, or both with different values.
        UnknownName: it asks for a parameter that the prior has not.
        MotesError: it raises an error, which is quoted as it is at one point; or, with `vectorised=True`, its value at
            a point depends on the other points of the batch or on the call.
        NanLogPotential: it is NaN at a draw from the prior.

    >>> import torch, motes
    >>> heads = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    >>> coin = motes.Density(
    ...     lambda p: (heads * p["p"].log() + (1 - heads) * (-p["p"]).log1p()).sum(),
    ...     {"p": torch.distributions.Beta(1.0, 1.0)},
    ... )
    >>> coin.dim, coin.differentiable
    (1, True)
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        prior: Distribution | Mapping[str, Distribution],
        *,
        vectorised: bool | None = None,
        micro_batch: int | Literal["auto"] | None = "auto",
        dtype: torch.dtype = torch.float64,
        compile: bool | Literal["auto"] = "auto",
    ):
        if compile not in (True, False, "auto"):
            raise MotesError(f'compile must be True, False or "auto", not {compile!r}')
        self.parameters: Parameters = Parameters(prior, dtype)
        self.dim, self.dtype, self.compile = self.parameters.dim, dtype, compile
        self._user, self._likelihood = log_likelihood, batched(log_likelihood, self.parameters, vectorised)
        self._compiled: dict[bool, Callable[[Tensor], State]] = {}
        self.micro_batch: int | None = None
        bytes_a_point, self.differentiable = self._probe(compare=vectorised is True)
        if micro_batch == "auto":
            self._part = max(16, CACHE // max(1, bytes_a_point))
        elif micro_batch is None or micro_batch >= 1:
            self.micro_batch, self._part = micro_batch, None
        else:
            raise MotesError(f'micro_batch must be at least 1, "auto" or None, not {micro_batch}')

    def _probe(self, compare: bool) -> tuple[int, bool]:
        """Bytes that an evaluation with its gradient keeps for one point, and whether there is a gradient.

        Args:
            compare: whether to see that the value at a point does not depend on the others of its batch.
        """
        z, kept = self.parameters.sample(Rng(0).at("probe"), 4), []
        many = self.parameters.sample(Rng(0).at("floor"), 256)
        values, jacobian, _ = self.parameters.constrain(many)
        heights = self.parameters.log_prior(values) + (0.0 if jacobian is None else jacobian)
        self._floor = float(heights.min()) - FAR
        self._legal = z[:1].clone()

        def pack(saved: Tensor) -> Tensor:
            if saved.ndim and saved.shape[0] == len(z):
                kept.append(saved.nbytes)
            return saved

        z.requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            values, _, inside = self.parameters.constrain(z)
            try:
                likelihood = self._call(values, len(z))
            except KeyError as error:
                if (missing := unknown(error, values)) is None:
                    raise
                raise missing from error
            except NEVER:
                raise
            except Exception as error:
                raise self._failure(values, error) from error
        if compare:
            must_stand_alone("log_likelihood", self._likelihood, values, likelihood)
        if self.dtype == torch.float64 and _lossy(likelihood.detach()):
            warn(SINGLE.format(dtype=str(likelihood.dtype).removeprefix("torch.")))
        check(self.constrain, likelihood.detach(), inside, z.detach(), None)
        return sum(kept) // len(z), likelihood.requires_grad

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the prior, as real vectors."""
        return self.parameters.sample(rng, n)

    def constrain(self, z: Tensor) -> Values:
        """The parameters, as the user means them, at real vectors z (N, dim)."""
        return self.parameters.constrain(z)[0]

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of parameters with a first axis of N points."""
        return self.parameters.unconstrain(values)

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        """The state at z (N, dim): everything that a kernel or a change of temperature needs to know of these points.

        Args:
            gradient: with the gradients of both parts.
            compiled: whether to go through `torch.compile`; None is `compile=True`.

        Returns:
            "position" (N, dim), "log_likelihood" and "log_prior" (N,) float64 nats (the latter as a density of z, -inf
            where z overflows), and with `gradient` "likelihood_gradient" and "prior_gradient" (N, dim), zero where the
            density is.

        Raises:
            NanLogPotential: the log-likelihood is NaN or +inf, or its gradient is not finite.
            ShapeError: the log-likelihood has another shape than (N,).
        """
        state, inside, raised = self._state(z, gradient, compiled)
        if raised is not None:  # of a batch, which vmap may have reworded
            bad = torch.isnan(state["log_likelihood"])
            found = alone(self._user, self.constrain(z[bad][:1]), 1) if self._likelihood is not self._user else raised
            raised = found if isinstance(found, Exception) else raised
        check(self.constrain, state["log_likelihood"], inside, z, state, self._floor, raised)
        return state

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        """The state at trial points z (N, dim) of a kernel, and where the density is undefined; None is nowhere.

        The density is undefined, and counts as zero, where a value is NaN or +inf, a gradient is not finite or
        `log_likelihood` raises an error that is due to the point.
        """
        state, inside, raised = self._state(z, gradient, compiled)
        return state, pardon(self.constrain, inside, state, raised)

    def _state(self, z: Tensor, gradient: bool, compiled: bool | None) -> tuple[State, Tensor | None, Exception | None]:
        """What was evaluated, where z is legal, and what was raised where the log-likelihood is NaN for that."""
        compiled = self.compile is True if compiled is None else compiled
        values, raised = self._run(z, gradient, compiled)
        inside = values.pop("inside", None)
        return {"position": z, **values}, inside, raised

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The Hessians of log-prior and log-likelihood at z (N, dim), each times `vector` (N, dim).

        Zero where a part is at most linear, and where it overflows.

        Raises:
            MotesError: no gradients flow through the log-likelihood.
        """
        if not self.differentiable:
            raise MotesError("no gradients flow through log_likelihood: write it with torch operations")
        z = z.detach().requires_grad_()
        likelihood, prior, _ = self._parts(z)
        products = []
        for part in (prior, likelihood):
            slope = None
            if part.requires_grad:
                (slope,) = torch.autograd.grad(part.sum(), z, create_graph=True, materialize_grads=True)
            if slope is None or not slope.requires_grad:
                products.append(torch.zeros_like(z))
            else:
                (product,) = torch.autograd.grad(slope, z, vector, retain_graph=True, materialize_grads=True)
                finite = torch.isfinite(product).all(1, keepdim=True)
                products.append(torch.where(finite, product, 0.0))
        return products[0].detach(), products[1].detach()

    def _run(self, z: Tensor, gradient: bool, compiled: bool) -> tuple[State, Exception | None]:
        eager = self._with_gradient if gradient else self._without
        chosen = self._compile(gradient) if compiled else eager
        raised: list[Exception] = []

        def f(part: Tensor) -> State:
            try:
                state, error = spared(chosen, part, lambda: self._legal, eager)
            except Exception as error:
                if not is_refusal(error):
                    raise
                raise self._failure(self.parameters.constrain(part.detach())[0], error) from error
            raised.extend([error] if error else [])
            return state

        n = len(z)
        most = self.micro_batch or self._part or n
        size = self.micro_batch or math.ceil(n / math.ceil(n / most))
        if size == n:
            state = f(z)
            return state, raised[0] if raised else None
        parts: list[State] = []

        def one(part: Tensor) -> Tensor:
            parts.append(f(part))
            return part[:, 0]

        in_parts(one, size, z)
        return {k: torch.cat([p[k] for p in parts])[:n] for k in parts[0]}, raised[0] if raised else None

    def _failure(self, values: Values, error: Exception) -> MotesError:
        """What to raise where the log-likelihood raised `error` at these parameters, and not for their numbers."""
        n = len(next(v for _, v in tree.leaves(values)))
        return failure(self._user, values, n, self._likelihood is self._user, error)

    def _compile(self, gradient: bool) -> Callable[[Tensor], State]:
        if gradient not in self._compiled:
            f = self._functional if gradient else self._without
            self._compiled[gradient] = compiled_function(f)
        return self._compiled[gradient]

    def _call(self, values: Values, n: int) -> Tensor:
        value = self._likelihood(values)
        if not isinstance(value, Tensor) or tuple(value.shape) != (n,):
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            more = not_added_up(tuple(value.shape), n) if isinstance(value, Tensor) else ""
            raise ShapeError(f"log_likelihood must return shape ({n},) for {plural(n, 'particle')}, not {what}{more}")
        return value

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-likelihood and log-prior (N,) at z, and where z does not overflow (else the values mean nothing)."""
        values, jacobian, inside = self.parameters.constrain(z)
        if inside is not None and (torch.compiler.is_compiling() or not inside.all()):
            # the user's function sees legal parameters only: a scale that underflows to 0 would raise an error there
            values, jacobian, _ = self.parameters.constrain(torch.where(inside[:, None], z, self._legal))
        prior = self.parameters.log_prior(values)
        return self._call(values, len(z)), prior if jacobian is None else prior + jacobian, inside

    def _without(self, z: Tensor) -> State:
        with torch.no_grad():
            likelihood, prior, inside = self._parts(z)
            return _state(likelihood, prior, inside)

    def _with_gradient(self, z: Tensor) -> State:
        z = z.detach().requires_grad_()
        if (normal := self.parameters.normal(z.detach())) is not None:
            prior, prior_gradient = normal
            likelihood, inside = self._call(self.parameters.constrain(z)[0], len(z)), None
            (gradient,) = torch.autograd.grad(likelihood.sum(), z)
        else:
            likelihood, prior, inside = self._parts(z)
            (gradient,) = torch.autograd.grad(likelihood.sum(), z, retain_graph=True, materialize_grads=True)
            (prior_gradient,) = torch.autograd.grad(prior.sum(), z, materialize_grads=True)
        return _state(likelihood.detach(), prior.detach(), inside, gradient, prior_gradient)

    def _functional(self, z: Tensor) -> State:
        """`_with_gradient` in a form that `torch.compile` can trace."""

        def both(z: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
            likelihood, prior, inside = self._parts(z)
            return (likelihood, prior), () if inside is None else (inside,)

        result: tuple[Any, ...] = torch.func.vjp(both, z, has_aux=True)
        (likelihood, prior), pull, aux = result
        one, none = torch.ones_like(likelihood), torch.zeros_like(likelihood)
        return _state(likelihood, prior, aux[0] if aux else None, pull((one, none))[0], pull((none, one))[0])

    def settings(self) -> dict[str, object]:
        """What identifies this density, as JSON."""
        blocks = {b.name: [type(b.prior).__name__, list(b.shape)] for b in self.parameters.blocks}
        return {"prior": blocks, "dtype": str(self.dtype), "micro_batch": self.micro_batch, "compile": self.compile}


def _lossy(likelihood: Tensor) -> bool:
    """Whether values have been rounded to fewer digits than float64 has; a constant or a count has not."""
    if likelihood.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return False
    return bool((torch.isfinite(likelihood) & (likelihood != likelihood.round())).any())


def _state(
    likelihood: Tensor,
    prior: Tensor,
    inside: Tensor | None,
    gradient: Tensor | None = None,
    prior_gradient: Tensor | None = None,
) -> State:
    state = {"log_likelihood": likelihood.to(torch.float64), "log_prior": prior.to(torch.float64)}
    if inside is not None:
        state["inside"] = inside
    if gradient is not None and prior_gradient is not None:
        state |= {"likelihood_gradient": gradient, "prior_gradient": prior_gradient}
    return state
