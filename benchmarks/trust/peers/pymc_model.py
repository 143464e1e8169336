"""A target as a PyMC model: its own priors, and the likelihood called back in torch with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.trust.peers.problem import Block, Problem


def build(problem: Problem) -> Any:
    """The model."""
    import pymc
    import pytensor.tensor as pt
    from pytensor.graph.op import Op

    class Gradient(Op):
        itypes, otypes = [pt.dvector], [pt.dvector]

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            outputs[0][0] = problem.with_gradient(inputs[0][None])[1][0]

    class LogLikelihood(Op):
        itypes, otypes = [pt.dvector], [pt.dscalar]

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            outputs[0][0] = np.asarray(problem.log_likelihood(inputs[0]), dtype=float)

        def grad(self, inputs: Any, pulls: Any) -> list[Any]:
            return [pulls[0] * Gradient()(inputs[0])]

    with pymc.Model() as model:
        parts = [_prior(pymc, b).flatten() for b in problem.blocks]
        pymc.Potential("likelihood", LogLikelihood()(pt.concatenate(parts)))
    return model


def _prior(pymc: Any, block: Block) -> Any:
    """The same law in PyMC."""
    p, name, shape = block.prior, block.name, block.shape
    kind = type(p).__name__
    if kind == "Normal":
        return pymc.Normal(name, p.loc.numpy(), p.scale.numpy(), shape=shape)
    if kind == "HalfCauchy":
        return pymc.HalfCauchy(name, p.scale.numpy(), shape=shape)
    if kind == "Uniform":
        return pymc.Uniform(name, p.low.numpy(), p.high.numpy(), shape=shape)
    if kind == "Beta":
        return pymc.Beta(name, p.concentration1.numpy(), p.concentration0.numpy(), shape=shape)
    if kind == "Gamma":
        return pymc.Gamma(name, p.concentration.numpy(), p.rate.numpy(), shape=shape)
    if kind == "Dirichlet":
        return pymc.Dirichlet(name, p.concentration.numpy())
    raise TypeError(f"no {kind} in PyMC")


def parameters(problem: Problem, trace: Any) -> np.ndarray:
    """(chains, draws, dim) from what PyMC returns."""
    posterior = trace.posterior
    return np.concatenate(
        [posterior[b.name].values.reshape(*posterior[b.name].shape[:2], -1) for b in problem.blocks], 2
    )
