"""Semantic volume: how much room the embeddings of the answers take."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError
from motes.language.uncertainty.answers import Given, answers_of, measures
from motes.language.uncertainty.embedding import Embed, embed_texts
from motes.rng import Rng
from motes.rng.seed import seeded


@measures.register
def semantic_volume(
    answers: Given,
    embed: Embed,
    *,
    dimensions: int | None = None,
    epsilon: float = 1e-3,
    seed: int | Rng | None = None,
    replicates: int = 200,
) -> Estimate[float]:
    """The log-determinant of the answers' Gram matrix, log det(eps I + N W^(1/2) V V' W^(1/2)).

    V (N, D) holds unit embeddings as rows, W the normalised weights; with equal weights it is log det(eps I + V V').
    Answers that mean the same make it small, orthogonal ones give N log(1 + eps), the most that there is for equal
    weights. For a given N it depends on the embeddings only through their weighted second moments: a, a, b with weights
    1/4, 1/4, 1/2 have the volume of a, b, b with 1/2, 1/4, 1/4, and rotations change nothing.

    It grows with N by itself, so compare answers drawn in equal numbers only. The standard error comes from resampled
    answers, whose copies make the volume smaller; it is the spread of that, not the error towards a limit.

    References:
        Li, Yu, Zhang, Zhuang, Shah, Sadagopan & Beniwal (2025), Semantic volume, arXiv 2502.21239.

    Args:
        answers: a run, `Answers`, or a list of texts.
        embed: maps texts to (N, D).
        dimensions: how many principal directions (of the weighted second moments) embeddings are projected to before.
        epsilon: keeps the determinant above zero.
        seed: for the standard error; None leaves it out.
        replicates: resampled populations.

    Raises:
        MotesError: epsilon is not positive, or there are fewer dimensions than asked for.
    """
    rng = None if seed is None else seeded(seed)
    if epsilon <= 0:
        raise MotesError(f"epsilon must be above zero, not {epsilon!r}")
    answers = answers_of(answers)
    distinct = list(dict.fromkeys(answers.texts))
    place = {text: k for k, text in enumerate(distinct)}
    vectors = embed_texts(embed, distinct)[[place[text] for text in answers.texts]]
    if dimensions is not None:
        if not 1 <= dimensions <= vectors.shape[1]:
            raise MotesError(f"dimensions must lie in 1..{vectors.shape[1]}, not {dimensions!r}")
        moments = vectors.T @ (answers.weight[:, None] * vectors)
        vectors = vectors @ torch.linalg.eigh(moments)[1][:, -dimensions:]
    gram = vectors @ vectors.T

    def value(weight: Tensor) -> Tensor:
        root = (answers.n * weight).sqrt()
        inside = root[:, :, None] * gram * root[:, None, :]
        return torch.logdet(inside + epsilon * torch.eye(answers.n, dtype=torch.float64))

    if rng is None:
        plain = float(value(answers.weight[None])[0])
        return Estimate(plain, float("nan"), "give seed= for one", ess=answers.ess)
    return answers.sample.bootstrap(rng, value, replicates)
