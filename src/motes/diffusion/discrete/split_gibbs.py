"""Posterior samples of tokens by turns: the prior moves one copy, the likelihood another, and they stay close."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree
from motes.core.micro_batches import in_parts
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.diffusion.arguments import check_networks
from motes.diffusion.discrete.draw import draw
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import Uniform
from motes.diffusion.evaluation.checks import checked_reward, refuse
from motes.errors import MotesError, check_at_least, plural
from motes.rng import Rng

SPLIT = cited("chu2025sgdd", "posterior sampling by turns")


@dataclass(frozen=True, eq=False)
class SplitGibbs(FeynmanKac):
    """Chains whose law tends to prior(x) exp(log_likelihood(x)) as the coupling tightens, with equal weights.

    The law of a pair is p(z) exp(log_likelihood(x)) K(x | z), where K flips each place of z to another token with total
    probability b: (b / (V - 1))^h (1 - b)^(L - h) at Hamming distance h. In turns, z is drawn given x by the reverse
    diffusion from the noise level of b, and x given z by Metropolis flips of single places. b falls geometrically to
    `tightest`; what is left of it is a bias, as is the error of the reverse diffusion's steps. The ratio of the
    Metropolis step has b / (V - 1) for each place that differs, not b: with b its law would not be the posterior's even
    for small b. Where the likelihood is zero, x follows z alone until it finds where it is not; the run says how many
    chains have not.

    Args:
        model: the prior, of a process `Uniform`.
        log_likelihood: maps sequences (N, L) int64 to (N,) nats.
        sweeps: turns.
        loosest, tightest: b at the first and at the last turn, in (0, 1 - 1/V).
        reverse: steps of the reverse diffusion in a turn.
        flips: Metropolis proposals in a turn.
        annealed: the share of the turns over which b falls; the others are at `tightest`, and so is a single turn.
        micro_batch: rows a call of the likelihood.

    Raises:
        ValueError: a process that is not `Uniform`, or knobs out of range.

    References:
        Chu, Wu, Chen, Song & Yue (2025), Split Gibbs Discrete Diffusion Posterior Sampling, NeurIPS, Algorithm 1.
    """

    model: TokenModel
    log_likelihood: Callable[[Tensor], Tensor]
    _: KW_ONLY
    sweeps: int = 50
    loosest: float = 0.5
    tightest: float = 0.01
    reverse: int = 16
    flips: int = 100
    annealed: float = 0.8
    micro_batch: int | None = None
    coupling: Tensor = field(init=False, repr=False)

    references: ClassVar[tuple[Reference, ...]] = (SPLIT,)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_networks(model=self.model, likelihood=self.log_likelihood)
        process = self.model.process
        if not isinstance(process, Uniform):
            raise MotesError(f"split Gibbs needs the process Uniform, not {type(process).__name__}")
        most = 1 - 1 / process.vocabulary
        if not 0 < self.tightest <= self.loosest < most:
            raise MotesError(f"need 0 < tightest <= loosest < {most:.3g}, not {self.tightest} and {self.loosest}")
        check_at_least(1, sweeps=self.sweeps, reverse=self.reverse, flips=self.flips)
        if not 0 <= self.annealed <= 1:
            raise MotesError(f"annealed must be in [0, 1], not {self.annealed}")
        falling = max(1, round(self.annealed * self.sweeps))
        share = torch.ones(self.sweeps, dtype=torch.float64)
        share[:falling] = torch.linspace(0, 1, falling, dtype=torch.float64) if falling > 1 else 1.0
        ratio = math.log(self.tightest / self.loosest)
        object.__setattr__(self, "coupling", self.loosest * torch.exp(ratio * share))

    def init(self, rng: Rng, n: int) -> Particles:
        tokens = self.model.process.start(rng, (n, self.model.length))
        x = {"tokens": tokens, "prior": tokens, "log_likelihood": self._ask(tokens)}
        return Particles.start(x, torch.zeros(n, dtype=torch.float64))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        b = float(self.coupling[particles.t])
        z = self._denoised(rng.at("prior"), particles.x["tokens"], b)
        tokens, value, rate = self._flipped(rng.at("flip"), particles.x["tokens"], particles.x["log_likelihood"], z, b)
        x = {"tokens": tokens, "prior": z, "log_likelihood": value}
        info = {"noise_level": b, "acceptance": rate, "log_likelihood": float(value.mean())}
        return particles.step(x, torch.zeros(particles.n, dtype=torch.float64), info=info)

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.sweeps

    def progress(self, particles: Particles) -> float:
        return particles.t / self.sweeps

    def view(self, particles: Particles) -> Tensor:
        """The sequences x (N, L)."""
        return particles.x["tokens"]

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "chains have no weights and so no evidence; ReverseDiscrete has")

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the likelihood still says of them what their file says.

        Raises:
            FileError: the likelihood has changed since.
        """
        x = particles.x
        must_agree("log_likelihood", self._ask(x["tokens"]), x["log_likelihood"], "the likelihood that began it")
        return particles

    def remarks(self, particles: Particles) -> list[str]:
        lost = int((particles.x["log_likelihood"] == -math.inf).sum())
        zero = f"{lost} of {plural(particles.n, 'chain')} ended where the likelihood is zero: "
        zero += "leave them out, or take more turns"
        return [zero] * (lost > 0) + [
            f"the law of these chains is the posterior's only as the flips vanish; {self.tightest:.2g} of them are "
            f"left, and {plural(self.reverse, 'step')} of the reverse diffusion: compare with half and twice of that"
        ]

    def _denoised(self, rng: Rng, tokens: Tensor, b: float) -> Tensor:
        """z given x: the reverse diffusion from the time at which the noise flips with total probability b."""
        process = self.model.process
        start = process.time(1 - b / (1 - 1 / process.vocabulary))
        times = torch.linspace(float(start), 0.0, self.reverse + 1, dtype=torch.float64)
        for k in range(self.reverse):
            t, s = float(times[k]), float(times[k + 1])
            with torch.no_grad():
                log_p0 = self.model(tokens, t)
            tokens = draw(rng.at("step", inner=k), process.posterior(tokens, log_p0, t, s))
        return tokens

    def _flipped(self, rng: Rng, tokens: Tensor, value: Tensor, z: Tensor, b: float) -> tuple[Tensor, Tensor, float]:
        """x given z: Metropolis flips of a place to another token, both drawn uniformly."""
        n, length = tokens.shape
        v, row, accepted = self.model.vocabulary, torch.arange(n), 0.0
        cost = log_kernel_cost(b, v)
        for i in range(self.flips):
            u = rng.at("proposal", inner=i).uniform((n, 3))
            place = (u[:, 0] * length).to(torch.int64).clamp(max=length - 1)
            old = tokens[row, place]
            new = (old + 1 + (u[:, 1] * (v - 1)).to(torch.int64).clamp(max=v - 2)) % v
            proposal = tokens.clone()
            proposal[row, place] = new
            there = self._ask(proposal)
            differs = (new != z[row, place]).to(torch.float64) - (old != z[row, place]).to(torch.float64)
            gain = torch.where(value == -math.inf, torch.where(there == -math.inf, 0.0, math.inf), there - value)
            ok = torch.log(u[:, 2]) < gain + cost * differs
            tokens = torch.where(ok[:, None], proposal, tokens)
            value = torch.where(ok, there, value)
            accepted += float(ok.to(torch.float64).mean()) / self.flips
        return tokens, value, accepted

    def _ask(self, sequences: Tensor) -> Tensor:
        def rows(x: Tensor) -> Tensor:
            with torch.no_grad():
                return checked_reward(self.log_likelihood(x), len(x)).cpu()

        value = in_parts(rows, self.micro_batch, sequences)
        refuse(value.isnan() | (value == torch.inf), "the log-likelihood is NaN or +inf", "log-likelihood")
        return value


def log_kernel_cost(b: float, vocabulary: int) -> float:
    """What one more place that differs multiplies K(x | z) by, its logarithm: b / (V - 1) against 1 - b."""
    return math.log(b / (vocabulary - 1)) - math.log1p(-b)
