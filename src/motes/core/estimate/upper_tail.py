"""The upper tail of weights, and of what a mean is taken of: whether few had the largest, and how heavy it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MANY = 8
"""As many particles within a factor of two of the largest weight have seen it well enough."""
FEW, TOP = 4, 0.2
"""The upper tail is looked at twice: the `FEW` largest weights, and this part of them, at least `MANY`."""
STEEP = 1.1
"""Where the log-weights of the upper tail lie further than this above the next smaller one, on average, the weights
fall off too slowly for their mean to be trusted. Of weights exp(s z), z normal, and 12, 32 or 128 particles, runs with
s = 1 keep their bar in 53, 97 and 100 % and with s = 3 in 0, 5 and 1 %, where it covered in at most four of ten."""
HEFT = 0.3
"""A part of the upper tail with less of all weight than this decides too little to matter. It spares events that few
particles met and that count e^2: of 128, with probability .05, the bar stays in 100 and not 82 % of runs and covers in
94; where weights fall off slowly nothing changes (tests/core/test_upper_tail.py)."""


def few_had_the_largest(log_weight: Tensor) -> bool:
    """Whether a mean of weights rests on an upper tail that few particles have reached.

    The mean excess of the largest log-weights over the next one is Hill's estimate of how slowly their law falls off:
    above 1 the mean of the weights would be infinite, if it went on so. Where many particles share the largest weight,
    as where an event has happened or not, it does not go on.

    Args:
        log_weight: (N,) since the weights were last equal, nats.

    References:
        Hill (1975), A simple general approach to inference about the tail of a distribution, Annals of Statistics 3(5).
    """
    alive = log_weight[log_weight > -math.inf]
    n, least = len(log_weight), min(FEW, len(alive) - 1)
    k = min(max(MANY, math.ceil(min(TOP * n, 3 * math.sqrt(n)))), len(alive) - 1)
    if least < 1:
        return False
    top = torch.topk(alive, k + 1).values
    if int((alive > top[0] - math.log(2)).sum()) >= MANY:
        return False
    heft = (top - torch.logsumexp(alive, 0)).exp()
    return any(float((top[:j] - top[j]).mean()) > STEEP and float(heft[:j].sum()) > HEFT for j in (least, k))


FEWEST = 25
"""With fewer positive weights the fifth that is taken for the tail holds fewer than five."""
PRIOR = 10.0
"""As many weights of a tail of shape 1/2 the estimate of the shape begins with."""


def tail_length(n: int) -> int:
    """How many of n weights are the tail that `pareto_shape` looks at."""
    return math.ceil(min(n / 5, 3 * math.sqrt(n)))


def pareto_shape(log_weight: Tensor) -> float:
    """The shape k of the Pareto law that fits the upper tail of weights: their moments of order 1 / k are infinite.

    The estimate is what `psis` calls k-hat, for use in a run; NaN with too few weights to tell, -inf for a flat tail.

    Args:
        log_weight: (N,) nats.

    References:
        Zhang & Stephens (2009), A new and efficient estimation method for the generalized Pareto distribution,
        Technometrics 51(3). Vehtari, Simpson, Gelman, Yao & Gabry (2024), JMLR 25(72), section 3 (how many are the
        tail, and the prior).
    """
    alive = log_weight[log_weight > -math.inf]
    n = len(alive)
    if n < FEWEST:
        return math.nan
    top = torch.topk(alive, tail_length(n) + 1).values.to(torch.float64).cpu()
    excess = (top - top[0]).exp()
    excess = (excess - excess[-1]).flip(0)
    excess = excess[excess > 0]
    m = len(excess)
    if m < 5:
        return -math.inf if float(top[0] - top[-1]) == 0 else math.nan
    grid = torch.arange(1, 31 + int(math.sqrt(m)), dtype=torch.float64)
    scale = (1 - (len(grid) / (grid - 0.5)).sqrt()) / (3 * excess[int(m / 4 + 0.5) - 1]) + 1 / excess[-1]
    shape = torch.log1p(-scale[:, None] * excess).mean(1)
    weight = torch.softmax(m * (torch.log(-scale / shape) - shape - 1), 0)
    k = float(torch.log1p(-(weight @ scale) * excess).mean())
    return (m * k + 0.5 * PRIOR) / (m + PRIOR)


WILD = 0.7
"""The shape of the tail above which a mean has no error bar: from 1/2 on there is no variance, and estimates of the
shape from the tails of some hundred draws scatter by a fifth."""
ALONE = 4.0
"""Where the squares of more values than this make the variance, in effective number, it is known well enough whatever
the shape. Of 512 values exp(s z), z normal, there are 73 at s = 1/2, 18 at s = 1 and 2 at s = 3, of 128 squares 13."""
SHOWN = 256
"""The most numbers whose tails are looked at."""


def wild(value: Tensor, weight: Tensor) -> Tensor:
    """(...) the shapes of the tails of W |f - median| where few values make a variance that may be infinite; else 0.

    Args:
        value: (N, ...) f.
        weight: (N,) normalised.
    """
    flat = value.reshape(len(value), -1).to(torch.float64)
    found = torch.zeros(flat.shape[1], dtype=torch.float64)
    if flat.shape[1] <= SHOWN:
        part = weight[:, None] * (flat - weight @ flat).abs()
        square = part.square()
        few = square.sum(0).square() < ALONE * square.square().sum(0)
        for j in few.nonzero().flatten().tolist():
            order = flat[:, j].argsort()
            half = order[int((weight[order].cumsum(0) < 0.5).sum())]  # around the mean a tail may begin at a zero
            shape = pareto_shape((weight * (flat[:, j] - flat[half, j]).abs()).log())
            found[j] = shape if shape > WILD else 0.0
    return found.reshape(value.shape[1:])


def wild_because(shape: float) -> str:
    """Why there is no error bar, in words, for the largest shape."""
    return (
        f"what the mean is taken of has a tail of shape {shape:.2f}, above {WILD}: its variance, or the mean, may be "
        "infinite, and values that were not drawn may carry much of it. Take the mean of something bounded, like an "
        "indicator or a rank"
    )
