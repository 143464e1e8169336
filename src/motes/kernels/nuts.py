"""The No-U-Turn sampler: Hamiltonian trajectories that grow until they turn back, for many particles at once."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError, check_name
from motes.kernels.adaptation.fisher import fit_fisher
from motes.kernels.adaptation.scale import fit_scale
from motes.kernels.adaptation.step_size import UNTRIED, acceptance_error, next_step_size, reopened
from motes.kernels.dynamics.leapfrog import DIVERGED
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels, mean_acceptance, select
from motes.rng import Rng

CHUNK = 64
"""Leaves whose uniform numbers are drawn together."""
FEW = 32
"""Draws that tell less of a covariance than they tell of the diagonal with their gradients."""
SPARSE = 0.875
"""The share of growing trees in a batch below which the batch is cut down to them."""


@kernels.register
@dataclass(frozen=True)
class NUTS(Kernel):
    """No-U-Turn sampler: a trajectory doubles in a random direction until it turns back; a state of it is drawn.

    The trajectory of a particle is a binary tree of leapfrog states in the coordinates in which the population is
    white. A tree with velocities v_- and v_+ at its ends and the sum rho of all its velocities has turned when
    v_-.rho <= 0 or v_+.rho <= 0; the same is asked of its left half with the first state of the right one, and of its
    right half with the last state of the left one. Each doubling grows a subtree, which is thrown away, and growth
    ends, if any of the trees in it has turned or it diverged. The draw goes to the new subtree with probability
    min(1, W_new / W_old), W the sum of exp(-energy), and inside of a subtree with weights exp(-energy). Exact and
    reversible; adaptation biases by O(1/N).

    All trees of a batch are at the same leaf of the same doubling, so the recursion is a loop: leaf n of a subtree
    keeps its sums at place popcount(n), and is compared with as many kept ones as n ends in ones. Particles whose
    tree has ended leave the batch, and cost no further gradients.

    References:
        Hoffman & Gelman (2014), The No-U-Turn sampler, Journal of Machine Learning Research 15.
        Betancourt (2017), A conceptual introduction to Hamiltonian Monte Carlo, arXiv:1701.02434, appendix A.
        Phan, Pradhan & Jankowiak (2019), Composable effects for flexible and accelerated probabilistic programming in
        NumPyro, arXiv:1912.11554 (the tree as a loop).

    Args:
        acceptance: the wanted mean of min(1, exp(-energy change)) over the states of trajectories.
        max_depth: doublings at most.
        scale: "dense", "diagonal" (see `kernels.scale.fit_scale`), "fisher" (see `kernels.fisher.fit_fisher`), or
            "auto": dense if the population allows it and is not smaller than 32, else fisher.

    Raises:
        ValueError: a knob is outside of its range.
    """

    acceptance: float = 0.8
    _: KW_ONLY
    max_depth: int = 10
    scale: str = "auto"

    name: ClassVar[str] = "nuts"
    gradient: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("hoffman2014", "trajectories that end when they turn back"),
        cited("betancourt2017", "the weights and the turning criterion of trajectories"),
    )

    def __post_init__(self) -> None:
        if not (0 < self.acceptance < 1 and self.max_depth >= 1):
            raise MotesError(f"NUTS needs 0 < acceptance < 1 and max_depth >= 1, not {self}")
        check_name("scale", self.scale, ("dense", "diagonal", "fisher", "auto"))

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        # on a standard Gaussian the acceptance is 2 Phi(-sqrt(d) h^2 / 8)
        return {"scale": torch.ones(2, d, dtype=dtype), "step_size": 1.42 * d**-0.25, **UNTRIED}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        x, old = state["position"], parameters["scale"]
        few = 1 / float(weight.square().sum()) < FEW
        if self.scale == "fisher" or (self.scale == "auto" and few):
            return {**reopened(parameters), "scale": fit_fisher(x, target.gradient(state), weight, old)}
        new = fit_scale(x, weight, self.scale, old)
        if self.scale == "auto" and new.ndim == 2:
            new = fit_fisher(x, target.gradient(state), weight, old)
        return {**reopened(parameters), "scale": new}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        mean = mean_acceptance(sweep, weight)
        return next_step_size(parameters, mean, acceptance_error(mean, self.acceptance))

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale = state["position"], parameters["scale"]
        n = len(x)
        v = rng.at("momentum").normal(tuple(x.shape), dtype=x.dtype)
        every = torch.arange(n)
        here = torch.stack([x, v, _by_half(target.gradient(state), scale, (n + 1) // 2, "pull")])
        energy = target.log_density(state) - 0.5 * v.square().sum(1)
        tree = _Tree(every, energy, torch.stack([here, here]), v, torch.zeros_like(energy))
        result = dict(state)
        acceptance, leaves, evaluations = torch.zeros_like(energy), torch.zeros_like(energy), 0
        diverged = torch.zeros(n, dtype=torch.bool)
        for depth in range(self.max_depth):
            at = rng.at(f"depth-{depth}")
            forward = (at.at("direction").uniform((n,)) < 0.5)[tree.index]
            sub = _grow(at, target, tree, forward, depth, parameters, (n + 1) // 2)
            evaluations += sub.evaluations
            acceptance[tree.index] += sub.acceptance
            leaves[tree.index] += sub.leaves
            diverged[tree.index] |= sub.diverged
            tree, forward = tree.part(sub.slot), forward[sub.slot]
            move = _taken(at.at("move").uniform((n,))[tree.index].log(), sub.log_weight, tree.log_weight)
            moved = tree.index[move]
            result = {k: result[k].index_copy(0, moved, new[move]) for k, new in sub.proposal.items()}
            tree, turned = tree.joined(sub, forward)
            tree = tree.part((~turned).nonzero().flatten())
            if not len(tree.index):
                break
        return Sweep(result, acceptance / leaves, evaluations / n, diverged, {"leaves": leaves})


@dataclass
class _Subtree:
    """What a doubling has grown; from `slot` on, only of the trees that neither turned nor diverged."""

    acceptance: Tensor
    leaves: Tensor
    diverged: Tensor
    evaluations: int
    slot: Tensor
    proposal: State
    log_weight: Tensor
    first: Tensor
    end: Tensor
    rho: Tensor


@dataclass
class _Tree:
    """The trees (A,) that still grow.

    Attributes:
        index: (A,) their particles.
        energy: (A,) minus the energy where they started.
        ends: (2, 3, A, d) position, velocity and white gradient, left and right.
        rho: (A, d) the sum of their velocities.
        log_weight: (A,) of all states, relative to where they started.
    """

    index: Tensor
    energy: Tensor
    ends: Tensor
    rho: Tensor
    log_weight: Tensor

    def part(self, slot: Tensor) -> _Tree:
        return _Tree(self.index[slot], self.energy[slot], self.ends[:, :, slot], self.rho[slot], self.log_weight[slot])

    def joined(self, sub: _Subtree, forward: Tensor) -> tuple[_Tree, Tensor]:
        """The trees with their new subtrees, and which of them (A,) have turned."""
        left, right = self.ends
        near = torch.where(forward[:, None], right[1], left[1])
        far = torch.where(forward[:, None], left[1], right[1])
        rho, v = self.rho + sub.rho, sub.end[1]
        turned = _turned(far, v, rho) | _turned(far, sub.first, self.rho + sub.first) | _turned(near, v, sub.rho + near)
        way = forward[:, None]
        ends = torch.stack([torch.where(way, left, sub.end), torch.where(way, sub.end, right)])
        return _Tree(self.index, self.energy, ends, rho, torch.logaddexp(self.log_weight, sub.log_weight)), turned


def _taken(log_uniform: Tensor, new: Tensor, whole: Tensor) -> Tensor:
    """(A,) true with probability min(1, exp(new - whole))."""
    return log_uniform < new - whole


def _turned(start: Tensor, end: Tensor, rho: Tensor) -> Tensor:
    """(A,) whether a stretch with velocities (A, d) at its ends, and their sum along it, has turned."""
    return torch.minimum((start * rho).sum(1), (end * rho).sum(1)) <= 0


def _grow(
    rng: Rng, target: Target, tree: _Tree, forward: Tensor, depth: int, parameters: Parameters, first_half: int
) -> _Subtree:
    """2^depth leapfrog steps from one end of each tree."""
    scale, count = parameters["scale"], len(tree.index)
    slot, part, half = torch.arange(count), target.part(tree.index), int((tree.index < first_half).sum())
    x, v, g = torch.where(forward[:, None], tree.ends[1], tree.ends[0])
    h = torch.where(forward, parameters["step_size"], -parameters["step_size"]).to(x)[:, None]
    energy, log_weight = tree.energy, torch.full_like(tree.energy, -math.inf)
    alive, rho, proposal, u = torch.ones(count, dtype=torch.bool), torch.zeros_like(v), {}, torch.empty(0)
    acceptance, leaves = torch.zeros_like(energy), torch.zeros_like(energy)
    diverged, evaluations = torch.zeros(count, dtype=torch.bool), 0
    # by the number of bits of half the leaf's number: its velocity, that of the leaf before, and the sum up to it
    kept: list[Tensor] = []
    for leaf in range(1 << depth):
        if leaf % CHUNK == 0:
            chosen = rng.at(f"choice-{leaf}").shard(_names(rng, tree.index[slot]))
            u = chosen.uniform((len(slot), min(1 << depth, CHUNK))).log_()
        before, home = v, x
        v = torch.addcmul(v, h, g, value=0.5)
        x = torch.addcmul(x, h, _by_half(v, scale, half, "stretch"))
        there = part.evaluate(x, True)
        evaluations += len(x)
        g = _by_half(target.gradient(there), scale, half, "pull")
        v = torch.addcmul(v, h, g, value=0.5)
        gain = target.log_density(there) - 0.5 * v.square().sum(1) - energy
        acceptance.index_add_(0, slot, torch.where(alive, gain.clamp(max=0.0).exp(), 0.0))
        leaves.index_add_(0, slot, alive.to(leaves))
        lost = alive & (gain < -DIVERGED)
        log_weight, rho = torch.logaddexp(log_weight, gain), rho + v
        take = _taken(u[:, leaf % CHUNK], gain, log_weight)
        proposal = select(take, there, proposal) if leaf else there
        level = (leaf >> 1).bit_count()
        if leaf % 2 == 0:
            kept[level:] = [torch.stack([v, before, rho])]
            stop = lost
        else:
            stop = lost | (alive & _turned_within(kept, leaf, v, rho))
        if stop.any():
            diverged[slot[lost]] = True
            alive = alive & ~stop
            # the rest of a batch that ends later must neither run off nor evaluate undefined points again
            h, x = torch.where(alive[:, None], h, 0.0), torch.where(lost[:, None], home, x)
        left = alive.nonzero().flatten()
        last = leaf == (1 << depth) - 1
        if len(left) < len(alive) and (last or len(left) <= SPARSE * len(alive)):
            slot, x, v, g, h, rho, u, energy = (f[left] for f in (slot, x, v, g, h, rho, u, energy))
            log_weight, proposal = log_weight[left], {k: f[left] for k, f in proposal.items()}
            kept, alive = [f[:, left] for f in kept], alive[left]
            part, half = target.part(tree.index[slot]), int((tree.index[slot] < first_half).sum())
            if not len(slot):
                break
    end = torch.stack([x, v, g])
    return _Subtree(acceptance, leaves, diverged, evaluations, slot, proposal, log_weight, kept[0][0], end, rho)


def _turned_within(kept: list[Tensor], leaf: int, v: Tensor, rho: Tensor) -> Tensor:
    """(A,) whether one of the subtrees that end with the odd `leaf` has turned; the smallest have two leaves."""
    top = (leaf >> 1).bit_count()
    ones = (~leaf & leaf + 1).bit_length() - 1
    turned = torch.zeros(len(v), dtype=torch.bool)
    for level in range(top, top - ones, -1):
        first, _, so_far = kept[level]
        whole = rho - so_far + first
        turned |= _turned(first, v, whole)
        if level < top:  # with two leaves the halves are single states, and say the same
            middle, last, upto = kept[level + 1]
            right = rho - upto + middle
            turned |= _turned(first, middle, whole - right + middle) | _turned(last, v, right + last)
    return turned


def _names(rng: Rng, index: Tensor) -> Tensor:
    """The ids of the particles `index` of the caller."""
    return index if rng.ids is None else rng.ids[index]


def _by_half(rows: Tensor, scale: Tensor, half: int, what: str) -> Tensor:
    """`scale.stretch` or `scale.pull` for rows of which the first `half` have the first scale."""
    f = scale.mT if what == "stretch" and scale.ndim == 3 else scale
    product = torch.mul if scale.ndim == 2 else torch.mm
    return torch.cat([product(rows[:half], f[0]), product(rows[half:], f[1])])
