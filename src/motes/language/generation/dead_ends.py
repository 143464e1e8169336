"""Why every text of a generation died, in words: each cause asks for another remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.particles import Particles
from motes.language.constraint import Constraint, shorten
from motes.language.constraints.example import no_room
from motes.language.models.model import LanguageModel


def why(
    particles: Particles, model: LanguageModel, constraint: Constraint, max_tokens: int, max_refused: int | None
) -> str:
    """What texts of weight zero died of, and how to mend it; empty where it was nothing of the constraint's.

    Args:
        particles: of a generation, all of weight zero.
        model, constraint, max_tokens, max_refused: the generation's own.
    """
    tokens, length = particles.x["tokens"], particles.x["length"]
    last = (length - 1).clamp(min=0)[:, None]
    refused = torch.isneginf(particles.x["kept"].gather(1, last))[:, 0]
    ended = ~refused & torch.isin(tokens.gather(1, last)[:, 0], torch.tensor(model.end)) & (length > 0)
    full = ~refused & ~ended & (length == max_tokens)
    stuck = ~refused & ~ended & ~full
    if constraint.recogniser(model).full and refused.any():
        # none of the tokens that were allowed had one behind it: told of the longer text
        tokens, length = tokens.clone(), length.clone()
        allowed = _allowed(refused, tokens, length - 1, model, constraint)
        tokens[refused, length[refused] - 1] = allowed.int().argmax(1)
        refused, stuck = torch.zeros_like(refused), stuck | refused
    short = _no_room_left(stuck, tokens, length, model, constraint)
    stuck = stuck & ~short
    said = []
    if refused.any():
        i = int(torch.nonzero(refused)[0, 0])
        text, v = tokens[i, : int(last[i, 0])].tolist(), model.vocabulary
        tried = f"all {v}" if max_refused is None or max_refused >= v else f"those that were tried, up to {max_refused}"
        more = "" if max_refused is None or max_refused >= v else f"; a larger max_refused tries more of the {v}"
        said.append(
            f"Behind {shorten(model.decode(text))} no token that the {constraint.kind} accepts was found among "
            f"{tried}: it may refuse too much, since an unfinished text has to pass as long as it can still end well"
            f"{more}"
        )
    if stuck.any():
        i = int(torch.nonzero(stuck)[0, 0])
        text = shorten(model.decode(tokens[i, : int(length[i])].tolist()))
        said.append(
            f"Behind {text} there is no token that the rules and the {constraint.kind} both allow: weaken one of them "
            "(of several constraints, each may allow what another never lets end)"
        )
    if short.any():
        cut = no_room(constraint, model, max_tokens)
        said.append(cut[0].upper() + cut[1:])
    elif full.any():
        ids = torch.nonzero(full)[:, 0]
        recogniser = constraint.recogniser(model)
        recogniser.reopen({row: tokens[i, :-1].tolist() for row, i in enumerate(ids.tolist())}, len(ids))
        if not recogniser.accepts(torch.arange(len(ids)), tokens[ids, -1]).all():
            cut = no_room(constraint, model, max_tokens)
            said.append(cut[0].upper() + cut[1:])
    return ". ".join(said)


def _no_room_left(
    stuck: Tensor, tokens: Tensor, length: Tensor, model: LanguageModel, constraint: Constraint
) -> Tensor:
    """(N,) which of the stuck texts could go on, had they more room."""
    out = torch.zeros_like(stuck)
    if stuck.any():
        out[stuck] = _allowed(stuck, tokens, length, model, constraint).any(1)
    return out


def _allowed(which: Tensor, tokens: Tensor, length: Tensor, model: LanguageModel, constraint: Constraint) -> Tensor:
    """(R, V) bool: the tokens that the constraint allows behind the R texts `which` (N,) bool, whatever the room."""
    recogniser, ids = constraint.recogniser(model), torch.nonzero(which)[:, 0].tolist()
    recogniser.reopen({row: tokens[i, : int(length[i])].tolist() for row, i in enumerate(ids)}, len(ids))
    return recogniser.allowed()
