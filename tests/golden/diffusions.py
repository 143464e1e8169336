"""Golden runs of diffusion: exact denoisers of normal laws and mixtures, and small tables of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import motes
from motes import diffusion as d
from motes.diffusion import discrete, inverse

Runs = dict[str, Callable[[], tuple[Any, int, int]]]
F = torch.float64
PROCESS = d.VariancePreserving()


def normal(dim: int = 2) -> d.Denoiser:
    return d.gaussian(PROCESS, torch.zeros(dim), torch.eye(dim))


def first(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0]


def flow() -> d.Denoiser:
    """The optimal transport from N(0.3, 1/4) at t = 0 to N(0, 1) at t = 1."""
    return d.Denoiser(lambda x, t: (0.5 * x - 0.3) / (0.5 + 0.5 * t[:, None]), d.RectifiedFlow(), predicts="flow")


def measured() -> Any:
    keep = torch.tensor([True, False, True, False])
    observation = inverse.Observation(inverse.Mask(keep), torch.tensor([1.0, -0.5]), std=0.5)
    return inverse.posterior(normal(4), 8, observation, shape=(4,))


def tokens(**settings: Any) -> discrete.ReverseDiscrete:
    process = discrete.Masked(2)
    exact = discrete.joint(process, torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
    return discrete.ReverseDiscrete(exact, 2, reward=lambda x: 2.0 * x[:, 0], **settings)


RUNS: Runs = {
    "ReverseDiffusion": lambda: (motes.ReverseDiffusion(normal(), 6, reward=first, shape=(2,)), 32, 6),
    "Guided": lambda: (d.Guided(normal(), 6, guidance="reward", reward=first, shape=(2,)), 32, 6),
    "ProbabilityFlow": lambda: (d.ProbabilityFlow(normal(), 6, shape=(2,)), 32, 6),
    "TiltedFlow": lambda: (d.TiltedFlow(flow(), 6, reward=first, shape=(1,)), 32, 6),
    "Composition": lambda: (d.Composition([normal()], [2.0], 6, shape=(2,)), 32, 6),
    "posterior": lambda: (measured(), 32, 6),
    "ReverseDiscrete": lambda: (tokens(), 32, 2),
    "TokenComposition": lambda: (
        discrete.TokenComposition([discrete.joint(discrete.Masked(2), torch.tensor([[0.4, 0.1], [0.1, 0.4]]))], [2.0]),
        32,
        2,
    ),
    "ReverseBlackout": lambda: (
        discrete.ReverseBlackout(
            lambda x, t: x + 6.0 * (1 - torch.exp(-t))[:, None], discrete.Blackout(), 4, reward=first, shape=(1,)
        ),
        32,
        4,
    ),
}
