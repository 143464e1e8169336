"""The most probable text of a law that a nucleus prunes, found exactly; and a beam whose width follows the law."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from motes.errors import MotesError, check_share, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam
from motes.language.search.search_result import SearchResult, ranked, start


def p_exact(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    p: float = 0.9,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 32,
    most: int = 4096,
    chat: bool | str = "auto",
) -> SearchResult:
    """The most probable text among those whose every token lies in the nucleus of mass `p` of its place.

    A prefix is given up once it is less probable than the best finished text, since more tokens only cost (branch and
    bound); the greedy text is the first bound. All prefixes of one length are evaluated together. Exact for what the
    nuclei leave: p near 0 is greedy, p = 1 is the most probable text of all. The log-probability returned is the one
    before pruning, under rules and constraint.

    Args:
        p: mass of the nuclei, in (0, 1].
        most: the most prefixes of one length that may be open.
        model, prompt, rules, constraint, max_tokens, chat: as for `beam_search`.

    Raises:
        MotesError: more than `most` prefixes are open at once.
        EmptyConstraint: no text was found that the constraint accepts.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.2, 0.3]).log().expand(4, 3))
        >>> p_exact(model, "", p=1.0, max_tokens=4).texts, p_exact(model, "", p=0.01, max_tokens=4).texts
        ([''], ['aaaa'])

    References:
        Shaham & Levy (2021), What do you get when you cross beam search with nucleus sampling?, arXiv 2107.09729.
    """
    _check(p, most)
    beam, best = start(model, prompt, rules, constraint, max_tokens, chat), None
    bound, first = -torch.inf, True
    while True:
        if first:  # the greedy text, and then from the beginning again
            first, walk = False, beam
            while bool(walk.going.any()):
                walk = walk.grow(torch.zeros(1, dtype=torch.int64), walk.next_log_prob().argmax(1))
            best, bound = _better(best, bound, walk)
            beam = start(model, prompt, rules, constraint, max_tokens, chat)
        entry, token, log_prob = beam.candidates()
        law = beam.reader.law.log_prob[beam.row[entry], token]
        keep = _in_nucleus(entry, law, p) & (log_prob > bound)
        entry, token = entry[keep], token[keep]
        if not len(entry):
            break
        if len(entry) > most:
            raise MotesError(
                f"{len(entry)} prefixes of {int(beam.length[0]) + 1} tokens are open, more than most={most}: take a "
                "smaller p, fewer tokens or a larger `most`"
            )
        beam = beam.grow(entry, token)
        best, bound = _better(best, bound, beam.keep(~beam.going))
        beam = beam.keep(beam.going & (beam.log_prob > bound))
        if not len(beam):
            break
    found = [] if best is None else [best]
    return ranked(found, torch.cat([b.log_prob for b in found]) if found else torch.zeros(0), 1)


def dynamic_beam(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    p: float = 0.9,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 128,
    most: int = 256,
    chat: bool | str = "auto",
) -> SearchResult:
    """A beam that keeps the nucleus of mass `p` of all its candidates together: wide where the law is flat.

    At each token the candidates of all prefixes, and the texts that have ended, are normalised together, and the most
    probable ones go on until their mass reaches `p`, at most `most`. Score: log p. Heuristic; at p near 0 it is greedy,
    at p = 1 without a limit it is exhaustive.

    Args:
        p: mass of what is kept, in (0, 1].
        most: the largest width.
        model, prompt, rules, constraint, max_tokens, chat: as for `beam_search`.

    Raises:
        EmptyConstraint: no text was found that the constraint accepts.

    References:
        Shaham & Levy (2021), What do you get when you cross beam search with nucleus sampling?, arXiv 2107.09729.
    """
    _check(p, most)
    beam = start(model, prompt, rules, constraint, max_tokens, chat)
    while len(beam) and bool(beam.going.any()):
        entry, token, log_prob = beam.candidates()
        keep = torch.nonzero(_in_nucleus(torch.zeros_like(entry), torch.log_softmax(log_prob, 0), p))[:, 0]
        keep = keep[torch.sort(log_prob[keep], descending=True, stable=True).indices[:most]]
        beam = beam.grow(entry[keep], token[keep])
        beam = beam.keep(~torch.isneginf(beam.log_mass))
    return ranked([beam], beam.log_prob, None)


def _in_nucleus(group: torch.Tensor, log_prob: torch.Tensor, p: float) -> torch.Tensor:
    """(C,) bool: the most probable of each group until their mass reaches p, the crossing one included."""
    down = torch.sort(log_prob, descending=True, stable=True).indices
    order = down[torch.sort(group[down], stable=True).indices]
    mass, sorted_group = log_prob[order].exp(), group[order]
    before = mass.cumsum(0) - mass
    first = torch.ones_like(sorted_group, dtype=torch.bool)
    first[1:] = sorted_group[1:] != sorted_group[:-1]
    base = before[first].repeat_interleave(torch.diff(torch.nonzero(first)[:, 0], append=torch.tensor([len(group)])))
    out = torch.empty_like(first)
    out[order] = (before - base < p) | first
    return out if p < 1 else torch.ones_like(out)


def _better(best: Beam | None, bound: float, new: Beam) -> tuple[Beam | None, float]:
    new = new.keep(~torch.isneginf(new.log_mass))
    if len(new) and float(new.log_prob.max()) > bound:
        return new.keep(new.log_prob.argmax()[None]), float(new.log_prob.max())
    return best, bound


def _check(p: float, most: int) -> None:
    check_share("(0, 1]", p=p)
    check_whole(1, most=most)
