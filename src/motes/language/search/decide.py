"""What to answer with, given weighted texts: the best on average, or the one with the most votes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.weights import ess, normalise
from motes.errors import ShapeError


@dataclass(frozen=True)
class Decision:
    """An answer and how the candidates did.

    Attributes:
        answer: the best candidate.
        value: its share of the votes, or its expected utility.
        candidates: all of them, best first.
        values: (M,) theirs.
        ess: the effective sample size of the weights that decided.
    """

    answer: str
    value: float
    candidates: list[str]
    values: Tensor
    ess: float


def vote(
    texts: Sequence[str], *, log_weight: Tensor | None = None, key: Callable[[str], Hashable | None] = str.strip
) -> Decision:
    """Weighted majority: the share of weight of each answer; equal weights count heads (self-consistency).

    Args:
        texts: the texts of a run.
        log_weight: (N,) nats; None for equal weights.
        key: what two texts must share to be one answer (the number at their end, say); None abstains.

    Example:
        >>> vote(["4", "4 ", "5"], log_weight=torch.tensor([0.1, 0.3, 0.6]).double().log()).answer
        '5'

    References:
        Wang et al. (2023), Self-consistency improves chain of thought reasoning in language models, ICLR, section 2.
    """
    weight, size = _weights(texts, log_weight)
    keys, share, shown = [key(text) for text in texts], {}, {}
    for i, k in enumerate(keys):
        if k is not None:
            share[k] = share.get(k, 0.0) + float(weight[i])
            shown.setdefault(k, texts[i])
    if not share:
        raise ShapeError("every text abstains: `key` returned None for each")
    order = sorted(share, key=lambda k: -share[k])
    values = torch.tensor([share[k] for k in order], dtype=torch.float64)
    values = values / values.sum()
    return Decision(shown[order[0]], float(values[0]), [shown[k] for k in order], values, size)


def bayes_risk(
    texts: Sequence[str],
    log_weight: Tensor | None,
    utility: Callable[[str, str], float],
    *,
    candidates: Sequence[str] | None = None,
) -> Decision:
    """Minimum Bayes risk: the candidate whose utility, averaged over the weighted texts, is largest.

    argmax over y of sum_j W_j u(y, y_j). With u = 1[y = y'] it is the weighted vote, with u = -(a - b)^2 of numbers the
    candidate next to the weighted mean. Equal texts are asked about once.

    Args:
        texts: the texts of a run.
        log_weight: (N,) nats; None for equal weights.
        utility: of a candidate, given that the other text were right.
        candidates: None are the distinct texts of positive weight.

    Example:
        >>> bayes_risk(["1", "2", "9"], None, lambda a, b: -abs(int(a) - int(b))).answer
        '2'

    References:
        Kumar & Byrne (2004), Minimum Bayes-risk decoding for statistical machine translation, HLT-NAACL.
        Suzgun, Melas-Kyriazi & Jurafsky (2023), Follow the wisdom of the crowd, Findings of ACL.
    """
    weight, size = _weights(texts, log_weight)
    mass: dict[str, float] = {}
    for text, w in zip(texts, weight.tolist(), strict=True):
        if w > 0:
            mass[text] = mass.get(text, 0.0) + w
    pool = list(dict.fromkeys(mass if candidates is None else candidates))
    values = torch.tensor([sum(w * float(utility(y, t)) for t, w in mass.items()) for y in pool], dtype=torch.float64)
    order = torch.sort(values, descending=True, stable=True).indices.tolist()
    return Decision(pool[order[0]], float(values[order[0]]), [pool[i] for i in order], values[order], size)


def _weights(texts: Sequence[str], log_weight: Tensor | None) -> tuple[Tensor, float]:
    log_weight = torch.zeros(len(texts), dtype=torch.float64) if log_weight is None else log_weight.double()
    if log_weight.shape != (len(texts),) or not len(texts):
        raise ShapeError(f"{len(texts)} texts need as many log-weights, not {tuple(log_weight.shape)}")
    return normalise(log_weight), ess(log_weight)
