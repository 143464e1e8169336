"""Training on data that is never seen clean: with pixels missing, or with noise on them."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from motes.diffusion.processes.process import Process
from motes.diffusion.training.denoising import noised, noised_at
from motes.errors import MotesError
from motes.learn.objective import Objective
from motes.rng import Rng


@dataclass(frozen=True)
class MissingParts(Objective):
    """Learn from data with parts missing: hide more of them, and ask for all that was there.

    An example is (y, A): the mask A is 1 where the data were seen and 0 where they are missing, and what y holds there
    does not matter. A random mask B hides more, the network predicts the data from A B x_t and the mask A B, and the
    loss is |A (prediction - y)|^2. What was hidden on purpose cannot be told from what was missing, so the optimum is
    E[x_0 | A B x_t, A B] for *all* parts, wherever each part has a chance to be seen: the law of the data is learned
    from fragments. Which parts are missing must not depend on the data.

    The network is called as network(x, t, mask=...) and predicts "data". Afterwards, a mask of ones asks about whole
    states, which training saw if some examples hide nothing.

    Args:
        process: the noising process.
        hide: the probability that a part that is seen is hidden, in (0, 1).
        spacing: how times are spread, "time" or "snr"; the process's default if None.

    Raises:
        ValueError: `hide` outside (0, 1).

    References:
        Daras, Shah, Dagan, Gollakota, Dimakis & Klivans (2023), Ambient Diffusion: Learning Clean Distributions from
        Corrupted Data, NeurIPS.
    """

    process: Process
    _: KW_ONLY
    hide: float = 0.1
    spacing: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hide < 1:
            raise MotesError(f"hide must lie in (0, 1), not {self.hide}: with 0 there is nothing to learn from")

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        seen = batch[1].to(batch[0])
        data = torch.where(seen > 0, batch[0], 0.0)
        at = noised(rng, self.process, data, self.spacing)
        left = seen * (rng.at("hide").uniform(tuple(data.shape)) >= self.hide).to(data)
        guess = network(left * at.x, at.t.to(at.x), mask=left)
        return (seen * (guess - data)).square().flatten(1).mean(1)


@dataclass(frozen=True)
class NoisyData(Objective):
    """Learn the clean data from examples that all carry normal noise of a known strength.

    At a noise level r = sigma / alpha above the strength s, more noise takes an example to the process's x_t, and with
    the clean prediction h = E[x_0 | x_t]

        E[example | x_t] = ((r^2 - s^2) h + s^2 x_t / alpha) / r^2,

    exactly. The network predicts h ("data") and the loss asks its right side for the example, so that the optimum is h.
    Below the level s nothing is learned: stop sampling there (`t_min` of the process at `earliest`) and take the
    denoised prediction.

    Args:
        process: the noising process.
        std: the standard deviation s of the noise of the examples, in units of the data.

    Raises:
        ValueError: the noise is not positive, or the process never reaches it.

    References:
        Daras, Dimakis & Daskalakis (2024), Consistent Diffusion Meets Tweedie, ICML.
    """

    process: Process
    std: float

    def __post_init__(self) -> None:
        if not self.std > 0 or self.earliest >= self.process.t_max:
            raise MotesError(
                f"the noise of the examples must have a std above 0 and below that of the process, not {self.std}"
            )

    @property
    def earliest(self) -> float:
        """The time at which the process is as noisy as the examples; training is for later ones."""
        return max(float(self.process.time(-math.log(self.std))), self.process.t_min)

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        example = batch[0]
        place = torch.arange(len(example), device=example.device, dtype=torch.float64) / len(example)
        u = (place + rng.at("time").uniform(()).to(place)) % 1.0
        at = noised_at(rng, self.process, example, self.process.t_max + u * (self.earliest - self.process.t_max))
        ratio = (self.std * at.alpha / at.sigma) ** 2  # s^2 / r^2
        x = at.alpha * example + at.sigma * torch.sqrt((1 - ratio).clamp(min=0)) * at.noise
        clean = network(x, at.t.to(x))
        return ((1 - ratio) * clean + ratio * x / at.alpha - example).square().flatten(1).mean(1)
