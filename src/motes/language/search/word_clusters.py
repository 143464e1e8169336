"""Texts in groups by the words they use: weighted counts of words, and their nearest centres."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = re.compile(r"\w+")
ROUNDS, STARTS = 100, 32


def word_weights(texts: Sequence[str]) -> Tensor:
    """(N, W) float64 unit vectors: each word's count times ln((1 + N) / (1 + texts with the word)) + 1.

    Words are runs of letters, digits and underscores, in lower case, single ones too; a text without words is zero.

    References:
        Spärck Jones (1972), A statistical interpretation of term specificity, Journal of Documentation 28(1).
    """
    words = [WORD.findall(text.lower()) for text in texts]
    place = {word: j for j, word in enumerate(sorted({w for text in words for w in text}))}
    count = torch.zeros(len(texts), len(place), dtype=torch.float64)
    for i, text in enumerate(words):
        for word in text:
            count[i, place[word]] += 1
    rarity = torch.log((1 + len(texts)) / (1 + (count > 0).sum(0).double())) + 1
    return torch.nn.functional.normalize(count * rarity, dim=1)


def nearest_centres(x: Tensor, k: int) -> Tensor:
    """(N,) int64 the group of each point (N, D), at most `k` groups: Lloyd's algorithm (k-means) without chance.

    One point is the first centre, each further one the point farthest from those before; equal points make no second
    centre. Points and centres then take turns until nothing moves, so that every point ends with its nearest centre and
    every centre is the mean of its points. Of the local optima from different first points (at most 32), the one with
    the smallest sum of squared distances counts.
    """
    tries = [_from(x, first, k) for first in range(min(len(x), STARTS))]
    label = min(tries, key=lambda label: _cost(x, label))
    return torch.unique(label, return_inverse=True)[1]


def _from(x: Tensor, first: int, k: int) -> Tensor:
    centre = x[first][None]
    while len(centre) < k:
        gap = torch.cdist(x, centre).amin(1)
        if float(gap.max()) < 1e-7:
            break
        centre = torch.cat([centre, x[gap.argmax()][None]])
    label = torch.cdist(x, centre).argmin(1)
    for _ in range(ROUNDS):
        used = torch.unique(label)
        new = torch.cdist(x, torch.stack([x[label == j].mean(0) for j in used.tolist()])).argmin(1)
        if torch.equal(used[new], label):
            break
        label = new
    return label


def _cost(x: Tensor, label: Tensor) -> float:
    """The sum of squared distances to the means, rounded so that equal partitions tie."""
    spread = sum(float((x[label == j] - x[label == j].mean(0)).square().sum()) for j in set(label.tolist()))
    return round(spread, 9)


def word_clusters(texts: Sequence[str], k: int) -> Tensor:
    """(N,) int64 the group of each text by its words, at most `k` groups."""
    return nearest_centres(word_weights(texts), k)
