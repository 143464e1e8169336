"""A model for the command: seconds are under the test's control, the answer is known."""

import math
import os
import time

import torch

from motes import FeynmanKac, Particles

STEPS = 12


class Coins(FeynmanKac):
    """Each step adds a standard normal number and pays exp(-x^2 / 2): the pause comes from the environment."""

    quantity = "log-likelihood"

    def init(self, rng, n):
        return Particles.start(rng.at("start").normal((n, 1)), torch.zeros(n, dtype=torch.float64))

    def step(self, rng, particles):
        time.sleep(float(os.environ.get("COINS_PAUSE", "0")))
        if particles.t + 1 == int(os.environ.get("COINS_FAIL_AT", "-1")):
            raise RuntimeError("the coin rolled away")
        x = particles.x + rng.at("move").normal((particles.n, 1))
        pay = torch.full((particles.n,), -math.inf) if os.environ.get("COINS_ZERO") else -0.5 * x[:, 0] ** 2
        return particles.step(x, pay.double())

    def done(self, particles):
        return particles.t >= STEPS


def model():
    return Coins()
