"""The digits, a judge of them, what is measured of them, and means and quantiles of what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from motes.diffusion import DIGITS_SHAPE, inverse
from motes.rng import Rng

F64 = torch.float64


@dataclass
class Data:
    """The 1,797 images in [-1, 1], their classes, and a judge that learned from half of them."""

    images: Tensor
    labels: Tensor
    judge: Any
    right: float  # the judge's share of right answers on the other half

    def nearest(self, images: Tensor) -> Tensor:
        return torch.cdist(images.flatten(1), self.images.flatten(1)).argmin(1)

    def classes(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.judge.predict(images.flatten(1).numpy()))


def known() -> Data:
    raw: Any = load_digits()
    images, labels = torch.as_tensor(raw.images / 8 - 1, dtype=torch.float32)[:, None], torch.as_tensor(raw.target)
    order = Rng(0).at("halves").permutation(len(images))
    learn, check = order[: len(images) // 2], order[len(images) // 2 :]
    judge = SVC(gamma="scale", C=10.0).fit(images[learn].flatten(1).numpy(), labels[learn].numpy())
    right = judge.score(images[check].flatten(1).numpy(), labels[check].numpy())
    return Data(images, labels, judge, float(right))


def mean(values: list[float]) -> float:
    seen = [v for v in values if math.isfinite(v)]
    return sum(seen) / len(seen) if seen else math.nan


def spread(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=F64).std())


def operators() -> dict[str, tuple[inverse.LinearOperator, float]]:
    """What is measured, and the standard deviation of its noise (pixels go from -1 to 1)."""
    keep = torch.zeros(DIGITS_SHAPE, dtype=torch.bool)
    keep[:, :4] = True
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return {"upper half": (inverse.Mask(keep), 1.0), "blur": (inverse.Blur(line[:, None] * line), 0.8)}


def quantile(values: Tensor, weight: Tensor, share: float) -> Tensor:
    """The weighted quantile of each column."""
    order = values.argsort(0)
    total = weight[order].cumsum(0)
    at = (total < share).sum(0).clamp(max=len(values) - 1)
    return values.gather(0, order)[at, torch.arange(values.shape[1])]
