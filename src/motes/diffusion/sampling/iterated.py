"""Guidance learned from weighted paths, a trust region at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motes.core.particles import Particles
from motes.core.smc import steps as stepped
from motes.core.weights import normalise
from motes.diffusion.evaluation.context import Guidance, StepContext
from motes.diffusion.sampling.reverse import ReverseDiffusion
from motes.errors import MotesError, ShapeError
from motes.rng import Rng

Basis = Callable[[StepContext], Sequence[Tensor]]
"""Maps a context to J tensors like its states: what a learned drift is made of."""


def affine(context: StepContext) -> list[Tensor]:
    """A constant for each coordinate, the state, and the denoised prediction."""
    x = context.x
    eye = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
    return [*eye.expand(-1, len(x), *x.shape[1:]), x, context.denoised]


def radial(context: StepContext) -> list[Tensor]:
    """The state and the denoised prediction: two numbers a step, for images."""
    return [context.x, context.denoised]


@dataclass(frozen=True, eq=False)
class Learned(Guidance):
    """A drift that is a combination of basis functions, with coefficients of its own at each step.

    Args:
        basis: what the drift is made of.
        coefficients: (K, J) float64; the mean of a step moves by std^2 * sum_j coefficients_j basis_j.
    """

    basis: Basis
    coefficients: Tensor

    @property
    def graph(self) -> bool:
        return False

    def __call__(self, context: StepContext) -> Tensor:
        parts = self.basis(context)
        shift = torch.zeros_like(context.x)
        for theta, part in zip(self.coefficients[context.step].tolist(), parts, strict=True):
            shift = shift + theta * part.to(context.x)
        return context.std**2 * shift


@dataclass(frozen=True)
class Twisted:
    """What iterated twisting found.

    Attributes:
        model: the sampler with the guidance of the iteration whose weights were worth the most particles; its weights
            are exact. Sample it with `ess_threshold=0`: a drift is paid for on the way and earns its reward at the end,
            so that the weights are even there and not before.
        power: the trust region's power alpha of each iteration; 1 where the whole weight was within it.
        spread: the standard deviation of the log-weights of each iteration's paths, nats.
    """

    model: ReverseDiffusion
    power: tuple[float, ...]
    spread: tuple[float, ...]


def iterated_twisting(
    model: ReverseDiffusion,
    n: int,
    *,
    seed: int | Rng,
    trust: float = 0.3,
    iterations: int = 20,
    basis: Basis = affine,
    pool: int | None = None,
    ridge: float = 1e-6,
) -> Twisted:
    """Learn guidance by iterated twisting under a trust region (TRI-TSMC).

    Each iteration draws n paths under the present guidance, raises their weights to the largest power alpha in (0, 1]
    that keeps the divergence of the reweighted paths from the drawn ones within `trust`, and fits the drift to them by
    weighted maximum likelihood: around each step a least-squares fit of the reference's noise on the basis. It stops
    when alpha is 1 and the log-weights' spread falls no more. The final weights do not depend on how good the fit is.

    Args:
        model: the sampler to guide, with a reward; its own guidance is replaced.
        n: paths an iteration.
        seed: of the paths.
        trust: the divergence allowed in an iteration, nats.
        iterations: fits at most.
        basis: what the drift is made of: `affine`, `radial`, or a function of a `StepContext`.
        pool: the fit of a step takes in that many steps before and after it, since the drift changes slowly and a fit
            to n paths has an error of its own; None is a twentieth of the steps.
        ridge: added to the normal equations, as a share of their diagonal.

    Raises:
        ValueError: trust, iterations or ridge that are not positive, a negative pool, or a model without a reward.
        ShapeError: a basis function of another shape.
        MotesError: no path has a positive weight.

    References:
        Wang, Yang, Deng & Xu (2026), Inference-Time Alignment of Diffusion Models via Trust-Region Iterative Twisted
        Sequential Monte Carlo, arXiv 2605.25123: q w^alpha is closest to the target within a ball around q.
        Zhang, Wang, Hartmann, Weber & Schuette (2014), Applications of the Cross-Entropy Method to Importance Sampling
        and Optimal Control of Diffusions, SIAM J. Sci. Comput. 36 (the least-squares fit of the drift).
    """
    if not trust > 0 or iterations < 1 or not ridge > 0:
        raise MotesError(f"trust, iterations and ridge must be positive, not {trust}, {iterations}, {ridge}")
    if model.reward is None:
        raise MotesError("the model has no reward, so there is nothing to learn: give it one")
    if pool is not None and pool < 0:
        raise MotesError(f"pool must be at least 0, not {pool}")
    rng = seed if isinstance(seed, Rng) else Rng(seed)
    window = model.table.steps // 20 if pool is None else pool
    powers: list[float] = []
    spreads: list[float] = []
    theta = torch.zeros(model.table.steps, _size(model, basis), dtype=torch.float64)
    best, most = model, -1.0
    for i in range(iterations + 1):
        present = replace(model, guidance=Learned(basis, theta))
        keeper, last = _Keeper(present, basis), None
        for state in stepped(present, n, seed=_seed(rng, i), ess_threshold=0):
            keeper.add(state.particles)
            last = state.particles
        assert last is not None  # a walk has its start at the least
        log_weight = last.log_weight
        if not bool((log_weight > -math.inf).any()):
            raise MotesError("no path has a positive weight: use a softer reward, or more paths")
        if last.ess > most:
            best, most = present, last.ess
        alpha = trust_power(log_weight, trust)
        alive = log_weight[log_weight > -math.inf]
        powers.append(alpha)
        spreads.append(float(alive.std()) if len(alive) > 1 else 0.0)
        settled = alpha == 1 and len(spreads) > 1 and powers[-2] == 1 and spreads[-1] > 0.95 * spreads[-2]
        if settled or i == iterations:
            break
        theta = keeper.fit(normalise(alpha * log_weight.clamp(min=-1e300)), ridge, window)
    return Twisted(best, tuple(powers), tuple(spreads))


def trust_power(log_weight: Tensor, trust: float) -> float:
    """The largest alpha in (0, 1] at which the weights^alpha diverge from equal ones by at most `trust` nats.

    The divergence sum_i W_i log(N W_i) of the normalised weights rises with alpha; found by bisection.

    Args:
        log_weight: (N,) nats, some finite.
        trust: nats.
    """

    def divergence(alpha: float) -> float:
        w = normalise(torch.where(log_weight > -math.inf, alpha * log_weight, -math.inf))
        return float((w * torch.log(w.clamp(min=1e-300))).sum()) + math.log(len(w))

    if divergence(1.0) <= trust:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if divergence(middle) <= trust else (low, middle)
    return max(low, 1e-12)


class _Keeper:
    """The states and predictions along the paths of one iteration, and the fit to them."""

    def __init__(self, model: ReverseDiffusion, basis: Basis):
        self.model, self.basis = model, basis
        self.seen: list[dict[str, Tensor]] = []  # the basis is asked again at the fit: it is larger than the states

    def add(self, particles: Particles) -> None:
        self.seen.append({name: particles.x[name] for name in ("state", "denoised")})

    def fit(self, weight: Tensor, ridge: float, pool: int) -> Tensor:
        """(K, J): around each step, the weighted least-squares fit of the noise on std times the basis."""
        grams, rights = [], []
        table = self.model.table
        for k, (x, after) in enumerate(itertools.pairwise(self.seen)):
            previous = self.seen[k - 1]["denoised"] if k else None  # nothing is resampled
            std, mean = float(table.std[k]), table.mean(k, x["state"], x["denoised"], previous)
            noise = ((after["state"] - mean) / std).flatten(1).to(torch.float64)
            phi = _features(self.model, self.basis, x, k)
            w = weight.to(phi.device)  # phi (N, J, d), noise (N, d)
            grams.append(std**2 * torch.einsum("n,njd,nkd->jk", w, phi, phi).cpu())
            rights.append(std * torch.einsum("n,njd,nd->j", w, phi, noise).cpu())
        rows = []
        for k in range(len(grams)):
            near = slice(max(0, k - pool), k + pool + 1)
            gram, right = torch.stack(grams[near]).sum(0), torch.stack(rights[near]).sum(0)
            diagonal = gram.diagonal()
            rows.append(torch.linalg.solve(gram + torch.diag(ridge * (diagonal + diagonal.mean() + 1e-12)), right))
        return torch.stack(rows)


def _features(model: ReverseDiffusion, basis: Basis, x: dict[str, Tensor], k: int) -> Tensor:
    """(N, J, d) float64: the basis at states of time k."""
    state = x["state"]
    context = replace(model.evaluator.models.context(state, k, x["denoised"]), reward=model.reward)
    parts = list(basis(context))
    for part in parts:
        if part.shape != state.shape:
            raise ShapeError(f"a basis function has shape {tuple(part.shape)}, the states have {tuple(state.shape)}")
    return torch.stack([p.flatten(1).to(torch.float64) for p in parts], dim=1)


def _size(model: ReverseDiffusion, basis: Basis) -> int:
    state = torch.zeros(1, *model.shape, dtype=model.dtype, device=model.device)
    return _features(model, basis, {"state": state, "denoised": state}, 0).shape[1]


def _seed(rng: Rng, iteration: int) -> Rng:
    return rng.at("iteration", inner=iteration).at(f"paths-{iteration}")
