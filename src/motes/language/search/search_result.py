"""What a search without chance finds: texts, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import EmptyConstraint
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules, as_rules, check_arguments
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam, open_beam


@dataclass(frozen=True)
class SearchResult:
    """Texts of a search, best first; they are no sample, so nothing of it estimates an expectation.

    Attributes:
        texts: without their end tokens.
        tokens: the tokens of each, its end token included.
        log_prob: (M,) float64, nats, under the law of next tokens that rules and constraint leave.
        score: (M,) float64, what they are ordered by.
    """

    texts: list[str]
    tokens: list[tuple[int, ...]]
    log_prob: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.texts)


def start(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    rules: Rules,
    constraint: Constraint | None,
    max_tokens: int,
    chat: bool | str,
) -> Beam:
    """The empty text, after a look at the arguments.

    Raises:
        EmptyConstraint: nothing can follow the prompt.
    """
    rules = as_rules(rules)
    check_arguments(model, constraint, None, max_tokens, None)
    beam = open_beam(model, model.encode(prompt, chat), max_tokens, rules, constraint)
    if not bool(beam.going.all()):
        raise EmptyConstraint("no first token is left after the rules and the constraint: weaken the rules")
    return beam


def ranked(beams: Sequence[Beam], score: Tensor, most: int | None) -> SearchResult:
    """The finished entries of several beams with their scores (M,), best first; what the constraint refuses is out.

    Raises:
        EmptyConstraint: no entry is left.
    """
    if not beams:
        raise EmptyConstraint("the search found no text that the constraint accepts: allow more tokens or a wider beam")
    log_prob = torch.cat([beam.log_prob for beam in beams])
    tokens = [tuple(beam.tokens[i, : int(beam.length[i])].tolist()) for beam in beams for i in range(len(beam))]
    texts = [beam.text(i) for beam in beams for i in range(len(beam))]
    alive = ~torch.isneginf(torch.cat([beam.log_mass for beam in beams]))
    order = [i for i in torch.sort(score, descending=True, stable=True).indices.tolist() if alive[i]][:most]
    if not order:
        raise EmptyConstraint("the search found no text that the constraint accepts: allow more tokens or a wider beam")
    return SearchResult([texts[i] for i in order], [tokens[i] for i in order], log_prob[order], score[order])
