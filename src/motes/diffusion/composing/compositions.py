"""Compositions by name, and the mixture of several models as a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motes.diffusion.composing.composition import Composition
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.errors import MotesError


def classifier_free(
    conditional: Denoiser, unconditional: Denoiser, scale: float, steps: Any, **options: Any
) -> Composition:
    """Classifier-free guidance that samples what it says, q_unconditional^(1 - scale) q_conditional^scale.

    Without weights (weights="none") it is the usual guided sampler. For scale > 1 the law exists only where the
    conditional model is the narrower one.

    Args:
        conditional, unconditional: two models of one process.
        scale: 1 is the conditional model.
        steps, options: as for `Composition`.

    References:
        Ho & Salimans (2022), Classifier-Free Diffusion Guidance, arXiv 2207.12598.
        Skreta et al. (2025), Feynman-Kac Correctors in Diffusion, ICML (its weights).
    """
    return Composition([unconditional, conditional], [1 - scale, scale], steps, **options)


def annealed(denoiser: Denoiser, power: float, steps: Any, **options: Any) -> Composition:
    """One model at another temperature, q^power: colder for a power above 1, warmer below.

    Args:
        denoiser: the model.
        power: positive.
        steps, options: as for `Composition`.

    References:
        Skreta et al. (2025), Feynman-Kac Correctors in Diffusion, ICML (annealing).
    """
    return Composition([denoiser], [power], steps, **options)


def product(denoisers: Sequence[Denoiser], steps: Any, **options: Any) -> Composition:
    """The product of experts, prod_i q_i: what every model finds likely.

    Args:
        denoisers: models of one process.
        steps, options: as for `Composition`.

    References:
        Hinton (2002), Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 14.
    """
    return Composition(denoisers, [1.0] * len(denoisers), steps, **options)


def geometric_mean(
    denoisers: Sequence[Denoiser], steps: Any, *, shares: Sequence[float] | None = None, **options: Any
) -> Composition:
    """The geometric mean, prod_i q_i^{share_i} with shares that sum to 1.

    Args:
        denoisers: models of one process.
        steps, options: as for `Composition`.
        shares: of each model, positive, scaled to sum to 1; None is equal ones.

    Raises:
        ValueError: a share is not positive.
    """
    shares = [1.0] * len(denoisers) if shares is None else [float(s) for s in shares]
    if not all(s > 0 for s in shares):
        raise MotesError(f"the shares of a geometric mean must be positive, not {shares}")
    return Composition(denoisers, [s / sum(shares) for s in shares], steps, **options)


def rl_guidance(base: Denoiser, tuned: Denoiser, scale: float, steps: Any, **options: Any) -> Composition:
    """Between a base model and one tuned for a reward, and beyond: q_base^(1 - scale) q_tuned^scale.

    If the tuned model is q_base exp(reward / beta), as reinforcement learning with a divergence penalty beta aims at,
    this is q_base exp(scale * reward / beta): the penalty is beta / scale, without training.

    Args:
        base, tuned: two models of one process.
        scale: 0 is the base model and 1 the tuned one.
        steps, options: as for `Composition`.

    References:
        Jin, Qiu, Liu, Diao, Qiao, Ding, Lamb & Qiu (2025), Inference-Time Alignment Control for Diffusion Models with
        Reinforcement Learning Guidance, arXiv 2508.21016.
    """
    return Composition([base, tuned], [1 - scale, scale], steps, **options)


def blend(denoisers: Sequence[Denoiser], shares: Sequence[float]) -> Denoiser:
    """The mixture sum_i share_i q_i of models with log-densities, as one model with a log-density.

    Its prediction is that of each model, weighed by how likely the model is given the noisy image. The shares are of
    normalised densities: models with energies need the normalisers, and unknown constants change the shares.

    Args:
        denoisers: models of one process, each with a log-density.
        shares: positive, need not sum to 1.

    Raises:
        MotesError: a model has no log-density.
        ValueError: the shares or the processes do not fit.

    Example:
        >>> import torch
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> process = VariancePreserving()
        >>> two = [gaussian(process, torch.tensor([m]), torch.eye(1)) for m in (-1.0, 1.0)]
        >>> float(blend(two, [1, 1]).data(torch.zeros(1, 1), 0.5).abs().max())
        0.0
    """
    denoisers, process = tuple(denoisers), denoisers[0].process
    weight = torch.tensor([float(s) for s in shares], dtype=torch.float64)
    if len(weight) != len(denoisers) or not bool((weight > 0).all()):
        raise MotesError(f"{len(denoisers)} models need as many positive shares, not {list(shares)}")
    if any(d.process != process for d in denoisers):
        raise MotesError("models of different processes have no mixture: their noise levels do not match")
    if not all(d.has_log_density for d in denoisers):
        raise MotesError("a mixture needs the log-density of every model, Denoiser(..., log_density=f)")
    log_share = torch.log(weight / weight.sum())

    def joint(x: Tensor, t: Tensor) -> Tensor:
        """(N, M) log share_i q_i(x)."""
        return torch.stack([d.log_density(x, t) for d in denoisers], dim=1) + log_share.to(x.device)

    def data(x: Tensor, t: Tensor) -> Tensor:
        each = torch.stack([d.data(x, t) for d in denoisers], dim=1)
        return torch.einsum("nm,nm...->n...", torch.softmax(joint(x, t), dim=1).to(each), each)

    def log_density(x: Tensor, t: Tensor) -> Tensor:
        return torch.logsumexp(joint(x, t), dim=1)

    name = "mixture of " + ", ".join(d.name or "a model" for d in denoisers)
    return Denoiser(data, process, predicts="data", name=name, log_density=log_density)
