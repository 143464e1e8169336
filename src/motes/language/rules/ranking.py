"""What many rules share: keeping the best tokens of each row without sorting the whole vocabulary, and entropies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.language.rule import renormalised

HEADS = (256, 4096)
"""How many of the best tokens are looked at first; a row whose end is not among them is looked at further."""

Enough = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Log-probabilities (R, m) of the m best tokens of the rows (R,), best first, to how many of them to keep (R,) int64,
at least 1, and whether that is certain without seeing more (R,) bool."""


def heads(vocabulary: int) -> list[int]:
    """The numbers of best tokens that are looked at one after the other; the last is all of them."""
    return [m for m in HEADS if m < vocabulary] + [vocabulary]


def best(score: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m largest scores of each row and their tokens; all of them in a stable order if m is the vocabulary."""
    if m < score.shape[1]:
        return torch.topk(score, m, dim=-1)
    return torch.sort(score, dim=-1, descending=True, stable=True)


def up_to(mass: float) -> Enough:
    """As many of the best tokens as reach a mass, with the one that crosses it."""

    def enough(ranked: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        p = ranked.exp()
        reached = p.cumsum(-1) - p >= mass
        reached[:, 0] = False
        return (~reached).sum(-1), reached[:, -1]

    return enough


def keep_best(log_prob: Tensor, enough: Enough, score: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Keep the tokens of highest score (of highest probability if there is none) until `enough` says so, renormalised.

    Of tokens with equal scores those with lower numbers come first. Only the head of each row is ranked where that
    decides it; the outcome is that of a full stable sort.

    Returns:
        The changed log-probabilities (A, V), and the log of the mass that was kept (A,), nats.
    """
    score = log_prob if score is None else score
    out = torch.full_like(log_prob, -torch.inf)
    kept = torch.full((len(log_prob),), -torch.inf, dtype=log_prob.dtype)
    rows = torch.arange(len(log_prob))
    for m in heads(log_prob.shape[1]):
        every = len(rows) == len(log_prob)
        value, token = best(score if every else score[rows], m)
        ranked = value if score is log_prob else (log_prob if every else log_prob[rows]).gather(1, token)
        count, certain = enough(ranked, rows)
        if m < log_prob.shape[1]:
            # a tie across the boundary is broken by the tokens' numbers, which only the full sort knows
            inside = value.gather(1, (count - 1)[:, None])[:, 0]
            outside = value.gather(1, count.clamp(max=m - 1)[:, None])[:, 0]
            certain = certain & (count < m) & ((inside > outside) | torch.isneginf(inside))
        else:
            certain = torch.ones_like(count, dtype=torch.bool)
        law, mass = renormalised(ranked.masked_fill(torch.arange(m) >= count[:, None], -torch.inf))
        done = rows[certain]
        if len(done) == len(log_prob):
            return out.scatter_(1, token, law), mass
        out[done] = out[done].scatter_(1, token[certain], law[certain])
        kept[done] = mass[certain]
        rows = rows[~certain]
        if not len(rows):
            break
    return out, kept


def keep_where(log_prob: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the tokens of a mask (A, V) bool, renormalised."""
    return renormalised(log_prob.masked_fill(~keep, -torch.inf))


def entropy(log_prob: Tensor) -> Tensor:
    """(A,) the entropy of each row, nats."""
    finite = log_prob.clamp(min=-1e4)  # so that 0 log 0 is 0
    return -torch.einsum("av,av->a", finite.exp(), finite).clamp(max=0.0)


def tempered(log_prob: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """p^(1/T) renormalised with a temperature (A,) for each row, at least 1e-6; and the log of its mass."""
    return renormalised(log_prob / temperature.clamp(min=1e-6)[:, None])


def tokens_so_far(prompt: Tensor, tokens: Tensor, with_prompt: bool) -> Tensor:
    """(A, P + T) the tokens of each row behind its prompt, or without it; -1 where a row is shorter."""
    if not with_prompt:
        return tokens
    return torch.cat([prompt[None].expand(len(tokens), -1), tokens], 1)


def occurs(tokens: Tensor, vocabulary: int) -> Tensor:
    """(A, V) bool: which tokens stand in each row of (A, T); -1 stands for none."""
    mask = torch.zeros(len(tokens), vocabulary + 1, dtype=torch.bool)
    return mask.scatter_(1, torch.where(tokens < 0, vocabulary, tokens), True)[:, :vocabulary]
