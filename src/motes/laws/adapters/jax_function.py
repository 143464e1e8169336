"""A log-density, or a log-likelihood, written in JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import MotesError, ShapeError
from motes.laws.adapters.adapter_start import around_mode, initial_point
from motes.laws.adapters.torch_function import over_start
from motes.laws.adapters.with_jax import Batched, need_jax, traceable, x64
from motes.laws.density import Density
from motes.laws.parameters import Parameters, Values


def from_jax(
    log_density: Callable[[Any], Any],
    *,
    start: Distribution | Mapping[str, Distribution] | None = None,
    prior: Distribution | Mapping[str, Distribution] | None = None,
    initial: Tensor | int | None = None,
    widen: float = 1.5,
    dtype: torch.dtype = torch.float64,
) -> Density:
    """A JAX function of one point, over a start (it is a whole density) or times a prior (it is a log-likelihood).

    With `start` the law is start(x) x [density(x) / start(x)], whose evidence is the integral of exp(log_density) over
    the start's support; with `prior` it is prior(x) x exp(log_density(x)), whose evidence is the marginal likelihood.
    The constraints of the parameters are those of the start or the prior.

    The function is called under `jax.enable_x64(True)`, so it computes in float64 whatever the program has chosen, but
    arrays that the program made before in float32 have only the digits that they have. It is mapped over points,
    compiled, and called with batches filled up to powers of two. Tensors are shared, not copied.

    Args:
        log_density: maps one point, an array (d,) or a dict of arrays, to a number in nats; -inf where it is zero.
        start: a `torch.distributions` object over a flat vector, or a dict of them by name. None, without a prior,
            is a Gaussian around the mode, by the curvature there,, over a flat real vector.
        prior: the same, for a log-likelihood.
        initial: where there is neither, the number of dimensions, or the point (d,) from which the mode is looked for.
        widen: the factor by which the standard deviations of that Gaussian are stretched.
        dtype: of the parameters.

    Raises:
        ImportError: JAX is not installed.
        MotesError: start and prior are both given, or nothing to start from.
        ShapeError: the function does not return one number.
        NanLogPotential: it is NaN at a draw from the start.

    >>> import motes
    >>> from motes.laws.adapters import from_jax
    >>> law = from_jax(lambda x: -0.5 * (x**2).sum(), initial=2)
    >>> run = motes.sample(motes.Tempering(law), 256, seed=0, progress=False)
    >>> abs(run.log_evidence - 1.8379) < 0.2  # log(2 pi)
    True
    """
    if start is not None and prior is not None:
        raise MotesError("give `start` for a whole log-density, or `prior` for a log-likelihood, not both")
    reference = start if prior is None else prior
    if reference is None:
        point = initial_point(initial)
        function = _Function(log_density, None, {"x": (len(point),)}, dtype)
        if not function.differentiable:
            raise MotesError("JAX has no gradient of log_density, so its mode cannot be found: give a `start`")
        reference = around_mode(lambda x: _first(function.with_gradient(x)), point, widen)
    parameters = Parameters(reference, dtype)
    names = None if parameters.flat else [b.name for b in parameters.blocks]
    f = _Function(log_density, names, {b.name: b.shape for b in parameters.blocks}, dtype)
    likelihood = f if prior is not None else over_start(f, parameters)
    return Density(likelihood, reference, vectorised=True, micro_batch=None, dtype=dtype, compile=False)


class _Function:
    """A JAX function of one point as a torch function of a batch, with gradients of first and second order."""

    def __init__(
        self, function: Callable[[Any], Any], names: list[str] | None, shapes: dict[str, Any], dtype: torch.dtype
    ):
        jax = need_jax()

        def one(*leaves: Any) -> Any:
            return function(leaves[0] if names is None else dict(zip(names, leaves, strict=True)))

        every = tuple(range(len(shapes)))
        slopes = jax.grad(one, every)
        self.names, self.dtype = names, dtype
        self.value, self.with_gradient = Batched(one), Batched(jax.value_and_grad(one, every))
        self.curved = Batched(lambda leaves, vectors: jax.jvp(slopes, leaves, vectors)[1])
        with x64():
            kind = jax.numpy.float64 if dtype == torch.float64 else jax.numpy.float32
            points = [jax.ShapeDtypeStruct(s, kind) for s in shapes.values()]
            said = jax.eval_shape(one, *points)
            leaves = jax.tree.leaves(said)
            if (
                len(leaves) != 1
                or leaves[0].shape != ()
                or not jax.numpy.issubdtype(leaves[0].dtype, jax.numpy.floating)
            ):
                raise ShapeError(f"the JAX function must map one point to one floating-point number, not to {said}")
            many = [jax.ShapeDtypeStruct((1, *p.shape), kind) for p in points]
        self.differentiable = traceable(self.with_gradient, *many)

    def __call__(self, values: Values) -> Tensor:
        leaves = [values] if isinstance(values, Tensor) else [values[k] for k in self.names or ()]
        if not self.differentiable:
            leaves = [leaf.detach() for leaf in leaves]
        value: Any = _Value.apply(self, *leaves)
        return value


class _Value(torch.autograd.Function):
    """The values; their gradients are found in the same call, if anybody will want them."""

    @staticmethod
    def forward(ctx: Any, f: _Function, *leaves: Tensor) -> Tensor:
        if not any(ctx.needs_input_grad):
            return f.value(*leaves)
        value, ctx.slopes = f.with_gradient(*leaves)
        ctx.f = f
        ctx.save_for_backward(*leaves)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        slopes = _Slopes.apply(ctx.f, *ctx.saved_tensors) if torch.is_grad_enabled() else ctx.slopes
        assert slopes is not None
        return None, *(upstream[0].reshape(-1, *[1] * (s.ndim - 1)) * s for s in slopes)


class _Slopes(torch.autograd.Function):
    """The gradients of the values, as something that has a derivative again."""

    @staticmethod
    def forward(ctx: Any, f: _Function, *leaves: Tensor) -> tuple[Tensor, ...]:
        ctx.f = f
        ctx.save_for_backward(*leaves)
        return f.with_gradient(*leaves)[1]

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> Any:
        return None, *ctx.f.curved(tuple(ctx.saved_tensors), tuple(vectors))


def _first(both: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    return both[0], both[1][0]
