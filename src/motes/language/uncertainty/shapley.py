"""Entropy of answers that are alike by degrees, and each answer's share of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError, ShapeError
from motes.language.uncertainty.answers import Given, answers_of, entropy_of, measures, shares
from motes.language.uncertainty.embedding import Embed, embed_texts
from motes.language.uncertainty.missing import ONE_TEXT
from motes.language.uncertainty.semantic import ALL_DIFFER, PLUG_IN
from motes.rng import Rng
from motes.rng.seed import seeded

EXACT = 12
"""Up to this number of distinct answers all coalitions are enumerated."""


def kernel_entropy(weight: Tensor, alike: Tensor) -> Tensor:
    """The von Neumann entropy of weighted answers, -sum of e log e over eigenvalues e of W^(1/2) K W^(1/2), nats.

    If K is 1 within meanings and 0 between, it is the semantic entropy; uncorrelated answers of equal weight have
    log n, answers that are all alike 0. `shapley_uncertainty` takes texts, and has error bars.

    References:
        Nikitin, Kossen, Gal & Marttinen (2024), Kernel language entropy, NeurIPS.

    Args:
        weight: (..., K), sums to 1.
        alike: (K, K) symmetric and positive semidefinite with ones on the diagonal.

    Raises:
        MotesError: weight or alike is something else.
    """
    if not isinstance(weight, Tensor) or weight.ndim == 0:
        raise MotesError(
            f"kernel_entropy takes the weights (K,) of K answers, not a {type(weight).__name__}: "
            "shapley_uncertainty(answers, alike) takes a run or texts"
        )
    if not bool((weight >= 0).all()) or float((weight.sum(-1) - 1).abs().max()) > 1e-4:
        raise MotesError("the weights must be at least 0 and sum to 1")
    return _entropy(weight.to(torch.float64), _checked(alike, weight.shape[-1]))


def _entropy(weight: Tensor, alike: Tensor) -> Tensor:
    root = weight.sqrt()
    eigen = torch.linalg.eigvalsh(root[..., :, None] * alike * root[..., None, :])
    return entropy_of(eigen.clamp(min=0.0))


@measures.register
def shapley_uncertainty(
    answers: Given, alike: Tensor | Embed, *, seed: int | Rng | None = None, orders: int = 200
) -> Estimate[float]:
    """The kernel entropy of the answers, divided among the distinct answers by Shapley's value, nats.

    The worth of a set S of answers is the kernel entropy of S alone, its weights normalised. `parts["share"]` holds the
    mean of what an answer adds over all orders in which answers can come: shares sum to the total, alike answers of
    equal weight have equal shares. The published measure builds the worth on a continuous entropy of the correlation
    matrix instead; this worth has the same limits, log n for uncorrelated and 0 for equal answers, stays finite at the
    latter, and is the semantic entropy where answers are alike fully or not at all.

    Exact for up to 12 distinct answers; beyond that over random orders from `seed`. The standard error of the total is
    that of the delta method with the term of second order, tr (A C)^2 / 2 with A the second derivative and C the
    covariance of the weights: a plug-in entropy, biased down. Where no two texts are alike at all there is none.

    References:
        Zhu, Jin, Huang & Zhang (2025), Shapley uncertainty in natural language generation, arXiv 2507.21406.

    Args:
        answers: a run, `Answers`, or a list of texts.
        alike: (K, K) correlations of the K distinct texts in the order of appearance, as `V @ V.T` of unit embeddings;
            or an embedding, such as `MiniLM()`, whose cosines they then are.
        seed: for random orders, needed beyond 12 distinct answers.
        orders: how many random orders.

    Raises:
        ShapeError: `alike` is no (K, K).
        MotesError: `alike` is no correlation matrix, or `seed` is missing.
    """
    rng = None if seed is None else seeded(seed)
    answers = answers_of(answers)
    distinct = list(dict.fromkeys(answers.texts))
    place = {text: k for k, text in enumerate(distinct)}
    label = torch.tensor([place[text] for text in answers.texts])
    count = len(distinct)
    if callable(alike) and not isinstance(alike, Tensor):
        vectors = embed_texts(alike, distinct)
        alike = vectors @ vectors.T
    alike = _checked(alike, count)
    share = shares(label, answers.weight, count)
    total = float(_entropy(share, alike))
    if count <= EXACT:
        part = _exact(share, alike)
    elif rng is None:
        raise MotesError(f"{count} distinct answers are too many for all orders: give seed=")
    else:
        part = _by_orders(rng, share, alike, orders)
    parts = {"share": part, "texts": distinct, "weight": share}
    drawn = share > 0
    if int(drawn.sum()) == 1:
        return Estimate(0.0, math.nan, ONE_TEXT, ess=answers.ess, parts=parts)
    apart = alike[drawn][:, drawn] - torch.eye(int(drawn.sum()), dtype=torch.float64)
    if int(drawn.sum()) == int((answers.weight > 0).sum()) and float(apart.abs().max()) < 1e-9:
        return Estimate(total, math.nan, ALL_DIFFER, ess=answers.ess, parts=parts)
    influence = _gradient(share, alike)[label]
    return answers.sample.estimate(total, influence, _second(share, alike), parts=parts, bias=PLUG_IN)


def _checked(alike: Tensor, count: int) -> Tensor:
    if not isinstance(alike, Tensor) or alike.shape != (count, count):
        what = tuple(alike.shape) if isinstance(alike, Tensor) else type(alike).__name__
        raise ShapeError(
            f"alike must be ({count}, {count}) for {count} distinct texts, as V @ V.T of unit embeddings V, not {what}"
        )
    alike = alike.detach().to(torch.float64)
    even = torch.allclose(alike, alike.T, atol=1e-6) and torch.allclose(alike.diagonal(), alike.new_ones(()), atol=1e-4)
    if not even or float(torch.linalg.eigvalsh(alike)[0]) < -1e-6 * count:
        raise MotesError("alike must be symmetric and positive semidefinite with ones on the diagonal")
    return alike


def _gradient(share: Tensor, alike: Tensor) -> Tensor:
    """(K,) the derivative of the entropy by each weight, up to a constant."""
    root = share.sqrt()
    value, vector = torch.linalg.eigh(root[:, None] * alike * root[None, :])
    # d e / d w_k = e v_k^2 / w_k, and d(-e log e) = -(1 + log e) de; the ones sum to a constant over the weights
    inner = (vector.square() * torch.special.xlogy(value.clamp(min=0), value.clamp(min=1e-300))).sum(1)
    return torch.where(share > 0, -inner / share.clamp(min=1e-300), 0.0)


def _second(share: Tensor, alike: Tensor) -> float:
    """tr (A C)^2 / 2, A the second derivative of the entropy by the weights and C = diag(w) - w w'.

    With v_ka the part of answer k in the eigenvector a of R = sum_k w_k v_k v_k', A_jk is minus the sum over a, b of
    v_ja v_jb v_ka v_kb log(e_a / e_b) / (e_a - e_b), 1 / e_a where they are equal.
    """
    drawn = share > 0
    w, alike = share[drawn], alike[drawn][:, drawn]
    root = w.sqrt()
    e, u = torch.linalg.eigh(root[:, None] * alike * root[None, :])
    e, u = e[e > 1e-12], u[:, e > 1e-12]
    v = u * e.sqrt() / root[:, None]
    ratio, apart = e[:, None] / e, e[:, None] - e
    c = torch.where((ratio.log()).abs() < 1e-6, 2 / (e[:, None] + e), ratio.log() / apart)
    pair = (v[:, :, None] * v[:, None, :]).flatten(1)
    second = -(pair * c.flatten()) @ pair.T
    move = second @ (torch.diag(w) - w[:, None] * w)
    return float((move * move.T).sum()) / 2


def _worth(member: Tensor, share: Tensor, alike: Tensor) -> Tensor:
    """(B,) the kernel entropy of each set, a row of `member` (B, K) bool; 0 for the empty set."""
    weight = member * share
    total = weight.sum(1, keepdim=True)
    return _entropy(torch.where(total > 0, weight / total.clamp(min=1e-300), 0.0), alike)


def _exact(share: Tensor, alike: Tensor) -> Tensor:
    count = len(share)
    code = torch.arange(2**count)
    member = (code[:, None] >> torch.arange(count)) & 1
    worth = _worth(member.bool(), share, alike)
    size = member.sum(1)
    out = torch.zeros(count, dtype=torch.float64)
    # |S|! (K - |S| - 1)! / K! by set size
    times = torch.tensor([1 / (count * math.comb(count - 1, s)) for s in range(count)], dtype=torch.float64)
    for k in range(count):
        without = code[member[:, k] == 0]
        out[k] = (times[size[without]] * (worth[without + 2**k] - worth[without])).sum()
    return out


def _by_orders(rng: Rng, share: Tensor, alike: Tensor, orders: int) -> Tensor:
    count = len(share)
    out = torch.zeros(count, dtype=torch.float64)
    for k in range(orders):
        order = rng.at("order", inner=k).permutation(count)
        rank = torch.argsort(order)
        member = rank[None, :] < torch.arange(count + 1)[:, None]
        out[order] += _worth(member, share, alike).diff()
    return out / orders
