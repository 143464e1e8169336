"""A density over vectors of whole numbers: spins, labels, bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError, NanLogPotential, ShapeError, name_particles, plural
from motes.kernels import State, Undefined
from motes.laws.checking import pardon
from motes.laws.law import Law
from motes.laws.likelihood import must_stand_alone
from motes.laws.parameters import Values
from motes.laws.refusal import spared
from motes.rng import Rng


class Discrete(Law):
    """A density over whole numbers {0..levels-1}^dim, against the uniform law on them.

    The reference is uniform, so the evidence is the mean of exp(log_density): the log of the sum over all states, the
    log partition function, is the log evidence plus dim log(levels).

    Kernels that propose by gradients differentiate `log_density` as a function of real numbers: of x itself, or with
    `one_hot` of indicators. The gradient only guides proposals; results are exact whatever it is. It is kept as one
    number for each level of each coordinate, whose differences are first-order estimates of what a change of the
    coordinate does to the log-density.

    Args:
        log_density: maps whole numbers (N, dim), of type `dtype`, to (N,) nats; with `one_hot`, maps indicators
            (N, dim, levels). -inf is allowed where the density is zero, NaN is an error.
        dim: length of a vector.
        levels: how many values a coordinate has, at least 2.
        one_hot: whether `log_density` takes indicators. For labels without an order, whose numbers mean nothing.
        dtype: of the vectors.

    Attributes:
        differentiable: whether gradients flow through `log_density`.

    Raises:
        ValueError: dim < 1 or levels < 2.
        ShapeError: `log_density` returns another shape than (N,).

    >>> import math, motes
    >>> from motes.laws.discrete import Discrete
    >>> ring = Discrete(lambda x: 0.5 * ((2 * x - 1) * (2 * x.roll(1, 1) - 1)).sum(1), dim=6)
    >>> run = motes.sample(motes.Tempering(ring), 512, seed=0, progress=False)
    >>> exact = math.log((2 * math.cosh(0.5)) ** 6 + (2 * math.sinh(0.5)) ** 6)  # Ising, by its transfer matrix
    >>> abs(run.log_evidence + 6 * math.log(2) - exact) < 0.2
    True
    """

    one_hot: bool

    compile = False

    def __init__(
        self,
        log_density: Callable[[Tensor], Tensor],
        dim: int,
        *,
        levels: int = 2,
        one_hot: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        if dim < 1 or levels < 2:
            raise MotesError(f"dim must be at least 1 and levels at least 2, not {dim} and {levels}")
        self.dim, self.levels, self.one_hot, self.dtype = dim, levels, one_hot, dtype
        self._log_density, self._level = log_density, torch.arange(levels, dtype=dtype)
        probe = self._input(self.sample(Rng(0).at("probe"), 3)).requires_grad_()
        value = self._call(probe, 3)
        self.differentiable = value.requires_grad
        must_stand_alone("log_density", log_density, probe, value)

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) uniform draws."""
        assert self.levels is not None
        return rng.integers((n, self.dim), self.levels).to(self.dtype)

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        """The state at z (N, dim): "position", "log_likelihood", "log_prior" (N,) float64.

        With `gradient` also "likelihood_gradient" (N, dim, levels) and "prior_gradient" (N, 1, 1), which is zero.

        Raises:
            NanLogPotential: the log-density is NaN or +inf, or its gradient is not finite where it is.
        """
        state, raised = self._state(z, gradient)
        value = state["log_likelihood"]
        what = "is NaN or +inf" if raised is None else f"raises {type(raised).__name__} ({raised})"
        self._check(z, ~(value < math.inf), f"log_density {what}")
        if gradient:
            slope, legal = state["likelihood_gradient"], value > -math.inf
            finite = torch.isfinite(slope.flatten(1)).all(1)
            self._check(z, legal & ~finite, "the gradient of log_density is not finite")
            state["likelihood_gradient"] = torch.where((finite & legal)[:, None, None], slope, 0.0)
        return state

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        """The state at trial points z (N, dim), and where the density is undefined, as for a `Density`."""
        state, raised = self._state(z, gradient)
        return state, pardon(self.constrain, None, state, raised)

    def _state(self, z: Tensor, gradient: bool) -> tuple[State, Exception | None]:
        f = self._with_slopes if gradient else self._without
        state, raised = spared(f, z, lambda: self.sample(Rng(0).at("probe"), 1))
        return {"position": z, **state}, raised

    def _without(self, z: Tensor) -> State:
        with torch.no_grad():
            value = self._call(self._input(z), len(z)).to(torch.float64)
        return {"log_likelihood": value, "log_prior": torch.full_like(value, self._reference)}

    def _with_slopes(self, z: Tensor) -> State:
        x = self._input(z).detach().requires_grad_()
        value = self._call(x, len(z))
        (slope,) = torch.autograd.grad(value.sum(), x, materialize_grads=True)
        value = value.detach().to(torch.float64)
        return {
            "log_likelihood": value,
            "log_prior": torch.full_like(value, self._reference),
            # of real numbers, level v is worth v times the slope
            "likelihood_gradient": slope if self.one_hot else slope[..., None] * self._level,
            "prior_gradient": torch.zeros(len(z), 1, 1, dtype=self.dtype),
        }

    @property
    def _reference(self) -> float:
        return -self.dim * math.log(len(self._level))

    def _input(self, z: Tensor) -> Tensor:
        return (z[..., None] == self._level).to(self.dtype) if self.one_hot else z

    def _call(self, x: Tensor, n: int) -> Tensor:
        value = self._log_density(x)
        if not isinstance(value, Tensor) or tuple(value.shape) != (n,):
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ShapeError(f"log_density must return shape ({n},) for {plural(n, 'particle')}, not {what}")
        return value

    def _check(self, z: Tensor, bad: Tensor, what: str) -> None:
        if bad.any():
            index = bad.nonzero().flatten().tolist()
            raise NanLogPotential(
                f"{what} for {name_particles(index)}; the first of them is at {z[index[0]].tolist()}. Where the model "
                "is not defined it must return -inf; look for log of a negative number, 0 * inf or an overflow"
            )

    def constrain(self, z: Tensor) -> Values:
        """The vectors themselves (N, dim), whole numbers of type `dtype`."""
        return z

    def unconstrain(self, values: Values) -> Tensor:
        """Whole numbers (N, dim) as vectors of type `dtype`.

        Raises:
            MotesError: they are no whole numbers 0..levels-1, or not (N, dim).
        """
        if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] != self.dim:
            raise ShapeError(f"values must be one tensor (N, {self.dim})")
        if not (values[..., None] == self._level.to(values.dtype)).any(-1).all():
            raise MotesError(f"values must be whole numbers 0..{len(self._level) - 1}")
        return values.to(self.dtype)

    def settings(self) -> dict[str, Any]:
        """What identifies this law, as JSON."""
        return {"discrete": [self.dim, self.levels], "one_hot": self.one_hot, "dtype": str(self.dtype)}
