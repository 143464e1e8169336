"""Kullback-Leibler divergence and mutual information from denoisers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.common import by_snr, noised, prediction
from motes.errors import MotesError, ShapeError
from motes.rng import Rng
from motes.rng.seed import seeded


def kl_divergence(
    first: Denoiser,
    second: Denoiser,
    samples: Tensor,
    *,
    seed: int | Rng,
    steps: int = 100,
    micro_batch: int | None = None,
) -> Estimate[Tensor]:
    """The divergence of one model's law from another's, nats, from their predictions alone.

    For the same noising process on both laws, KL(p | q) = 1/2 int g^2 E_p|score_p - score_q|^2 dt + KL(p_T | q_T), or

        KL(p | q) = 1/2 int E_p|D_p(x_t) - D_q(x_t)|^2 d snr + KL(p_T | q_T).

    The last term vanishes with the data in the noise and is left out, as is what happens below t_min: the result is the
    divergence of the laws as they are at t_min less that at t_max. Exact for exact denoisers up to the trapezoid rule;
    learned ones bias it by their errors, mostly upwards where p and q are near.

    Args:
        first: the denoiser of p.
        second: the denoiser of q, with the same process.
        samples: (n, *shape) from p.
        seed: a whole number or an Rng, of the noise.
        steps: cells of equal log-snr of the trapezoid rule.
        micro_batch: rows a call of a model.

    Raises:
        ValueError: the processes are different.

    References:
        Franzese, Bounoua & Michiardi (2024), MINDE: Mutual Information Neural Diffusion Estimation, ICLR, Eq. (7).
        Song et al. (2021), Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS, theorem 1.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VarianceExploding, gaussian
        >>> process = VarianceExploding()
        >>> p, q = (gaussian(process, torch.tensor([m]), torch.eye(1)) for m in (0.0, 1.0))
        >>> found = kl_divergence(p, q, Rng(0).at("x").normal((50, 1)), seed=Rng(0))
        >>> round(float(found), 3)  # 1/2, less what the noise at t_min and t_max hides
        0.5
    """
    rng = seeded(seed)
    check_networks(first=first, second=second)
    if first.process != second.process:
        raise MotesError(f"the two denoisers must share a process, not {first.process} and {second.process}")
    times, gaps = first.process.times(steps, "snr"), []
    for k, t in enumerate(times.tolist()):
        x, _ = noised(first.process, samples, t, rng.at("noise", inner=k))
        gap = prediction(first, x, t, micro_batch) - prediction(second, x, t, micro_batch)
        gaps.append(gap.double().flatten(1).square().sum(1))
    return independent_mean(by_snr(first.process, times, torch.stack(gaps, 1)))


def mutual_information(
    marginal: Denoiser,
    conditional: Callable[[Tensor, float, Tensor], Tensor],
    samples: Tensor,
    partners: Tensor,
    *,
    seed: int | Rng,
    steps: int = 100,
    micro_batch: int | None = None,
) -> Estimate[Tensor]:
    """The mutual information of x and y, nats, from predictions of x with and without y.

    I(x; y) = E_y KL(p(x | y) | p(x)) = 1/2 int E|D(x_t, y) - D(x_t)|^2 d snr. Up to the trapezoid rule and to what is
    left below t_min exact for exact denoisers; errors of learned ones bias it, mostly upwards.

    Args:
        marginal: the denoiser of x.
        conditional: (x_t (n, *shape), t, y (n, ...)) to the prediction of x given y too.
        samples, partners: (n, *shape) and (n, ...) joint draws of x and y.
        seed: a whole number or an Rng, of the noise.
        steps: cells of equal log-snr.
        micro_batch: rows a call of a model.

    Raises:
        ShapeError: not as many partners as samples, or a prediction of another shape.

    References:
        Franzese, Bounoua & Michiardi (2024), MINDE: Mutual Information Neural Diffusion Estimation, ICLR, section 4.
        Guo, Shamai & Verdu (2005), Mutual Information and Minimum Mean-Square Error in Gaussian Channels, IEEE
        Transactions on Information Theory 51.
    """
    rng = seeded(seed)
    check_networks(marginal=marginal, conditional=conditional)
    if len(partners) != len(samples):
        raise ShapeError(f"{len(samples)} samples need as many partners, not {len(partners)}")
    times, gaps = marginal.process.times(steps, "snr"), []
    for k, t in enumerate(times.tolist()):
        x, _ = noised(marginal.process, samples, t, rng.at("noise", inner=k))
        with torch.no_grad():
            known = in_parts(lambda a, b, t=t: conditional(a, t, b), micro_batch, x, partners)
        if known.shape != x.shape:
            raise ShapeError(f"the conditional model returned {tuple(known.shape)} for x of shape {tuple(x.shape)}")
        gap = known - prediction(marginal, x, t, micro_batch)
        gaps.append(gap.double().flatten(1).square().sum(1))
    return independent_mean(by_snr(marginal.process, times, torch.stack(gaps, 1)))
