"""What a model says of given texts, token by token: log-probabilities, entropies, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from motes.core.errors import MotesError, NanLogPotential, name_particles
from motes.language.hub import TransformersModel
from motes.language.model import LanguageModel, Message, in_place

if TYPE_CHECKING:
    from motes.core.run import Run
    from motes.language.generation import Generation
    from motes.language.uncertainty.answers import Answers


@dataclass(frozen=True)
class Scored:
    """A model's numbers for N texts of at most L tokens; zero behind the end of a text.

    Attributes:
        tokens: each text's tokens.
        log_prob: (N, L) float64, log p(token | prompt and what stands before it), nats.
        entropy: (N, L) float64, the entropy of the law that the token was drawn from, nats.
        variance: (N, L) float64, the variance of -log p under that law.
        length: (N,) int64.
    """

    tokens: list[tuple[int, ...]]
    log_prob: Tensor
    entropy: Tensor
    variance: Tensor
    length: Tensor

    @property
    def total(self) -> Tensor:
        """(N,) the log-probability of each text, nats."""
        return self.log_prob.sum(1)

    @property
    def mean(self) -> Tensor:
        """(N,) the mean log-probability of each text's tokens, nats; 0 for a text without tokens."""
        return self.total / self.length.clamp(min=1)


def score(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    texts: Sequence[str | Sequence[int] | Tensor],
    *,
    chat: bool | str = "auto",
    end: bool = False,
) -> Scored:
    """The log-probability of each token of given texts behind a prompt, and the entropy there.

    Equal beginnings are evaluated once, and all texts side by side.

    Args:
        model: a language model.
        prompt: as for `Generation`.
        texts: texts, or token sequences. A text is cut into tokens by the model's tokenizer, which is one of its
            spellings; a run's texts are scored exactly, as they were drawn, by `score_run`.
        chat: as for `Generation`.
        end: whether an end token stands behind each text (not behind token sequences).

    Raises:
        MotesError: a text cannot be cut into tokens, or there is no text.
        NanLogPotential: the model returned NaN.
    """
    return score_tokens(model, model.encode(prompt, chat), [_tokens(model, text, end) for text in texts])


def score_tokens(model: LanguageModel, prompt: Tensor, tokens: Sequence[tuple[int, ...]]) -> Scored:
    """`score` for a prompt (P,) and texts that are tokens."""
    if not tokens:
        raise MotesError("there is no text to score")
    bad = [i for i, text in enumerate(tokens) if any(not 0 <= v < model.vocabulary for v in text)]
    if bad:
        raise MotesError(f"texts {bad[:8]} hold tokens outside 0..{model.vocabulary - 1}, which {model.name} lacks")
    length = torch.tensor([len(text) for text in tokens])
    longest = int(length.max())
    padded = torch.tensor([[*text, *[0] * (longest - len(text))] for text in tokens], dtype=torch.int64)
    padded = padded.reshape(len(tokens), longest)
    log_prob, entropy, variance = (torch.zeros(len(tokens), longest, dtype=torch.float64) for _ in range(3))
    prefixes = model.prefixes(prompt, max(longest, 1)) if longest else None
    row = torch.zeros(len(tokens), dtype=torch.int64)
    for j in range(longest):
        assert prefixes is not None
        if j:
            going = length > j
            parent, added, row[going] = in_place(row[going], padded[going, j - 1], model.vocabulary)
            prefixes.extend(parent, added)
        here = torch.nonzero(length > j)[:, 0]
        law = torch.log_softmax(prefixes.logits.detach().cpu().to(torch.float64), -1)
        if torch.isnan(law).any():
            which = here[torch.isin(row[here], torch.nonzero(torch.isnan(law).any(1))[:, 0])].tolist()
            raise NanLogPotential(f"{model.name} returned NaN logits for {name_particles(which)} at token {j}")
        p = law.exp()
        surprise = -law.masked_fill(p == 0, 0.0)
        mean = (p * surprise).sum(1)
        spread = (p * (surprise - mean[:, None]).square()).sum(1)
        log_prob[here, j] = law[row[here], padded[here, j]]
        entropy[here, j], variance[here, j] = mean[row[here]], spread[row[here]]
    return Scored(list(tokens), log_prob, entropy, variance, length)


def score_run(run: Run, generation: Generation) -> Answers:
    """The texts of a run with their weights and the log-probability of each under the law that they follow.

    The law is p(y) exp(reward(y)) 1[valid] / Z, so log p(y) + reward(y) - log Z, where Z is 1 without constraint and
    reward and estimated otherwise; the error of log Z is common to all texts and is kept as `log_prob_se`.

    Args:
        run: of texts, finished.
        generation: what it ran; without rules, under which the law of a text is not the model's.

    Raises:
        MotesError: the generation has rules.
    """
    from motes.language.uncertainty.answers import Answers

    if generation.rules:
        raise MotesError("under rules the law of a text is not the model's own, so its score says nothing of it")
    x = run.particles.x
    tokens = [tuple(t[:k].tolist()) for t, k in zip(x["tokens"], x["length"].tolist(), strict=True)]
    found = score_tokens(generation.model, generation.prompt, tokens)
    tilted = generation.constraint is not None or generation.reward is not None
    log_prob = found.total + (x["provisional"] - run.log_evidence if tilted else 0.0)
    se = run.log_evidence_se if tilted else 0.0
    return Answers(run.texts, run.log_weight, log_prob, se, found, run)


def _tokens(model: LanguageModel, text: str | Sequence[int] | Tensor, end: bool) -> tuple[int, ...]:
    if not isinstance(text, str):
        return tuple(int(v) for v in text)
    if not isinstance(model, TransformersModel):
        raise MotesError(f"{model.name} has no tokenizer: give the texts as token sequences")
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return (*ids, *(model.end[:1] if end else ()))
