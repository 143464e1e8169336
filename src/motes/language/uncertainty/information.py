"""Mutual information between a model's answers when it is shown its own earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError, ShapeError
from motes.language.models.model import LanguageModel, Message
from motes.language.uncertainty.answers import shares
from motes.language.uncertainty.score import score

Prompt = str | Sequence[Message]

ITERATED = (
    "Consider the following question: {question}\nOne answer to this question is: {answer}\n"
    "Give an answer to the following question: {question}"
)


def iterated_answers(
    model: LanguageModel,
    prompt: Prompt,
    answers: Sequence[str | Sequence[int]],
    again: Callable[[int], Prompt],
    *,
    chat: bool | str = "auto",
    end: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of K distinct answers at first, and once the model was shown each of them, nats.

    Args:
        model: a language model.
        prompt: the question.
        answers: K distinct answers, texts or tokens.
        again: the prompt that shows answer i and asks again; `ITERATED` is the wording of the paper.
        chat: as for `Generation`.
        end: see `score`.

    Returns:
        (K,) log p(answer j), and (K, K) log p(answer j | answer i was shown), a row for each i.
    """
    first = score(model, prompt, answers, chat=chat, end=end).total
    rows = [score(model, again(i), answers, chat=chat, end=end).total for i in range(len(answers))]
    return first, torch.stack(rows)


def answer_information(
    log_first: Tensor,
    log_second: Tensor,
    *,
    clusters: Sequence[int] | Tensor | None = None,
    floor: tuple[float, float] = (0.0, 0.0),
) -> Estimate[float]:
    """The mutual information of a first answer and a second one given with the first in view, nats.

    With p_i the probability of answer i and q_ij that of j once i was shown, both normalised over the answers at hand,

        I = sum_ij p_i q_ij log((p_i q_ij + floor_1) / (p_i m_j + floor_2)),     m_j = sum_i p_i q_ij.

    A model that knows the answers, one or many, is not moved by hearing one of them: I = 0. A model that does not know
    repeats what it hears: I comes near the entropy of p. If the true answers are independent, I is at most the
    Kullback-Leibler divergence of the model's joint law from the truth, so it bounds its ignorance from below.

    Answers that are left out make it a number about those at hand; `floor` (for small positive numbers) keeps rare
    ones from counting, as in the paper's estimator. Without sampling in it there is no error bar.

    References:
        Abbasi-Yadkori, Kuzborskij, György & Szepesvári (2024), To believe or not to believe your LLM: iterative
        prompting for estimating epistemic uncertainty, NeurIPS, arXiv 2406.02543.

    Args:
        log_first: (K,) log p(answer j), nats.
        log_second: (K, K) log p(answer j | answer i was shown), a row for each i.
        clusters: a meaning for each answer: probabilities are added over meanings first (rows with weights p_i).
        floor: added to the joint probability and to the product of the marginals.

    Raises:
        ShapeError: the shapes do not fit.
        MotesError: no answer has a probability.

    Example:
        >>> import torch
        >>> from motes.language.uncertainty import answer_information
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> round(float(answer_information(p, torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log())), 4)
        0.6931
    """
    count = len(log_first)
    if log_first.ndim != 1 or log_second.shape != (count, count):
        raise ShapeError(
            f"log_first (K,) and log_second (K, K), not {tuple(log_first.shape)}, {tuple(log_second.shape)}"
        )
    p = torch.softmax(log_first.double(), 0)
    q = torch.softmax(log_second.double(), 1)
    if torch.isnan(p).any() or torch.isnan(q[p > 0]).any():
        raise MotesError("answers without any probability: a row of log-probabilities is -inf throughout, or NaN")
    joint = torch.where(p[:, None] > 0, p[:, None] * q, 0.0)
    if clusters is not None:
        label = torch.as_tensor(clusters)
        if label.shape != (count,):
            raise ShapeError(f"clusters of {count} answers must be {count} whole numbers")
        k = int(label.max()) + 1
        joint = shares(label, shares(label, joint, k).T, k).T
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    ratio = torch.where(joint > 0, (joint + floor[0]) / (product + floor[1]), 1.0)
    value = float((joint * ratio.log()).sum())
    worth = float(1 / p.square().sum())
    return Estimate(value, float("nan"), "it is exact for these answers", ess=worth, parts={"joint": joint})
