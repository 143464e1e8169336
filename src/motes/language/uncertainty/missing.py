"""How much probability the texts that were not drawn have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError
from motes.language.uncertainty.answers import Given, answers_of, measures, shares


@measures.register
def missing_mass(answers: Given) -> Estimate[float]:
    """The probability of all texts that are not among these: 1 minus the sum of p over the distinct ones.

    Exact for the law whose log-probabilities are given, whatever the weights are; the error bar is that of an estimated
    normaliser, if there is one. A text that can be spelled in several ways counts with the spellings that were drawn.

    References:
        Unobserved sequences (2025), arXiv 2510.04439.

    Args:
        answers: `Answers` with log-probabilities, as from `score_run`.

    Raises:
        MotesError: the log-probabilities are not known, or the distinct texts have more than 1 together and no
            estimated normaliser explains it.

    Example:
        >>> import torch
        >>> from motes.language.uncertainty import Answers, missing_mass
        >>> p = torch.tensor([0.5, 0.5, 0.2], dtype=torch.float64)
        >>> round(float(missing_mass(Answers(["a", "a", "b"], log_prob=p.log()))), 4)
        0.3
    """
    answers = answers_of(answers)
    log_prob = answers.need_log_prob("the exact missing mass")
    _, first = answers.distinct()
    seen = float(log_prob[first].exp().sum())
    if seen > 1 + 1e-4 and answers.log_prob_se == 0:
        raise MotesError(f"the distinct texts have probability {seen:.4f} together: log_prob is not normalised")
    se = seen * answers.log_prob_se
    parts = {"seen": seen, "distinct": len(first)}
    return Estimate(max(0.0, 1 - seen), se, answers.no_normaliser, ess=answers.ess, method="normaliser", parts=parts)


@measures.register
def good_turing(answers: Given) -> Estimate[float]:
    """The same without any probability: the weight of the texts that were drawn once.

    n1 / n for equal weights. With weights the sum of W_i over texts that nothing else equals: for independent draws
    from a law q with importance weights p / q, E[sum over singletons of w_i / n] is exactly the mean mass under p of
    what a sample of n - 1 leaves unseen; normalising adds a bias of O(1/n). Draws must be independent: after
    resampling copies hide singletons, and there is no error bar then.

    The standard error is that of the difference between estimate and truth, from singletons and pairs:
    sum_singles W^2 + sum_pairs 2 W^2 - (sum_singles W)^2 / n.

    References:
        Good (1953), The population frequencies of species, Biometrika 40.
        Esty (1983), A normal limit law for a nonparametric estimator of the coverage of a random sample, Annals of
        Statistics 11.

    Args:
        answers: texts, `Answers` or a run.

    Example:
        >>> from motes.language.uncertainty import good_turing
        >>> float(good_turing(["a", "a", "b", "c"]))
        0.5
    """
    answers = answers_of(answers)
    label, first = answers.distinct()
    weight = answers.weight
    count = torch.bincount(label, minlength=len(first))
    single = count[label] == 1
    value = float(weight[single].sum())
    parts = {"seen once": int((count == 1).sum()), "distinct": len(first)}
    resampled = answers.run is not None and answers.run.genealogy.generation > 0
    if resampled:
        return Estimate(value, math.nan, RESAMPLED, ess=answers.ess, parts=parts)
    if len(first) == 1:
        return Estimate(value, math.nan, ONE_TEXT, ess=answers.ess, parts=parts)
    if bool(single[weight > 0].all()):
        return Estimate(value, math.nan, ALL_ONCE, ess=answers.ess, parts=parts)
    variance = float(_squares(weight, single) + 2 * _pairs(weight, label, count)) - value**2 / answers.n
    return Estimate(value, math.sqrt(max(variance, 0.0)), ess=answers.ess, method="singletons and pairs", parts=parts)


RESAMPLED = "the texts were resampled, so they are not independent"
ALL_ONCE = "no text was drawn twice, so there may be any number of others; draw more texts"
ONE_TEXT = "all texts are the same: what was not seen has at most about 3 / ess"


def _squares(weight: Tensor, chosen: Tensor) -> Tensor:
    return weight[chosen].square().sum()


def _pairs(weight: Tensor, label: Tensor, count: Tensor) -> Tensor:
    """The sum over texts seen twice of the squared mean weight of a copy."""
    mean = shares(label, weight, len(count)) / count
    return mean[count == 2].square().sum()
