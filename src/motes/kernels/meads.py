"""Generalised Hamiltonian Monte Carlo that takes its step size and friction from eigenvalues of the population."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, kernels, select
from motes.rng import Rng

FOLDS = 4


@kernels.register
@dataclass(frozen=True)
class MEADS(Kernel):
    """Maximum-eigenvalue adaptation of damping and step size, for one leapfrog step with persistent velocities.

    A particle carries a velocity v and a number s in (-1, 1). With its fold's standard deviations D, step h, damping g
    and a = 1 - exp(-2 h g), a sweep is

        v <- sqrt(1 - a) v + sqrt(a) u,  u standard normal;  s <- (s + 1 + a/2) mod 2 - 1;
        (x', v') = a leapfrog step of length h in the coordinates x / D,  r = exp(H(x, v) - H(x', v'));
        |s| < r: x', v' and s / r;  otherwise x, -v and s.

    |s| p(x) N(v) is a slice level that the leapfrog step keeps, so p(x) N(v | 0, I) U(s | -1, 1) is invariant; as s
    moves slowly, rejections come in clusters and seldom undo the way that was made (Neal 2020). Positions alone are not
    reversible.

    The population is cut into 4 folds, and each learns from the next one before and after each sweep:
    h = multiplier / sqrt(L(D grad log p)), at most 1, and g = 1 / sqrt(L(x / D - mean)), at least 1 / (k h) in sweep k,
    where L is an estimate of the largest eigenvalue of E z z^T from E (z . z')^2 / E |z|^2 with independent z, z'
    (unbiased above and below). Unlike in the paper, a fold's damping comes from the next fold too, all folds move in
    each sweep, and they are not shuffled: so a particle's parameters are never its own. Exact for fixed parameters;
    adaptation biases by O(1/N).

    References:
        Hoffman & Sountsov (2022), Tuning-free generalized Hamiltonian Monte Carlo, AISTATS, algorithm 3.
        Neal (2020), Non-reversibly updating a uniform [0,1] value for Metropolis accept/reject decisions,
        arXiv:2001.11950.

    Args:
        multiplier: of the step size; 0.5 in the paper.

    Raises:
        ValueError: `multiplier` is not positive.
    """

    multiplier: float = 0.5

    name: ClassVar[str] = "meads"
    gradient: ClassVar[bool] = True
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("hoffman2022", "the kernel that learns from eigenvalues"),
        cited("neal2020", "its acceptance"),
    )

    def __post_init__(self) -> None:
        if not self.multiplier > 0:
            raise MotesError(f"MEADS needs multiplier > 0, not {self.multiplier}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        one = torch.ones(FOLDS, dtype=dtype)
        return {
            "scale": torch.ones(FOLDS, d, dtype=dtype),
            "step_size": min(self.multiplier, 1.0) * one,  # of a standard Gaussian
            "damping": one,
            "sweeps": 1,
        }

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        x = state["position"]
        velocity = rng.at("velocity").normal(tuple(x.shape), dtype=x.dtype)
        return {**state, "velocity": velocity, "slice": 2 * rng.at("slice").uniform((len(x),)) - 1}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        return self._adapted(parameters, state["position"], target.gradient(state), weight)

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        parameters = {**parameters, "sweeps": parameters["sweeps"] + 1}
        return self._adapted(parameters, sweep.state["position"], sweep.seen["gradient"], weight)

    def _adapted(self, parameters: Parameters, x: Tensor, gradient: Tensor, weight: Tensor) -> Parameters:
        """The parameters of each fold from the next one, or those before where that one has collapsed."""
        new = {k: v.clone() for k, v in parameters.items() if k != "sweeps"}
        for k in range(FOLDS):
            part = _fold(len(x), (k + 1) % FOLDS)
            w = weight[part]
            if not float(w.sum()) > 0 or float(w.sum()) ** 2 < 2 * float(w.square().sum()):
                continue
            w = (w / w.sum()).to(x)
            centred = x[part] - w @ x[part]
            scale = (w @ centred.square()).sqrt()
            # copies of one point differ by rounding alone, which is no scale to propose on
            if not bool((scale > 1e-12 * x[part].abs().amax(0)).all()):
                continue
            force, spread = _largest(scale * gradient[part], w), _largest(centred / scale, w)
            if not (0 < force < math.inf and 0 < spread < math.inf):
                continue
            step = min(1.0, self.multiplier / math.sqrt(force))
            new["scale"][k], new["step_size"][k] = scale, step
            new["damping"][k] = max(1 / math.sqrt(spread), 1 / (parameters["sweeps"] * step))
        return {**parameters, **new}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x = state["position"]
        sizes = [len(x[_fold(len(x), k)]) for k in range(FOLDS)]
        fold = torch.arange(FOLDS).repeat_interleave(torch.tensor(sizes))
        scale, h = parameters["scale"][fold], parameters["step_size"][fold][:, None]
        fresh = -torch.expm1(-2 * h * parameters["damping"][fold][:, None])  # a
        noise = rng.at("noise").normal(tuple(x.shape), dtype=x.dtype)
        v = torch.addcmul((1 - fresh).sqrt() * state["velocity"], fresh.sqrt(), noise)
        s = torch.remainder(state["slice"] + 1 + 0.5 * fresh[:, 0], 2) - 1
        reach = h * scale
        half = torch.addcmul(v, reach, target.gradient(state), value=0.5)
        there = target.evaluate(torch.addcmul(x, reach, half), True)
        ahead = torch.addcmul(half, reach, target.gradient(there), value=0.5)
        heat = 0.5 * (v.square().sum(1) - ahead.square().sum(1))
        ratio = torch.exp(target.log_density(there) - target.log_density(state) + heat).nan_to_num(nan=0.0)
        new = {**there, "velocity": ahead, "slice": s / ratio}
        moved = select(s.abs() < ratio, new, {**state, "velocity": -v, "slice": s})
        return Sweep(moved, ratio.clamp(max=1.0), 1, seen={"gradient": target.gradient(moved)})

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": float(parameters["step_size"].mean()), "damping": float(parameters["damping"].mean())}


def _fold(n: int, k: int) -> slice:
    """Where the particles of fold k are: siblings are neighbours after resampling, so folds are cut in one piece."""
    return slice(n * k // FOLDS, n * (k + 1) // FOLDS)


def _largest(z: Tensor, w: Tensor) -> float:
    """Sum of squared eigenvalues of E z z^T over their sum, unbiased above and below; z (M, d), normalised w (M,)."""
    size = z.square().sum(1)
    gram = z.T @ (w[:, None] * z) if len(z) > z.shape[1] else w.sqrt()[:, None] * (z @ z.T) * w.sqrt()
    pairs = (gram.square().sum() - (w * size) @ (w * size)) / (1 - w @ w)
    return float(pairs / (w @ size))
