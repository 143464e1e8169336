"""Small Feynman-Kac models with known answers, for the tests of the engine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.model import FeynmanKac
from motes.core.particles import Particles


class Walk(FeynmanKac):
    """A Gaussian autoregression x' = a x + noise, weighted by N(y_t; x_t, s^2); the Kalman filter solves it."""

    quantity = "log-likelihood"

    def __init__(self, data: Tensor, a: float = 0.9, s: float = 1.0):
        self.data, self.a, self.s = data, a, s

    def log_potential(self, x: Tensor, t: int) -> Tensor:
        return -0.5 * ((self.data[t] - x) / self.s) ** 2 - math.log(self.s) - 0.5 * math.log(2 * math.pi)

    def init(self, rng, n):
        x = rng.at("x").normal((n,))
        return Particles.start(x, self.log_potential(x, 0))

    def step(self, rng, particles):
        x = self.a * particles.x + rng.at("x").normal((particles.n,))
        return particles.step(x, self.log_potential(x, particles.t + 1), info={"speed": float(x.abs().mean())})

    def done(self, particles):
        return particles.t == len(self.data) - 1

    def progress(self, particles):
        return particles.t / (len(self.data) - 1)

    def settings(self):
        return {"a": self.a, "s": self.s, "data": self.data.tolist()}

    def log_likelihood(self) -> float:
        """The exact answer."""
        return self.kalman()[0]

    def kalman(self) -> tuple[float, float]:
        """The log-likelihood and the mean of the last state given all data."""
        m, v, total = 0.0, 1.0, 0.0
        for t, y in enumerate(self.data.tolist()):
            if t:
                m, v = self.a * m, self.a**2 * v + 1
            f = v + self.s**2
            total += -0.5 * ((y - m) ** 2 / f + math.log(2 * math.pi * f))
            gain = v / f
            m, v = m + gain * (y - m), v * (1 - gain)
        return total, m


def data(steps: int) -> Tensor:
    return torch.tensor([3 * math.sin(0.3 * t) + 0.5 * math.cos(1.7 * t) for t in range(steps)], dtype=torch.float64)


class Breaks(Walk):
    """Puts `value` into the log-potential of `which` at step `at`."""

    def __init__(self, value: float, which: list[int], at: int, steps: int = 6):
        super().__init__(data(steps))
        self.value, self.which, self.at = value, which, at

    def log_potential(self, x, t):
        out = super().log_potential(x, t)
        if t == self.at:
            out[self.which] = self.value
        return out


class Flat(Walk):
    """Every particle gains the same at every step."""

    def log_potential(self, x, t):
        return torch.full_like(x, -0.25)
