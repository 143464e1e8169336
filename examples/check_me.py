"""Checking a model before running it: the same line, written right and with a slip. Run: python examples/check_me.py

`motes check examples/check_me.py` checks the `model` below from the command line.
"""

import torch
from torch.distributions import HalfNormal, Normal

import motes
from motes.density.checks import check

x = torch.linspace(-1, 1, 20, dtype=torch.float64)
y = 0.5 + 2.0 * x + 0.3 * torch.cos(40 * x)
prior = {"intercept": Normal(0.0, 2.0), "slope": Normal(0.0, 2.0), "noise": HalfNormal(1.0)}


def right(p: dict[str, torch.Tensor]) -> torch.Tensor:
    return Normal(p["intercept"] + p["slope"] * x, p["noise"]).log_prob(y).sum()


def slip(p: dict[str, torch.Tensor]) -> torch.Tensor:
    return Normal(p["intercept"] + p["slope"] * x, p["noise"].detach()).log_prob(y).sum()


model = motes.Density(right, prior)

if __name__ == "__main__":
    for name, likelihood in (("right", right), ("with a slip", slip)):
        print(f"{name}:\n{check(motes.Density(likelihood, prior))}\n")
