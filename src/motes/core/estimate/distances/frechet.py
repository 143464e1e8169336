"""The Fréchet distance between sets of features, as torchmetrics computes it, with an error bar."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import ShapeError, check_at_least, needing

INSTALL = "the Fréchet distance is computed by torchmetrics: pip install 'motes[distances]'"


def frechet_distance(features: Tensor, reference: Tensor, *, groups: int = 10) -> Estimate[Tensor]:
    """The squared Fréchet distance of two sets of features, |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)).

    Of the normal laws with the sets' means and covariances. Plain means and covariances bias it upwards by the order of
    d / n; the jackknife over groups takes the leading part of that off and gives the error bar. Only comparisons with
    the same features and numbers of images say something. Equally weighted images are needed: `run.draws(k)` of a
    weighted run.

    Args:
        features: (n, d) of the images, from any network (a classifier's last layer), or small images flattened.
        reference: (m, d) of data.
        groups: groups of the jackknife, each left out once.

    Raises:
        ImportError: torchmetrics is not installed.
        ShapeError: the shapes do not fit, or a set has fewer than 2 groups' worth of rows.

    References:
        Dowson & Landau (1982), The Fréchet Distance between Multivariate Normal Distributions, Journal of Multivariate
        Analysis 12. Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter (2017), GANs Trained by a Two Time-Scale Update
        Rule Converge to a Local Nash Equilibrium, NeurIPS.
    """
    with needing(INSTALL):
        from torchmetrics.image.fid import FrechetInceptionDistance
    sets = [s.detach().double().cpu() for s in (features, reference)]
    if any(s.ndim != 2 or len(s) < 2 * groups for s in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ShapeError(
            f"need features (n, d) and (m, d) with at least {2 * groups} rows each, not {tuple(features.shape)} and "
            f"{tuple(reference.shape)}"
        )
    check_at_least(2, groups=groups)
    identity = torch.nn.Identity()
    identity.num_features = sets[0].shape[1]  # type: ignore[assignment]

    def distance(leave: int | None) -> float:
        metric = FrechetInceptionDistance(feature=identity, normalize=True)
        for rows, real in zip(sets, (False, True), strict=True):
            kept = rows if leave is None else rows[torch.arange(len(rows)) % groups != leave]
            metric.update(kept, real=real)
        return float(metric.compute())

    whole = distance(None)
    left = torch.tensor([distance(g) for g in range(groups)], dtype=torch.float64)
    value = groups * whole - (groups - 1) * left.mean()
    se = math.sqrt((groups - 1) / groups * float((left - left.mean()).square().sum()))
    bias = "up, by order d / n less what the jackknife takes off"
    return Estimate(value, torch.tensor(se, dtype=torch.float64), method="jackknife over groups", bias=bias)
