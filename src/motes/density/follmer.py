"""Ensemble score-based sampling: a diffusion from a point to the target, its drift estimated without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.errors import MotesError
from motes.laws.law import Law, must_be_law
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.rng import Rng

ENTRIES = 1 << 22
"""Pairs of a particle and a draw that are held at once."""


@dataclass(frozen=True)
class Follmer(FeynmanKac):
    """The Föllmer process with its drift estimated from the ensemble, without gradients, and exact path weights.

    In coordinates u in which a Gaussian that stands for the target's rough shape is N(0, I), let f be the target's
    density over that of N(0, I), and P f(t, u) = E f(u + sqrt(1 - t) Z). Then dU = b dt + dW from U = 0 with the drift

        b(t, u) = grad log P f(t, u) = E[f(u + sqrt(1 - t) Z) Z] / (sqrt(1 - t) P f(t, u))

    has the target as its law at t = 1. At each time t_k = 1 - (1 - k / steps)^2 every particle sends out `draws` points
    y = u + sqrt(1 - t) Z, in pairs +-Z, and f is evaluated there, the only evaluations that there are. With `shared`
    every particle uses the points of all: a point counts with r = N(y; u, (1 - t) I) over the mean of that density over
    the particles (the balance heuristic), so that the mean of r f is an estimate F of P f without bias. The drift is

        b = sum_j (w_j - v_j) (y_j - u) / (1 - t),     w ~ r f and v ~ r, each with sum 1,

    where the term of v, zero in expectation, takes out the noise that is there even for a flat f. Then
    u' = u + h b + sqrt(h) xi, and the weight gains N(u'; u, h) / N(u'; u + h b, h) = exp(-h |b|^2 / 2 - sqrt(h) b.xi)
    (Girsanov's formula, exact for any number of steps), times F'(u') / F(u), where in the end F is f itself. So at
    every time the mean weight estimates the evidence, and resampling has what lies ahead in its weights.

    E[Z_hat] = Z exactly, for any number of particles, steps and draws, with resampling or without: b and the numbers F
    are made before xi is drawn and the F telescope, so given all that is known at t_k the expectation of the new term
    is that of an unweighted Brownian step, whatever b is and however it depends on the other particles, and F estimates
    the rest without bias (auxiliary variables). Where all draws of a particle have f = 0, F keeps its last value, which
    is as exact. Only the standard error is asymptotic.

    The weights' variance is finite only if f is not too large far out: give `scale` values that are rather too large.
    It works for a few tens of dimensions at most; the noise of b costs about dim / draws.

    References:
        Föllmer (1985), An entropy approach to the time reversal of diffusion processes, Springer LNCIS 69.
        Huang, Jiao, Kang, Liao, Liu & Liu (2021), Schrödinger-Föllmer sampler: sampling without ergodicity,
        arXiv 2106.10880, eq. 2.7 (the drift).
        Riel & Bischoff (2024), Gradient-free score-based sampling methods with ensembles, arXiv 2401.17539.
        Veach & Guibas (1995), Optimally combining sampling techniques for Monte Carlo rendering, SIGGRAPH, section 3.3.

    Args:
        density: what to sample, on R^d.
        steps: of the diffusion.
        draws: evaluations a particle and step; an even number.
        shared: whether a particle uses the draws of all others too; the work of a step is then of order n^2 draws.
        location: centre of the Gaussian, one number or one a coordinate of z; None is the mean of the density's
            reference, from draws of it.
        scale: its standard deviations; None is those of the reference.

    Raises:
        MotesError: the density is discrete.
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.density.follmer import Follmer
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 1) / 0.5).square().sum(-1), normal)
    >>> run = motes.sample(Follmer(density, location=0.0, scale=1.0), 128, seed=0, progress=False)
    >>> bool((run.mean().value - 0.8).abs().max() < 0.2)
    True
    """

    density: Law
    _: KW_ONLY
    steps: int = 32
    draws: int = 8
    shared: bool = True
    location: float | Sequence[float] | Tensor | None = None
    scale: float | Sequence[float] | Tensor | None = None

    def __post_init__(self) -> None:
        must_be_law(self.density)
        if self.density.levels is not None:
            raise MotesError("Follmer diffuses on R^d, and this law is discrete: use Tempering with a discrete kernel")
        if self.steps < 1 or self.draws < 2 or self.draws % 2:
            raise MotesError(f"need steps >= 1 and an even number draws >= 2, not {self.steps} and {self.draws}")
        for name, given in (("location", self.location), ("scale", self.scale)):
            if given is None:
                continue
            numbers = torch.as_tensor(given, dtype=torch.float64)
            if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != self.density.dim):
                raise MotesError(f"{name} must be one number or {self.density.dim} of them, not {given}")
            if not torch.isfinite(numbers).all() or (name == "scale" and not (numbers > 0).all()):
                raise MotesError(f"{name} must be finite{' and positive' * (name == 'scale')}, not {given}")
            object.__setattr__(self, name, tuple(numbers.tolist()) if numbers.ndim else float(numbers))

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return REFERENCES

    def init(self, rng: Rng, n: int) -> Particles:
        shared = {"location": self.location, "scale": self.scale, "final": False}
        if self.location is None or self.scale is None:
            pilot = self.density.sample(rng.at("pilot"), max(n, 256)).double()
            shared["location"] = pilot.mean(0) if self.location is None else self.location
            shared["scale"] = pilot.std(0) if self.scale is None else self.scale
        for name in ("location", "scale"):
            value = torch.as_tensor(shared[name], dtype=torch.float64)
            shared[name] = value.expand(self.density.dim).clone()
        u = torch.zeros(n, self.density.dim, dtype=torch.float64)
        first = torch.zeros(n, dtype=torch.float64)
        x = self._look(rng, u, first, 0.0, shared, everybody=True)
        return Particles.start(x, x["twist"], shared=shared, info={"time": 0.0, "evaluations": float(self.draws)})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        x, shared, k = particles.x, particles.shared, particles.t + 1
        u, b, h = x["white"], x["drift"], self._time(k) - self._time(k - 1)
        xi = rng.at("noise").normal(tuple(u.shape))
        path = -0.5 * h * b.square().sum(1) - math.sqrt(h) * (b * xi).sum(1)
        u = u + h * b + math.sqrt(h) * xi
        if k < self.steps:
            new = self._look(rng, u, x["twist"], self._time(k), shared)
        else:
            state, log_f = self._evaluate(u, shared)
            new = {"white": u, "drift": torch.zeros_like(u), "twist": log_f, **state}
        shared = {**shared, "final": k == self.steps}
        info = {"time": self._time(k), "evaluations": float(self.draws if k < self.steps else 1)}
        return particles.step(new, path + new["twist"] - x["twist"], shared=shared, info=info)

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def _time(self, k: int) -> float:
        """Steps become shorter towards the end, where the drift changes fastest."""
        return 1.0 - (1.0 - k / self.steps) ** 2

    def _evaluate(self, u: Tensor, shared: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The density's state at u (M, d), and log f there, (M,) nats."""
        z = (shared["location"] + shared["scale"] * u).to(self.density.dtype)
        state = self.density.evaluate(z)
        constant = float(shared["scale"].log().sum()) + 0.5 * u.shape[1] * math.log(2 * math.pi)
        return state, state["log_prior"] + state["log_likelihood"] + 0.5 * u.square().sum(1) + constant

    def _look(
        self, rng: Rng, u: Tensor, last: Tensor, t: float, shared: dict[str, Tensor], everybody: bool = False
    ) -> dict[str, Tensor]:
        """The particles' state at time t: "drift" (N, d), and "twist", the log of F or what stands for it."""
        n, d = u.shape
        noise = rng.at("draws").normal((n, self.draws // 2, d))
        y = u[:, None] + math.sqrt(1 - t) * torch.cat([noise, -noise], 1)
        state, log_f = self._evaluate(y.reshape(-1, d), shared)
        log_f = log_f.view(n, self.draws)
        if everybody:  # at the start all stand at one place, and each draw serves all alike
            drift, twist = _drift(
                u[:1], y.view(1, -1, d), torch.zeros(1, n * self.draws).double(), log_f.view(1, -1), t
            )
            drift, twist = drift.expand(n, d).clone(), twist.expand(n).clone()
        elif self.shared:
            drift, twist = _pooled(u, y.view(-1, d), log_f.flatten(), t)
        else:
            drift, twist = _drift(u, y, torch.zeros_like(log_f), log_f, t)
        twist = torch.where(twist > -math.inf, twist, last)
        first = {key: value.view(n, self.draws, *value.shape[1:])[:, 0] for key, value in state.items()}
        return {"white": u, "drift": drift, "twist": twist, **first}

    def view(self, particles: Particles) -> Values:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        """The particles, if this density still says of the points that it was asked for what their file says.

        Raises:
            FileError: the likelihood or the prior has changed since.
        """
        same_values(self.density, particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        return particles.x["white"][:, 0] if self.density.dim == 1 else particles.x["twist"]

    def progress(self, particles: Particles) -> float:
        return particles.t / self.steps


def _drift(u: Tensor, y: Tensor, log_r: Tensor, log_f: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Drift (N, d) and log F (N,) at u (N, d) from each particle's points y (N, M, d), log r and log f (N, M)."""
    log_w = log_r + log_f
    log_mean = log_w.logsumexp(1) - math.log(log_w.shape[1])
    some = (log_mean > -math.inf)[:, None]
    share = torch.where(some, log_w, log_r).softmax(1) - log_r.softmax(1)
    return torch.einsum("nm,nmd->nd", share, y - u[:, None]) / (1 - t), log_mean


def _pooled(u: Tensor, y: Tensor, log_f: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Drift (N, d) and log F (N,) at u (N, d) from all points y (M, d), with log f (M,), by the balance heuristic.

    The share of w minus that of v sums to zero, so the term of u drops out of the drift.
    """
    n, m = len(u), len(y)
    centre = u.mean(0)
    u, y = u - centre, y - centre
    rows, half = max(1, ENTRIES // m), 0.5 / (1 - t)
    square = half * y.square().sum(1)

    def kernel(part: Tensor) -> Tensor:
        """(rows, M) the log of N(y; u, (1 - t) I) up to a constant that cancels."""
        return (part @ y.T).mul_(2 * half).sub_(square).sub_(half * part.square().sum(1, keepdim=True))

    parts = [u[i : i + rows] for i in range(0, n, rows)]
    log_q = torch.stack([kernel(part).logsumexp(0) for part in parts]).logsumexp(0) - math.log(n)
    drifts, twists = [], []
    for part in parts:
        log_r = kernel(part).sub_(log_q)
        log_w = log_r + log_f
        log_mean = log_w.logsumexp(1) - math.log(m)
        some = (log_mean > -math.inf)[:, None]
        share = torch.where(some, log_w, log_r).softmax(1) - log_r.softmax(1)
        drifts.append(share @ y / (1 - t))
        twists.append(log_mean)
    return torch.cat(drifts), torch.cat(twists)


REFERENCES = (cited("huang2021", "the diffusion and its drift"), cited("riel2024", "the drift from an ensemble"))
