"""The entropy of texts and of tokens, and perplexity."""

from __future__ import annotations

import math
from dataclasses import replace

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError
from motes.language.uncertainty.answers import Answers, Given, answers_of, measures
from motes.language.uncertainty.scored import Scored


@measures.register
def sequence_entropy(answers: Given) -> Estimate[float]:
    """The entropy of whole texts, -E[log p(y)], nats.

    The weighted mean of -log p(y), with p the law that the weighted texts follow. It is unbiased for equally weighted
    independent draws. If log p holds an estimated normaliser (`score_run` of a constrained run), the standard error of
    that is added, which is an upper bound since the two errors go together in an unknown way.

    References:
        Malinin & Gales (2021), Uncertainty estimation in autoregressive structured prediction, ICLR, eq. 8.

    Args:
        answers: `Answers` with log-probabilities, as from `score_run`.

    Raises:
        MotesError: the log-probabilities are not known, or a text of positive weight has none.

    Example:
        >>> import torch
        >>> from motes.language.uncertainty import Answers, sequence_entropy
        >>> p = torch.tensor([0.5, 0.5], dtype=torch.float64)
        >>> round(float(sequence_entropy(Answers(["a", "b"], log_prob=p.log()))), 4)
        0.6931
    """
    answers = answers_of(answers)
    log_prob = _alive(answers, answers.need_log_prob("the entropy of texts"))
    found = answers.sample.estimate(float(-answers.weight @ log_prob), -log_prob)
    return replace(found, se=found.se + answers.log_prob_se, reason=found.reason or answers.no_normaliser)


@measures.register
def token_entropy(answers: Given, *, per_token: bool = True) -> Estimate[float]:
    """The mean entropy of the model's next-token laws along the texts, nats per token or per text.

    Per token it is the ratio sum W_i sum_t H_it / sum W_i L_i, H_it the entropy of the law of token t of text i. Per
    text it is sum W_i sum_t H_it: for texts that follow the model's own law this estimates the entropy of whole texts
    without bias, by the chain rule. It varies less than `sequence_entropy` unless texts with much doubt on their way
    turn out likelier than that doubt suggests.
    For texts that follow another law (a constraint, a reward) it is the mean over them of the model's own doubt.

    Args:
        answers: `Answers` with `scored`, as from `score_run(..., laws=True)`.
        per_token: divide by the mean number of tokens.
    """
    answers = answers_of(answers)
    scored = _scored(answers)
    total, length = scored.need_laws()[0].sum(1), scored.length.double()
    weight = answers.weight
    if not per_token:
        return answers.sample.estimate(float(weight @ total), total)
    tokens = float(weight @ length)
    value = float(weight @ total) / tokens
    return answers.sample.estimate(value, (total - value * length) / tokens)


@measures.register
def perplexity(answers: Given) -> Estimate[float]:
    """exp of the mean negative log-probability of a token under the model, all tokens of all texts alike.

    exp(-sum W_i log p(y_i) / sum W_i L_i): a ratio estimate, biased by O(1/N), with the standard error of the delta
    method. Perplexities of single texts are `(-scored.mean).exp()`; their mean is another, larger number.

    Args:
        answers: `Answers` with `scored`, as from `score_run`, or `Answers(texts, scored=score(...))`.

    Raises:
        MotesError: no scores.
    """
    answers = answers_of(answers)
    scored = _scored(answers)
    log_prob, length = _alive(answers, scored.total), scored.length.double()
    tokens = float(answers.weight @ length)
    rate = float(-answers.weight @ log_prob) / tokens
    return answers.sample.estimate(math.exp(rate), math.exp(rate) * (-log_prob - rate * length) / tokens)


def _scored(answers: Answers) -> Scored:
    if answers.scored is None:
        raise MotesError("this needs the model's numbers for each token: score_run(run, generation) finds them")
    if float(answers.weight @ answers.scored.length.double()) == 0:
        raise MotesError("none of the texts has a token, so there is nothing to take a mean of")
    return answers.scored


def _alive(answers: Answers, log_prob):
    """Log-probabilities, zero where the weight is; -inf under a positive weight is an error."""
    alive = answers.weight > 0
    bad = (alive & ~log_prob.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise MotesError(f"texts {bad[:8]} have positive weight but no finite log-probability: another model drew them")
    return log_prob.masked_fill(~alive, 0.0)
