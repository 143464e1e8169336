"""Self-repellent random walks on finite graphs."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.errors import FileError, MotesError, check_at_least
from motes.rng import Rng


@dataclass(frozen=True, eq=False)
class SelfRepellentWalk(FeynmanKac):
    """Walks on a finite graph that keep away from nodes which they have visited more often than they should have.

    The base chain P is reversible with stationary law mu. From node i a walk that has been at the nodes with
    frequencies x goes to j with probability proportional to P_ij (x_j / mu_j)^-alpha, so that no edge is needed that P
    has not. With l_i < 1 the eigenvalues of P and u_i its left eigenvectors (u_i = D v_i, where v_i are orthonormal
    under mu and D = diag mu), n steps give frequencies with the covariance

        1/n sum_i (1 + l_i) / ((1 - l_i) (1 + 2 alpha (1 + l_i))) u_i u_i^T,

    the smaller the larger alpha. Each walk begins as if it had been at every node in proportion to mu, once on
    average. One step of the model is `stride` steps of the walks; there are no weights. The view of a run has the
    "node" (N,) and the "frequency" (N, nodes) of the real visits.

    Bias: frequencies converge to mu, with a bias of order 1/n.

    References:
        Doshi, Hu & Eun (2023), Self-repellent random walks on general graphs: achieving minimal sampling variance via
        nonlinear Markov chains, ICML.

    Args:
        transition: (S, S) the base chain P, rows with sum 1; `metropolis` makes one from a graph.
        steps: how many steps the walks take.
        alpha: how strongly they keep away, at least 0 (the base chain itself).
        stride: steps of the walks in one step of the model.

    Attributes:
        stationary: (S,) mu, the law of the base chain, and of the frequencies in the end.

    Raises:
        ValueError: alpha is negative, or steps is no positive multiple of stride.
        MotesError: P is no matrix of probabilities, is not reversible, or does not reach every node.

    >>> import torch, motes
    >>> from motes.density.self_repellent import SelfRepellentWalk, metropolis
    >>> ring = torch.eye(5).roll(1, 0) + torch.eye(5).roll(-1, 0)
    >>> walk = SelfRepellentWalk(metropolis(ring, torch.arange(5.0)), steps=400)
    >>> run = motes.sample(walk, 50, seed=0, progress=False)
    >>> bool((run.mean("frequency").value - torch.softmax(torch.arange(5.0), 0)).abs().max() < 0.01)
    True
    """

    transition: Tensor
    steps: int
    _: KW_ONLY
    alpha: float = 5.0
    stride: int = 1
    stationary: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_at_least(0, alpha=self.alpha)
        if self.stride < 1 or self.steps < 1 or self.steps % self.stride:
            raise MotesError(f"steps must be a positive multiple of stride, not {self.steps} and {self.stride}")
        p = self.transition.to(torch.float64)
        if p.ndim != 2 or p.shape[0] != p.shape[1] or bool((p < 0).any() | ((p.sum(1) - 1).abs() > 1e-6).any()):
            raise MotesError("transition must be a square matrix of probabilities, whose rows have sum 1")
        object.__setattr__(self, "transition", p / p.sum(1, keepdim=True))
        object.__setattr__(self, "stationary", _stationary(self.transition))

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return REFERENCES

    def init(self, rng: Rng, n: int) -> Particles:
        node = rng.at("start").categorical(self.stationary.log(), n)
        visits = len(self.stationary) * self.stationary.expand(n, -1)
        flat = torch.zeros(n, dtype=torch.float64)
        return Particles.start({"node": node, "visits": visits.contiguous()}, flat)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        node, visits = particles.x["node"], particles.x["visits"].clone()
        base, log_mu, one = self.transition.log(), self.stationary.log(), torch.ones(len(node), 1, dtype=torch.float64)
        for k in range(self.stride):
            # visits in place of frequencies: a factor that the normalisation takes out
            ways = base[node] - self.alpha * (visits.log() - log_mu)
            node = rng.at("step", inner=k).categorical(ways)
            visits.scatter_add_(1, node[:, None], one)
        return particles.step({"node": node, "visits": visits}, torch.zeros_like(particles.log_weight))

    def done(self, particles: Particles) -> bool:
        return particles.t * self.stride >= self.steps

    def view(self, particles: Particles) -> dict[str, Tensor]:
        real = particles.x["visits"] - len(self.stationary) * self.stationary
        return {"node": particles.x["node"], "frequency": real / max(1, particles.t * self.stride)}

    def restore(self, particles: Particles) -> Particles:
        if particles.x["visits"].shape[1] != len(self.stationary):
            raise FileError(f"the run was on {particles.x['visits'].shape[1]} nodes, not {len(self.stationary)}")
        return particles

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "walks have no weights and so no evidence")

    def progress(self, particles: Particles) -> float:
        return particles.t * self.stride / self.steps


def metropolis(graph: Tensor, log_density: Tensor) -> Tensor:
    """(S, S) the chain that proposes a random neighbour in `graph` (S, S) and accepts for exp(log_density) (S,).

    Raises:
        MotesError: the graph is directed, or a node has no neighbour.
    """
    edge = graph != 0
    if not torch.equal(edge, edge.T) or bool((~edge).all(1).any()):
        raise MotesError("the graph must be symmetric, with an edge at every node")
    degree = edge.sum(1).double()
    level = log_density.double() - degree.log()  # of proposals from each node
    ratio = (level[None, :] - level[:, None]).clamp(max=0.0).exp()
    chain = torch.where(edge, ratio / degree[:, None], 0.0)
    return chain + torch.diag(1 - chain.sum(1))


def _stationary(p: Tensor) -> Tensor:
    """The law that is invariant under a reversible chain: mu_j / mu_i = P_ij / P_ji, along a tree from node 0."""
    log_mu = torch.full((len(p),), math.nan, dtype=torch.float64)
    log_mu[0] = 0.0
    reached = [0]
    for i in reached:
        for j in ((p[i] > 0) & (p[:, i] > 0) & log_mu.isnan()).nonzero().flatten().tolist():
            log_mu[j] = log_mu[i] + p[i, j].log() - p[j, i].log()
            reached.append(j)
    if bool(log_mu.isnan().any()):
        raise MotesError(f"nodes {log_mu.isnan().nonzero().flatten().tolist()[:8]} cannot be reached there and back")
    mu = torch.softmax(log_mu, 0)
    flow = mu[:, None] * p
    if not torch.allclose(flow, flow.T, rtol=1e-6, atol=1e-12):
        raise MotesError("the chain is not reversible: mu_i P_ij differs from mu_j P_ji; make it with `metropolis`")
    return mu


REFERENCES = (cited("doshi2023", "the walk"),)
