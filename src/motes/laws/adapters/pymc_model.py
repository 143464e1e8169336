"""A PyMC model: its free variables as the reference, its observations and potentials as the likelihood."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import MotesError, check_name, needing
from motes.kernels import State
from motes.laws.adapters.adapter_start import AdapterStart
from motes.laws.adapters.outside import (
    EDGE,
    Outside,
    Shapes,
    finite_draws,
    named,
    refuse_discrete,
    shapes_as_json,
)
from motes.laws.adapters.with_jax import Batched, Evaluated
from motes.laws.parameters import Values
from motes.rng import Rng

INSTALL = "from_pymc needs PyMC: pip install 'motes[pymc]' (with 'motes[jax]' it is much faster)"
IMPROPER = (
    "its distribution is improper, or cut by its transform (as `ordered` does); give the model a prior that can be "
    "drawn from, or a `start` over its unconstrained vector"
)

log = logging.getLogger("motes")


def from_pymc(
    model: Any, *, start: Distribution | None = None, backend: Literal["auto", "jax", "pytensor"] = "auto"
) -> Outside:
    """A PyMC model as prior x likelihood; the evidence is its marginal likelihood.

    The log-prior is that of the free variables, mapped to real vectors by PyMC's own transforms, with their Jacobians;
    the log-likelihood is that of observed variables and potentials. Parameters that a distribution does not allow give
    -inf, as in PyMC. The data are those that the model holds now: a later `pm.set_data` changes nothing.

    Draws from the prior come from PyMC, forwards through the model, with generators (PCG64) that are seeded for each
    particle with 128 bits of ours at its address: a particle's draw depends on seed and particle, not on how many
    there are. It does depend on PyMC's and NumPy's samplers, so another version of them may draw other numbers.

    Args:
        model: a `pm.Model`.
        start: a `torch.distributions` object over the unconstrained vector (dim,) that takes the place of the prior,
            for models whose prior cannot be drawn from; everything else is then likelihood, and the evidence is the
            integral of the model's density.
        backend: "jax" evaluates all particles in one compiled call, "pytensor" one after the other; "auto" is the
            first where JAX is installed and knows the operations of the model.

    Raises:
        ImportError: PyMC is not installed, or JAX for "jax".
        MotesError: the model has discrete latent variables, or nothing to sample.

    >>> import motes, pymc as pm
    >>> from motes.laws.adapters import from_pymc
    >>> with pm.Model() as coin:
    ...     p = pm.Beta("p", 1.0, 1.0)
    ...     heads = pm.Binomial("heads", 4, p, observed=3)
    >>> run = motes.sample(motes.Tempering(from_pymc(coin)), 512, seed=0, progress=False)
    >>> abs(run.log_evidence + 1.6094) < 0.1  # log(1/5)
    True
    """
    with needing(INSTALL):
        import pymc
    if not isinstance(model, pymc.Model):
        raise MotesError(f"from_pymc takes a pm.Model, not a {type(model).__name__}")
    check_name("backend", backend, ("auto", "jax", "pytensor"))
    return PyMC(model, start, backend)


class PyMC(Outside):
    """What `from_pymc` returns."""

    backend: str

    def __init__(self, model: Any, start: Distribution | None, backend: str):
        import numpy as np

        refuse_discrete([v.name for v in model.free_RVs if v.dtype not in ("float16", "float32", "float64")])
        if not model.free_RVs:
            raise MotesError("the model has no free variable, so there is nothing to sample")
        self._model = model
        point = model.initial_point(random_seed=0)
        self._point = {v.name: np.asarray(point[v.name], dtype=v.dtype) for v in model.value_vars}
        self.dim = sum(v.size for v in self._point.values())
        self._start = None if start is None else AdapterStart(start, self.dim)
        self._real = torch.cat(
            [
                torch.full((self._point[model.rvs_to_values[v].name].size,), model.rvs_to_transforms[v] is None)
                for v in model.free_RVs
            ]
        )
        self.backend, self.differentiable, self._evaluate = self._compiled(backend)
        outputs = [*model.free_RVs, *model.deterministics]
        self._names = [v.name for v in outputs]
        self._constrain = self._function(model.replace_rvs_by_values(outputs))
        with torch.no_grad():
            one = self._constrain(torch.from_numpy(np.concatenate([v.ravel() for v in self._point.values()]))[None])
        self.shapes: Shapes = {v.name: tuple(x.shape[1:]) for v, x in zip(model.free_RVs, one, strict=False)}
        self._draw: Callable[[list[int]], Any] | None = None
        self._back: Callable[..., Any] | None = None

    # ---------------------------------------------------------------- what is compiled

    def _joined(self, outputs: list[Any]) -> tuple[list[Any], Any]:
        """Graphs of the value variables as graphs of one vector: data as they are now, -inf for what is not allowed."""
        from pymc.logprob.utils import local_check_parameter_to_ninf_switch
        from pymc.pytensorf import join_nonshared_inputs
        from pytensor.graph.fg import FunctionGraph
        from pytensor.graph.replace import clone_replace
        from pytensor.graph.rewriting.basic import in2out
        from pytensor.graph.traversal import graph_inputs
        from pytensor.tensor.basic import constant
        from pytensor.tensor.sharedvar import TensorSharedVariable

        data = [v for v in graph_inputs(outputs) if isinstance(v, TensorSharedVariable)]
        now: Any = clone_replace(list(outputs), {v: constant(v.get_value(), name=v.name) for v in data})
        moved, joined = join_nonshared_inputs(self._point, now, self._model.value_vars)
        graph = FunctionGraph(outputs=list(moved), clone=False)
        in2out(local_check_parameter_to_ninf_switch).rewrite(graph)
        return list(graph.outputs), joined

    def _both(self) -> list[Any]:
        """Log-likelihood and log-prior as PyTensor graphs."""
        from pytensor.tensor.basic import zeros

        observed = [*self._model.observed_RVs, *self._model.potentials]
        likelihood = self._model.logp(vars=observed) if observed else zeros((), dtype="float64")
        return [likelihood, self._model.logp(vars=self._model.free_RVs)]

    def _compiled(self, backend: str) -> tuple[str, bool, Callable[[Tensor, bool], State]]:
        if backend != "pytensor":
            try:
                import jax  # noqa: F401 - whether it is there
                from pymc.sampling.jax import get_jaxified_graph

                outputs, joined = self._joined(self._both())
                function = get_jaxified_graph([joined], outputs)
                evaluate = Evaluated(lambda z: (*_scalars(function(z)), True))
                return "jax", evaluate.differentiable(self.dim), evaluate
            except (ImportError, NotImplementedError) as error:
                if backend == "jax":
                    raise
                log.info("PyMC's model is evaluated by PyTensor, one particle at a time: %s", error)
        return self._by_pytensor()

    def _by_pytensor(self) -> tuple[str, bool, Callable[[Tensor, bool], State]]:
        import numpy as np
        from pymc.pytensorf import compile
        from pytensor.gradient import NullTypeGradError, grad

        outputs, joined = self._joined(self._both())
        values: Callable[[Any], Any] = compile([joined], outputs)
        with_slopes: Callable[[Any], Any] | None = None
        try:
            slopes = [grad(v, joined, disconnected_inputs="ignore") for v in outputs]
            with_slopes = compile([joined], [*outputs, *slopes])
        except (NotImplementedError, NullTypeGradError):
            pass  # an operation of the model has no derivative
        names = ["log_likelihood", "log_prior", "likelihood_gradient", "prior_gradient"]

        def evaluate(z: Tensor, with_gradient: bool) -> State:
            function = with_slopes if with_gradient and with_slopes is not None else values
            columns = zip(*(function(row) for row in z.detach().numpy()), strict=True)
            return {
                k: torch.from_numpy(np.stack([np.asarray(v, dtype=np.float64) for v in column]))
                for k, column in zip(names, columns, strict=False)
            }

        return "pytensor", with_slopes is not None, evaluate

    def _function(self, outputs: list[Any]) -> Callable[[Tensor], list[Tensor]]:
        """Graphs of the value variables as a function of z (N, dim)."""
        import numpy as np
        from pymc.pytensorf import compile

        outputs, joined = self._joined(outputs)
        if self.backend == "jax":
            from pymc.sampling.jax import get_jaxified_graph

            try:
                function = Batched(get_jaxified_graph([joined], outputs))
                function(torch.zeros(1, self.dim, dtype=torch.float64))
                return lambda z: list(function(z))
            except NotImplementedError:
                pass  # a deterministic variable may use what JAX does not know
        slow = compile([joined], outputs, mode="FAST_COMPILE")

        def by_rows(z: Tensor) -> list[Tensor]:
            rows = [slow(row) for row in z.detach().numpy()]
            return [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]

        return by_rows

    def _vector(self) -> list[Any]:
        """The real vector as graphs of the free variables."""
        model = self._model
        parts = []
        for v in model.free_RVs:
            transform = model.rvs_to_transforms[v]
            parts.append(v if transform is None else transform.forward(v, *v.owner.inputs))
        return parts

    # ---------------------------------------------------------------- the law

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the prior, or from the start, as real vectors."""
        if self._start is not None:
            return self._start.sample(rng.at("start"), n)
        import numpy as np

        draw = self._draw = self._draw or self._forwards()
        words = rng.at("pymc").bits((n, 4)).tolist()
        try:
            rows = [draw(seed) for seed in words]
        except NotImplementedError as error:
            raise MotesError(f"the prior cannot be drawn from ({error}): {IMPROPER}") from error
        return finite_draws(torch.tensor(np.stack(rows), dtype=torch.float64), IMPROPER)

    def _forwards(self) -> Callable[[list[int]], Any]:
        import numpy as np
        from pymc.pytensorf import compile, find_rng_nodes, reseed_rngs

        parts = self._vector()
        try:
            function = compile([], parts, mode="FAST_COMPILE")
        except NotImplementedError as error:
            raise MotesError(f"the prior cannot be drawn from ({error}): {IMPROPER}") from error
        generators = find_rng_nodes(parts)

        def draw(seed: list[int]) -> Any:
            reseed_rngs(generators, seed)
            return np.concatenate([np.ravel(v) for v in function()])

        return draw

    def parts(self, z: Tensor, gradient: bool) -> State:
        state = self._evaluate(z, gradient)
        prior, likelihood = state["log_prior"], state["log_likelihood"]
        inside = (self._real | (z.abs() < EDGE)).all(1) & ~(prior == -torch.inf)
        if self._start is None:
            return {**state, "inside": inside}
        slope = state["prior_gradient"] + state["likelihood_gradient"] if gradient else None
        joint = torch.where(inside, prior + likelihood, -torch.inf)
        return self._start.under(z, joint, slope)

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The Hessians of log-prior and log-likelihood at z (N, dim), each times `vector` (N, dim)."""
        if not isinstance(self._evaluate, Evaluated) or self._start is not None:
            return super().hessian_vector(z, vector)
        prior, likelihood = self._evaluate.curved(z, vector)
        return prior, likelihood

    def constrain(self, z: Tensor) -> Values:
        """The free variables and the deterministic ones by name, at real vectors z (N, dim)."""
        return dict(zip(self._names, self._constrain(z), strict=True))

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of the free variables; deterministic ones may be there, and are not looked at."""
        import numpy as np

        back = self._back = self._back or self._backwards()
        given = [v.numpy() for v in named(values, self.shapes).values()]
        rows = [np.concatenate([np.ravel(v) for v in back(*row)]) for row in zip(*given, strict=True)]
        return torch.from_numpy(np.stack(rows))

    def _backwards(self) -> Callable[..., Any]:
        from pymc.pytensorf import compile
        from pytensor.graph.replace import clone_replace

        inputs = {v: v.type() for v in self._model.free_RVs}
        parts: Any = clone_replace(self._vector(), inputs)
        return compile(list(inputs.values()), parts, mode="FAST_COMPILE", on_unused_input="ignore")

    def settings(self) -> dict[str, Any]:
        """What identifies this density, as JSON."""
        start = None if self._start is None else self._start.name
        return {"source": "pymc", "start": start, "parameters": shapes_as_json(self.shapes)}


def _scalars(outputs: Any) -> Any:
    from jax import numpy

    return tuple(numpy.asarray(v, dtype="float64").reshape(()) for v in outputs)
