"""Small runs of every kind, for the tests of the report."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import motes
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.run import Run
from motes.rng import Rng


class Tempered(FeynmanKac):
    """A Gaussian posterior by tempering, with random-walk moves."""

    quantity = "log evidence"

    def __init__(self, steps: int = 8, d: int = 3, names: tuple[str, ...] = ("theta",), mean: float = 1.0):
        self.steps, self.d, self.names, self.mean = steps, d, names, mean

    def _log_likelihood(self, x: Tensor) -> Tensor:
        return -0.5 * ((x - self.mean) / 0.3).square().sum(-1)

    def init(self, rng: Rng, n: int) -> Particles:
        return Particles.start(rng.at("prior").normal((n, self.d)).double(), torch.zeros(n, dtype=torch.float64))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        b0, b1 = (((particles.t + k) / self.steps) ** 2 for k in (0, 1))
        x = particles.x
        potential = (b1 - b0) * self._log_likelihood(x)
        y = x + 0.4 * rng.at("proposal").normal(x.shape).double()

        def log_density(z: Tensor) -> Tensor:
            return -0.5 * z.square().sum(-1) + b0 * self._log_likelihood(z)

        accept = rng.at("accept").uniform((len(x),)).double().log() < log_density(y) - log_density(x)
        x = torch.where(accept[:, None], y, x)
        potential = (b1 - b0) * self._log_likelihood(x)
        info = {"acceptance": accept.double().mean().item(), "temperature": b1, "step_size": 0.4}
        return particles.step(x, potential, info=info)

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.steps

    def view(self, particles: Particles):
        return dict.fromkeys(self.names, particles.x)

    def settings(self) -> dict:
        return {"steps": self.steps, "d": self.d}


WORDS = ("light", "dust", " drifts", "<script>alert('mote')</script>", "北", "$x_1$", "{{ 7*7 }}", "\n", "&amp;")


class Words(FeynmanKac):
    """Random words, weighted."""

    quantity = "log-probability of validity"

    def __init__(self, steps: int = 4, words: tuple[str, ...] = WORDS):
        self.steps, self.words = steps, words

    def init(self, rng: Rng, n: int) -> Particles:
        return Particles.start(torch.zeros((n, 0), dtype=torch.long), torch.zeros(n, dtype=torch.float64))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        n = particles.n
        token = (rng.at("token").uniform((n,)) * len(self.words)).long()
        potential = torch.tensor([math.log(0.05 + 0.9 * k / len(self.words)) for k in range(len(self.words))])
        return particles.step(torch.cat([particles.x, token[:, None]], 1), potential.double()[token])

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.steps

    def shows(self) -> str:
        return "texts"

    def view(self, particles: Particles) -> list[str]:
        return ["".join(self.words[k] for k in row) for row in particles.x.tolist()]


class Blobs(FeynmanKac):
    """Blurry images that are rewarded for brightness."""

    quantity = "log normaliser"

    def __init__(self, steps: int = 6, channels: int = 1):
        self.steps, self.channels = steps, channels

    def init(self, rng: Rng, n: int) -> Particles:
        return Particles.start(rng.at("noise").normal((n, self.channels, 8, 8)), torch.zeros(n, dtype=torch.float64))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        x = 0.7 * particles.x + 0.3 * rng.at("noise").normal(particles.x.shape)
        return particles.step(x, x.double().mean((1, 2, 3)))

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.steps

    def shows(self) -> str:
        return "images"


def run(model: FeynmanKac, n: int = 64, seed: int = 1, **more) -> Run:
    """`motes.sample` without a progress bar."""
    return motes.sample(model, n, seed=seed, progress=False, **more)
