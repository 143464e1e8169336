"""Semantic entropy: the entropy over meanings instead of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError, ShapeError
from motes.language.uncertainty.answers import Answers, Given, answers_of, entropy_of, measures, shares
from motes.language.uncertainty.clusters import ByEmbedding, Meaning, cluster
from motes.language.uncertainty.embedding import Embed
from motes.rng import Rng
from motes.rng.seed import seeded

Clusters = Meaning | Embed | Tensor | Sequence[int]
"""Who judges what means the same (a function of texts is an embedding), or the cluster of each text."""


def labels_of(answers: Answers, clusters: Clusters, how: str) -> Tensor:
    """(N,) int64, the cluster of each text, 0.. in the order of appearance."""
    if isinstance(clusters, Meaning):
        return cluster(answers.texts, clusters, how=how)
    if isinstance(clusters, type):
        raise MotesError(f"{clusters.__name__} is a class: make one, as in ByKey(str.casefold) or MiniLM()")
    if callable(clusters):
        return cluster(answers.texts, ByEmbedding(clusters), how=how)
    numbers = isinstance(clusters, Tensor) or (
        isinstance(clusters, Sequence) and all(isinstance(k, Integral) for k in clusters)
    )
    label = torch.as_tensor(clusters) if numbers else torch.zeros(0)
    if label.shape != (answers.n,) or label.is_floating_point():
        raise ShapeError(
            f"clusters of {answers.n} texts must be {answers.n} whole numbers, a Meaning (ByKey, ByFunction, "
            f"ByEmbedding, ByJudge) or an embedding such as MiniLM(), not {clusters!r}"
        )
    number: dict[int, int] = {}
    return torch.tensor([number.setdefault(k, len(number)) for k in label.tolist()])


@measures.register
def semantic_entropy(answers: Given, clusters: Clusters, *, how: str = "first") -> Estimate[float]:
    """The entropy of the meanings of weighted texts, nats; for equal weights that of the counts ("discrete").

    P_c = sum of W_i over the texts that mean c, H = -sum P_c log P_c. A plug-in estimate: biased down by about
    (meanings - 1) / (2 ess). Its standard error is that of the delta method with the term of second order,

        var H = (sum_c P_c log^2 P_c - H^2) / n + (meanings - 1) / (2 n^2),    n = ess,

    without which it would vanish for equal shares. There is none if all texts mean the same (other meanings then have
    a probability of at most about 3 / ess) or if no two do (the entropy is then at least of the order of log n, and
    nothing bounds it from above).

    References:
        Harris (1975), The statistical estimation of entropy in the non-parametric case, Colloq. Math. Soc. János
        Bolyai 16, for the variance to second order.
        Kuhn, Gal & Farquhar (2023), Semantic uncertainty, ICLR; Farquhar, Kossen, Kuhn & Gal (2024), Detecting
        hallucinations in large language models using semantic entropy, Nature 630.

    Args:
        answers: a run, `Answers`, or a list of texts.
        clusters: who judges what means the same (`ByKey`, `ByEmbedding`, ...; a bare embedding such as `MiniLM()`
            is `ByEmbedding` with its default), or a cluster for each text.
        how: "first" or "components", see `cluster`.

    Example:
        >>> import torch
        >>> from motes.language.uncertainty import Answers, ByKey, semantic_entropy
        >>> p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
        >>> answers = Answers(["Paris", "It's Paris", "London"], log_weight=p.log())
        >>> round(semantic_entropy(answers, ByKey(lambda text: "Paris" in text)).value, 5)
        0.32508
    """
    answers = answers_of(answers)
    label = labels_of(answers, clusters, how)
    share = shares(label, answers.weight, int(label.max()) + 1)
    value = float(entropy_of(share))
    parts = {"cluster": label, "share": share}
    seen, drawn = int((share > 0).sum()), int((answers.weight > 0).sum())
    if seen == drawn > 1:
        return Estimate(value, math.nan, ALL_DIFFER, ess=answers.ess, parts=parts)
    if seen == 1:
        return Estimate(0.0, math.nan, ALL_ALIKE, ess=answers.ess, parts=parts)
    # dH/dP_c = -log P_c up to a constant; a text of weight zero has no influence
    influence = -share.clamp(min=1e-300).log()[label]
    return answers.sample.estimate(value, influence, (seen - 1) / 2, parts=parts, bias=PLUG_IN)


UNSEEN = "either way: texts that were not drawn are left out"
PLUG_IN = "down, as in every plug-in entropy: by about (meanings - 1) / (2 ess) where no two are alike"
ALL_ALIKE = "all texts mean the same; other meanings have a probability of at most about 3 / ess"
ALL_DIFFER = "no two texts mean the same, so that the entropy may be larger without bound; draw more texts"


@measures.register
def semantic_entropy_of_likelihood(
    answers: Given,
    clusters: Clusters,
    *,
    how: str = "first",
    per_token: bool = False,
    seed: int | Rng | None = None,
    replicates: int = 400,
) -> Estimate[float]:
    """Semantic entropy with each distinct text's own probability instead of its weight ("Rao"), nats.

    P_c is proportional to the sum of p(y) over the *distinct* texts y that mean c; a text that was drawn twice counts
    once (some implementations count it twice, and no longer estimate this entropy). Only which texts were drawn is
    random. Those that were not are left out (see `missing_mass`), which biases it either way. With `seed` the standard
    error comes from resampled texts. These hold fewer distinct texts than the sample, so that the error is rough.

    Args:
        answers: `Answers` with log-probabilities, as from `score_run`.
        clusters: as for `semantic_entropy`.
        how: "first" or "components".
        per_token: p(y)^(1 / number of tokens) instead of p(y), as the published code does; needs `scored`. It is no
            probability, but does not prefer short answers.
        seed: for the standard error; None leaves it out.
        replicates: resampled populations.

    Raises:
        MotesError: log-probabilities or, for `per_token`, scores are not known.
    """
    rng = None if seed is None else seeded(seed)
    answers = answers_of(answers)
    log_prob = answers.need_log_prob("the likelihood version of semantic entropy")
    if per_token:
        if answers.scored is None:
            raise MotesError("per_token=True needs the number of tokens: score_run(run, generation) finds it")
        log_prob = log_prob / answers.scored.length.clamp(min=1)
    label = labels_of(answers, clusters, how)
    same, first = answers.distinct()
    top = log_prob[first].max()
    p = (log_prob[first] - top).exp()
    meaning, count = label[first], int(label.max()) + 1

    def value(weight: Tensor) -> Tensor:
        seen = shares(same, weight, len(first)) > 0
        share = shares(meaning, seen * p, count)
        return entropy_of(share / share.sum(-1, keepdim=True))

    all_seen = shares(meaning, p, count)
    parts = {"cluster": label, "share": all_seen / all_seen.sum()}
    plain = float(entropy_of(parts["share"]))
    if rng is None:
        return Estimate(plain, math.nan, "give seed= for one", ess=answers.ess, parts=parts)
    return answers.sample.bootstrap(rng, value, replicates, parts=parts, bias=UNSEEN)
