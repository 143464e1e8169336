"""Beam search and greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from motes.errors import MotesError, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam
from motes.language.search.search_result import SearchResult, ranked, start


def beam_search(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    width: int = 4,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 128,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    chat: bool | str = "auto",
) -> SearchResult:
    """Keep the `width` most probable prefixes, and return the best finished texts that they lead to.

    A text's score is log p / (number of tokens)^length_penalty, its end token counted, as in transformers. At each
    token, ends among the `width` best continuations are put aside, and the best `width` others go on. It stops when
    `width` texts are aside and the best prefix, at its length now, scores no better than the worst of them (a heuristic
    for penalties above 0); with `early_stopping` as soon as `width` are aside.

    No guarantee of the most probable text; `p_exact` has one.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages.
        width: how many prefixes are kept; 1 is greedy.
        rules: applied in order before the constraint.
        constraint: what the texts must satisfy.
        max_tokens: the most tokens of a text.
        length_penalty: above 0 longer texts gain, at 0 the score is log p.
        early_stopping: whether to stop at once when `width` texts are finished.
        chat: wrap the prompt in the model's chat template: True, False, or "auto" if there is one.

    Raises:
        EmptyConstraint: no text was found that the constraint accepts.
        MotesError: an argument is of the wrong kind.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.2, 0.3]).log().expand(4, 3))
        >>> beam_search(model, "", width=3, max_tokens=4, length_penalty=0.0).texts
        ['', 'a', 'aa']

    References:
        Lowerre (1976), The HARPY speech recognition system, Carnegie Mellon University.
        Wu et al. (2016), Google's neural machine translation system, arXiv 1609.08144, section 7, for the penalty.
    """
    check_whole(1, width=width)
    if not isinstance(length_penalty, (int, float)) or isinstance(length_penalty, bool):
        raise MotesError(f"length_penalty must be a number, not {length_penalty!r}")
    beam, done, score = start(model, prompt, rules, constraint, max_tokens, chat), [], torch.zeros(0).double()
    ends = torch.tensor(model.end)
    for t in range(1, max_tokens + 1):
        entry, token, log_prob = beam.candidates()
        order = torch.sort(log_prob, descending=True, stable=True).indices[: (1 + len(ends)) * width]
        ended = torch.isin(token[order], ends) | torch.tensor(t == max_tokens)
        best = order[:width][ended[:width]]
        on = order[~ended][:width]
        chosen = torch.cat([best, on])
        if not len(chosen):
            break
        grown = beam.grow(entry[chosen], token[chosen])
        aside = grown.keep(torch.arange(len(best)))
        aside = aside.keep(~torch.isneginf(aside.log_mass))
        done, score = _best(done, aside, score, aside.log_prob / t**length_penalty, width)
        beam = grown.keep(torch.arange(len(best), len(chosen)))
        beam = beam.keep(beam.going)
        if not len(beam):
            break
        hope = float(beam.log_prob.max()) / t**length_penalty
        if len(score) >= width and (early_stopping or hope <= float(score[-1])):
            break
    return ranked(done, score, width)


def _best(
    done: list[Beam], new: Beam, score: torch.Tensor, new_score: torch.Tensor, width: int
) -> tuple[list[Beam], torch.Tensor]:
    """The best `width` of the texts put aside, one a beam, and their scores."""
    every = [*done, *(new.keep(torch.tensor([i])) for i in range(len(new)))]
    score = torch.cat([score, new_score])
    order = torch.sort(score, descending=True, stable=True).indices[:width]
    return [every[i] for i in order.tolist()], score[order]


def greedy(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 128,
    chat: bool | str = "auto",
) -> SearchResult:
    """Take the most probable token each time: one text. Arguments and errors as for `beam_search`."""
    knobs = {"rules": rules, "constraint": constraint, "max_tokens": max_tokens, "chat": chat}
    return beam_search(model, prompt, width=1, early_stopping=True, **knobs)
