"""What watermarks share: numbers keyed by the tokens before, and the tests that find a watermark again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, check_whole
from motes.rng import Rng

MULTIPLIERS = (0x2C1B3C6D, 0x297A2D39)
WORD = (1 << 32) - 1


def last_tokens(prompt: Tensor, tokens: Tensor, length: Tensor, width: int) -> Tensor:
    """(A, width) the tokens before the next one, prompt included; -1 where there are none."""
    every = torch.cat([torch.full((width,), -1), prompt]).expand(len(tokens), -1)
    every = torch.cat([every, tokens], 1)
    at = (length + len(prompt))[:, None] + torch.arange(width)
    return every.gather(1, at)


def hashed(context: Tensor) -> Tensor:
    """(A,) a number below 2^32 for each row of (A, width) int64."""
    state = torch.full((len(context),), 0x9E3779B9, dtype=torch.int64)
    for j in range(context.shape[1]):
        state = (state ^ (context[:, j] + 2)) & WORD
        for m in MULTIPLIERS:  # 32-bit by 31-bit products stay below 2^63
            state = ((state ^ (state >> 16)) * m) & WORD
        state = state ^ (state >> 15)
    return state


def keyed_uniform(key: int, context: Tensor, vocabulary: int) -> Tensor:
    """(A, V) uniform numbers that are a function of the key and the tokens before (A, width)."""
    return Rng(key).at("watermark").shard(hashed(context)).uniform((len(context), vocabulary))


@dataclass(frozen=True)
class Detection:
    """What a text says about a key.

    Attributes:
        n: how many tokens counted; each pair of context and token counts once.
        score: the statistic; a green list's number of green tokens, a Gumbel watermark's sum of -log(1 - u).
        z: how many standard deviations it lies above its mean without a watermark.
        p_value: the probability of so large a score in a text without this watermark.
    """

    n: int
    score: float
    z: float
    p_value: float


def marks(
    key: int, width: int, tokens: Sequence[int] | Tensor, vocabulary: int, prompt: Sequence[int] | Tensor = ()
) -> Tensor:
    """(n,) the keyed uniform number of each token of a text, every pair of context and token once.

    Args:
        key: the key.
        width: how many tokens before name the list.
        tokens: the text's tokens.
        vocabulary: the model's number of tokens.
        prompt: the tokens before the text; without them its first `width` tokens are left out.
    """
    text, before = [int(v) for v in tokens], [int(v) for v in prompt]
    if not all(0 <= v < vocabulary for v in text):
        raise MotesError(f"the text holds tokens outside 0..{vocabulary - 1}")
    every = [-1] * width + before + text if before else text
    first = len(every) - len(text) if before else width
    pairs = list(dict.fromkeys((tuple(every[i - width : i]), every[i]) for i in range(first, len(every))))
    out: list[Tensor] = []
    for start in range(0, len(pairs), 64):
        part = pairs[start : start + 64]
        context = torch.tensor([c for c, _ in part], dtype=torch.int64).reshape(len(part), width)
        u = keyed_uniform(key, context, vocabulary)
        out.append(u.gather(1, torch.tensor([[token] for _, token in part]))[:, 0])
    return torch.cat(out) if out else torch.zeros(0, dtype=torch.float64)


def binomial_tail(count: int, n: int, p: float) -> float:
    """P(Binomial(n, p) >= count), summed exactly."""
    if count <= 0:
        return 1.0
    k = torch.arange(count, n + 1, dtype=torch.float64)
    choose = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(1.0, float(torch.logsumexp(choose + k * math.log(p) + (n - k) * math.log1p(-p), 0).exp()))


def check_key(rule: str, key: object, width: object) -> None:
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 1 << 64:
        raise MotesError(f"the key of {rule} must be a whole number in 0..2^64-1, not {key!r}")
    check_whole(0, **{f"width of {rule}": width})
