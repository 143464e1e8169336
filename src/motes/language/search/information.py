"""Tree search for the text that the question informs most about: pointwise mutual information as the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from motes.errors import MotesError, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam
from motes.language.search.search_result import SearchResult, ranked, start
from motes.rng import Rng


def information_search(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    without: str | Sequence[Message],
    *,
    seed: int | Rng,
    width: int = 4,
    samples: int = 4,
    step: int = 8,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 64,
    chat: bool | str = "auto",
) -> SearchResult:
    """Sampled continuations, of which those go on that the question makes more likely than its absence does.

    Score of a text y: log p(y | prompt) - log p(y | without), under rules and constraint, which adds up over tokens. A
    step is a block of `step` tokens. Every kept text draws 1 to `samples` continuations, more where the entropy H of
    its next token is larger: 1 + round((samples - 1) H / log V). The `width` best different ones are kept.
    `vote(found.texts, found.score)` then weighs answers by exp(score).

    A heuristic: what it finds is no sample of any law. Where the prompt makes no difference all scores are 0.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages.
        without: the same without the question.
        seed: of the continuations; or an `Rng`.
        width: how many texts are kept.
        samples: the most continuations of one text in one step.
        step: tokens of a step.
        rules, constraint, max_tokens, chat: as for `beam_search`.

    Raises:
        EmptyConstraint: no text was found that the constraint accepts.
        MotesError: an argument is of the wrong kind.

    References:
        Li et al. (2025), MITS: enhanced tree search reasoning for LLMs via pointwise mutual information, arXiv
        2510.03632; steps are blocks here, and the number of samples is this function's own.
    """
    check_whole(1, width=width, samples=samples, step=step)
    rng = (seed if isinstance(seed, Rng) else Rng(seed)).at("information")
    beam = start(model, prompt, rules, constraint, max_tokens, chat)
    blind = start(model, without, rules, constraint, max_tokens, chat)
    if beam.reader.model.vocabulary < 2:
        raise MotesError("a vocabulary of one token has nothing to search")
    t = 0
    while bool(beam.going.any()):
        copies = _copies(beam, samples)
        beam, blind = beam.keep(copies), blind.keep(copies)
        for _ in range(step):
            if not bool(beam.going.any()):
                break
            entry, token = torch.arange(len(beam)), torch.full((len(beam),), -1)
            going = torch.nonzero(beam.going)[:, 0]
            token[going] = rng.at("token", step=t).shard(going).categorical(beam.next_log_prob())
            beam, blind, t = beam.grow(entry, token), blind.grow(entry, token), t + 1
        kept = _best(beam, blind, width)
        beam, blind = beam.keep(kept), blind.keep(kept)
    return ranked([beam], beam.log_prob - blind.log_prob, width)


def _copies(beam: Beam, samples: int) -> Tensor:
    """The entries, each as often as it draws continuations."""
    law, count = beam.next_log_prob(), torch.ones(len(beam), dtype=torch.int64)
    entropy = -torch.where(torch.isneginf(law), 0.0, law.exp() * law).sum(1)
    count[beam.going] += ((samples - 1) * entropy / math.log(law.shape[1])).round().to(torch.int64)
    return torch.repeat_interleave(torch.arange(len(beam)), count)


def _best(beam: Beam, blind: Beam, width: int) -> Tensor:
    """The `width` best of the different texts that are not in a dead end."""
    score, seen, kept = beam.log_prob - blind.log_prob, set(), []
    for i in torch.sort(score, descending=True, stable=True).indices.tolist():
        text = tuple(beam.tokens[i, : int(beam.length[i])].tolist())
        if text not in seen and not bool(torch.isneginf(beam.log_mass[i])) and len(kept) < width:
            seen.add(text)
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)
