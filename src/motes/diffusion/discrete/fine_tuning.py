"""Fine-tuning a masked model on a reward, by gradients through whole relaxed trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motes.diffusion.discrete.process import Masked
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.rng import Rng


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning did.

    Attributes:
        reward: the mean reward of the relaxed samples at each iteration.
        divergence: the Kullback-Leibler divergence of the trajectories from the reference's at each, nats.
    """

    reward: tuple[float, ...]
    divergence: tuple[float, ...]


Soft = Callable[[Tensor, Tensor], Tensor]
"""Maps soft states (N, L, V + 1), the mask last, and times (N,) to logits (N, L, V)."""


def fine_tune(
    network: nn.Module,
    reference: Soft,
    process: Masked,
    reward: Callable[[Tensor], Tensor],
    *,
    length: int,
    alpha: float,
    steps: int = 8,
    iterations: int = 500,
    batch: int = 64,
    rate: float = 1e-3,
    temperature: float = 0.5,
    seed: int | Rng = 0,
) -> FineTuned:
    """Raise E[reward] - alpha KL(trajectories of the network, of the reference), by direct backpropagation (DRAKES).

    A batch of sequences is unmasked in `steps` parallel steps, each place's token by straight-through Gumbel-softmax,
    and the gradient goes through the whole trajectory. The divergence of the chains is exact given the states: at each
    step and masked place, the probability of unmasking times the divergence of the two predictions. The optimum of the
    objective is the reference's law times exp(reward / alpha); the straight-through gradient is biased, so how near the
    network comes is to be measured (or corrected, by weights against the reference).

    Args:
        network: a `Soft` model with parameters, changed in place; it starts best as a copy of the reference.
        reference: the pretrained model.
        process: the masking process.
        reward: maps soft sequences (N, L, V), one-hot in the forward pass, to (N,), differentiably.
        length: L.
        alpha: what a nat of divergence costs, in units of the reward.
        steps, iterations, batch, rate: of the trajectory, and of Adam.
        temperature: of the Gumbel-softmax; at 1 the bias towards the largest reward is strong.
        seed: of everything that is drawn.

    Raises:
        ValueError: alpha, temperature or a count that is not positive, or the network as its own reference.
        ShapeError: the network, the reference or the reward return another shape.
        NanLogPotential: the objective or its gradient is not finite; says the iteration. The network keeps the last
            finite parameters.

    References:
        Wang, Uehara, He, Wang, Biancalani, Lal, Jaakkola, Levine, Wang & Regev (2025), Fine-Tuning Discrete Diffusion
        Models via Reward Optimization with Applications to DNA and Protein Design, ICLR, section 5.
        Jang, Gu & Poole (2017), Categorical Reparameterization with Gumbel-Softmax, ICLR (straight-through).
    """
    if not alpha > 0 or not temperature > 0 or min(steps, iterations, batch, length) < 1:
        raise MotesError("alpha, temperature, steps, iterations, batch and length must be positive")
    if reference is network:
        raise MotesError("the reference is the network itself, from which it never diverges: give a copy")
    rng = seed if isinstance(seed, Rng) else Rng(seed)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, rate)
    rewards: list[float] = []
    divergences: list[float] = []
    for i in range(iterations):
        final, divergence = trajectory(
            network, reference, process, rng.at("batch", step=i), batch, length, steps, temperature
        )
        value = reward(final)
        if value.shape != (batch,):
            raise ShapeError(f"the reward must return one number a sequence, ({batch},), not {tuple(value.shape)}")
        loss = alpha * divergence.mean() - value.mean()
        # Only the network's own gradients: the reference is in the graph too, and keeps none.
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        if not all(bool(torch.isfinite(x).all()) for x in (loss, *slopes) if x is not None):
            raise NanLogPotential(
                f"the objective or its gradient is not finite at iteration {i}: lower the rate, or look at the reward"
            )
        for p, slope in zip(parameters, slopes, strict=True):
            p.grad = slope
        optimiser.step()
        rewards.append(float(value.detach().mean()))
        divergences.append(float(divergence.detach().mean()))
    return FineTuned(tuple(rewards), tuple(divergences))


def trajectory(
    network: Soft,
    reference: Soft,
    process: Masked,
    rng: Rng,
    n: int,
    length: int,
    steps: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Soft sequences (n, L, V) of the network, one-hot in value, and their divergence (n,) from the reference's.

    Arguments as for `fine_tune`.
    """
    v = process.vocabulary
    times = torch.linspace(process.t_max, 0.0, steps + 1, dtype=torch.float64).tolist()
    state = torch.zeros(n, length, v + 1)
    state[..., v] = 1.0
    divergence = torch.zeros(n)
    for k in range(steps):
        unmasks, t = process.unmasks(times[k], times[k + 1]), torch.full((n,), times[k])
        log_p, log_q = (
            torch.log_softmax(_logits(model, who, state, t), -1)
            for who, model in (("network", network), ("reference", reference))
        )
        masked = state[..., v]
        divergence = divergence + (masked * unmasks * (log_p.exp() * (log_p - log_q)).sum(-1)).sum(1)
        # Which places are unmasked does not depend on the network, so no gradient goes through it.
        opened = masked * (rng.at("opened", inner=k).uniform((n, length)) < unmasks).to(masked)
        noise = rng.at("gumbel", inner=k).gumbel((n, length, v)).to(log_p)
        soft = torch.softmax((log_p + noise) / temperature, -1)
        hard = torch.nn.functional.one_hot(soft.argmax(-1), v).to(soft)
        drawn = hard + soft - soft.detach()
        state = torch.cat([state[..., :v] + opened[..., None] * drawn, (masked - opened)[..., None]], -1)
    return state[..., :v], divergence


def _logits(model: Soft, who: str, state: Tensor, t: Tensor) -> Tensor:
    logits, shape = model(state, t), (*state.shape[:2], state.shape[2] - 1)
    if logits.shape != shape:
        raise ShapeError(f"the {who} must return logits {shape}, not {tuple(logits.shape)}")
    return logits
