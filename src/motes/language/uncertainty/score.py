"""What a model says of given texts, token by token: log-probabilities, entropies, and their spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from motes.core.run import Run
from motes.errors import MotesError, NanLogPotential, name_particles
from motes.language.generation.generation import Generation
from motes.language.models.hugging_face import TransformersModel
from motes.language.models.model import LanguageModel, Message
from motes.language.search.population import TextPopulation
from motes.language.uncertainty.answers import Answers
from motes.language.uncertainty.scored import Scored


def score(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    texts: Sequence[str | Sequence[int] | Tensor],
    *,
    chat: bool | str = "auto",
    end: bool = False,
) -> Scored:
    """The log-probability of each token of given texts behind a prompt, and the entropy there.

    Equal texts are evaluated once, and all texts side by side, many tokens a call.

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
    distinct = list(dict.fromkeys(tokens))
    length = torch.tensor([len(text) for text in distinct])
    longest, rows, names = int(length.max()), len(distinct), [tokens.index(text) for text in distinct]
    padded = torch.tensor([[*text, *[0] * (longest - len(text))] for text in distinct], dtype=torch.int64)
    padded = padded.reshape(rows, longest)
    numbers = torch.zeros(rows, longest, 3, dtype=torch.float64)
    if longest:
        prefixes = model.prefixes(prompt, longest)
        first = torch.nonzero(length > 0)[:, 0]
        numbers[first, 0] = _numbers(model, prefixes.logits[:1], padded[first, 0], 0, names)
        prefixes.extend(torch.zeros(rows, dtype=torch.int64), torch.full((rows,), -1))
        width = max(1, MOST_LOGITS // (rows * model.vocabulary))
        for begin in range(0, longest - 1, width):
            block = padded[:, begin : min(begin + width, longest - 1)]
            count = (length - 1 - begin).clamp(0, block.shape[1])
            looked = prefixes.look(block, count)
            for j in range(block.shape[1]):
                here = torch.nonzero(count > j)[:, 0]
                at = begin + j + 1
                numbers[here, at] = _numbers(
                    model, looked[here, j], padded[here, at], at, [names[k] for k in here.tolist()]
                )
            prefixes.keep(count)
    place = {text: k for k, text in enumerate(distinct)}
    row = torch.tensor([place[text] for text in tokens])
    log_prob, entropy, variance = numbers[row].unbind(2)
    return Scored(list(tokens), log_prob, entropy, variance, length[row])


MOST_LOGITS = 2**25
"""The most logits that are held at once."""


def _numbers(model: LanguageModel, logits: Tensor, token: Tensor, at: int, names: list[int]) -> Tensor:
    """(A, 3): log p of each token (A,), the entropy of its law, the variance of -log p; laws (A, V), or one for all."""
    law = torch.log_softmax(logits.detach().cpu().to(torch.float64), -1)
    bad = torch.nonzero(torch.isnan(law).any(1))[:, 0].tolist()
    if bad:
        who = name_particles([names[k] for k in bad])
        raise NanLogPotential(f"{model.name} returned NaN logits for {who} at token {at}")
    p = law.exp()
    surprise = -law.masked_fill(p == 0, 0.0)
    mean = (p * surprise).sum(1)
    spread = (p * (surprise - mean[:, None]).square()).sum(1)
    law, mean, spread = (x.expand(len(token), *x.shape[1:]) for x in (law, mean, spread))
    return torch.stack([law[torch.arange(len(token)), token], mean, spread], 1)


def score_run(run: Run, generation: Generation | TextPopulation, *, laws: bool = False) -> Answers:
    """The texts of a run with their weights and the log-probability of each under the law that they follow.

    The law is p(y) exp(reward(y)) 1[valid] / Z, so log p(y) + reward(y) - log Z, where Z is 1 without constraint and
    reward and estimated otherwise; the error of log Z is common to all texts and is kept as `log_prob_se`. Where the
    run kept what the model said of each token, nothing is evaluated again.

    Args:
        run: of texts, finished.
        generation: what it ran; without rules, under which the law of a text is not the model's.
        laws: evaluate the texts for the entropy and the variance of each token's law too, which `token_entropy` and
            `provenance` need.

    Raises:
        MotesError: the generation has rules.
    """
    if generation.rules:
        raise MotesError("under rules the law of a text is not the model's own, so its score says nothing of it")
    run = run.alone("score_run")
    x = run.particles.x
    tokens = [tuple(t[:k].tolist()) for t, k in zip(x["tokens"], x["length"].tolist(), strict=True)]
    kept = x.get("log_prob")
    if laws or kept is None or kept.ndim != 2:  # beams keep one number a text
        found = score_tokens(generation.model, generation.prompt, tokens)
    else:
        longest = int(x["length"].max())
        inside = torch.arange(longest) < x["length"][:, None]
        found = Scored(tokens, torch.where(inside, kept[:, :longest], 0.0), None, None, x["length"])
    rewarded = isinstance(generation, Generation) and generation.reward is not None
    tilted = rewarded or generation.constraint is not None
    log_prob = found.total + ((x["provisional"] if rewarded else 0.0) - run.log_evidence if tilted else 0.0)
    se = run.log_evidence_se if tilted else 0.0
    return Answers(run.texts, log_weight=run.log_weight, log_prob=log_prob, log_prob_se=se, scored=found, run=run)


def _tokens(model: LanguageModel, text: str | Sequence[int] | Tensor, end: bool) -> tuple[int, ...]:
    if not isinstance(text, str):
        return tuple(int(v) for v in text)
    if not isinstance(model, TransformersModel):
        raise MotesError(f"{model.name} has no tokenizer: give the texts as token sequences")
    return (*model.spell(text), *(model.end[:1] if end else ()))
