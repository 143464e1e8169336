"""The table of sequences, the motif that is rewarded, and what is exact of it for a Markov chain."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from motes.diffusion.discrete import MarkovLaw
from motes.rng import Rng

BASES = "ACGT"
LENGTH, ORDER, JUDGE = 200, 3, 5
N, BEST, FEWER = 64, 8, 4
HIT = 10.0
F64 = torch.float64
# CTG, eight bases of any kind, WGATAAR: what GATA1 and TAL1 bind together; columns of A, C, G, T
ANY = (0.25, 0.25, 0.25, 0.25)
SURE = {"A": (0.94, 0.02, 0.02, 0.02), "C": (0.02, 0.94, 0.02, 0.02), "G": (0.02, 0.02, 0.94, 0.02)}
SURE |= {"T": (0.02, 0.02, 0.02, 0.94), "W": (0.60, 0.02, 0.02, 0.36), "R": (0.30, 0.02, 0.66, 0.02)}
MOTIF = torch.tensor([SURE[b] for b in "CTG"] + [ANY] * 8 + [SURE[b] for b in "WGATAAR"], dtype=F64)


def sequences(path: Path) -> tuple[Tensor, Tensor]:
    """Tokens (M, 200) to fit models to, and those of the chromosomes kept for tests and validation."""
    parts: dict[bool, list[list[int]]] = {True: [], False: []}
    with path.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if set(row["sequence"]) <= set(BASES):
                parts[row["data_label"] == "training"].append([BASES.index(b) for b in row["sequence"]])
    return torch.tensor(parts[True]), torch.tensor(parts[False])


class Motif:
    """The reward, and what follows from its being a mean over places."""

    def __init__(self, background: Tensor):
        odds = torch.log(MOTIF / background)  # the eight free columns count as background
        odds[(MOTIF == 0.25).all(1)] = 0.0
        self.strands = torch.stack([odds, odds.flip(0, 1)])  # A, C, G, T reversed is the complement
        self.width = len(odds)

    def scores(self, tokens: Tensor) -> Tensor:
        """(N, 2, L - width + 1) log-odds of the motif at each place of each strand."""
        one_hot = (tokens[:, None] == torch.arange(4)[:, None]).to(torch.float32)
        return torch.nn.functional.conv1d(one_hot, self.strands.transpose(1, 2).to(torch.float32))

    def __call__(self, tokens: Tensor) -> Tensor:
        scores = self.scores(tokens).flatten(1).to(F64)
        return scores.logsumexp(1) - math.log(scores.shape[1])

    def twist(self, tokens: Tensor, t: float) -> Tensor:
        """What half-filled sequences are worth if the rest were background: masked places count as one."""
        return self(tokens)

    def tilt(self, tokens: Tensor, t: float) -> Tensor:
        """(N, L, 4) by how much `twist` grows if a masked place is filled with each base."""
        share = self.scores(tokens).flatten(1).softmax(1).reshape(len(tokens), 2, -1)
        more = self.strands.exp().to(torch.float32).transpose(1, 2) - 1
        return torch.log1p(torch.nn.functional.conv_transpose1d(share, more).transpose(1, 2)).to(F64)

    def tilts(self, length: int) -> Tensor:
        """(places, L, 4): what each place and strand multiplies the bases' probabilities by."""
        places = length - self.width + 1
        out = torch.ones(2, places, length, 4, dtype=F64)
        for i in range(places):
            out[:, i, i : i + self.width] = self.strands.exp()
        return out.flatten(0, 1)


# ---------------------------------------------------------------- the truth, for a Markov chain


def pick(weight: Tensor, u: Tensor) -> Tensor:
    """(n,) one column of each row (n, V), in proportion to it, by uniform numbers (n,)."""
    total = weight.cumsum(1)
    return (total <= u[:, None] * total[:, -1:]).sum(1).clamp(max=weight.shape[1] - 1)


def planted(law: MarkovLaw, tilts: Tensor, n: int, rng: Rng) -> tuple[Tensor, float]:
    """Draws (n, L) from the chain tilted by the mean over m of products of tilts (m, L, 4), and the log normaliser."""
    k, m, length = law.order, len(tilts), law.length
    steps = [law.transition[i - k].reshape(4, -1, 4) for i in range(k, length)]  # of the window's first, its rest, next
    after = [torch.ones(m, 4**k, dtype=F64)]  # for each window of k tokens, the mean worth of what follows
    for i in range(length - 1, k - 1, -1):
        ahead = (after[-1] * tilts[:, i].repeat(1, 4 ** (k - 1))).reshape(m, 1, -1, 4)
        after.append((steps[i - k] * ahead).sum(-1).flatten(1))
    after.reverse()
    begin = law.initial.flatten() * after[0]
    for i in range(k):
        begin = (begin.reshape(m, 4**i, 4, -1) * tilts[:, i].reshape(m, 1, 4, 1)).flatten(1)
    worth = begin.sum(1)
    u = rng.at("planted").uniform((n, length + 1))
    which = pick(worth.expand(n, -1), u[:, length])
    window = pick(begin[which], u[:, 0])
    out = [(window // 4 ** (k - 1 - j)) % 4 for j in range(k)]
    for i in range(k, length):
        rest = window % 4 ** (k - 1)
        ahead = after[i - k + 1][which].reshape(n, -1, 4)[torch.arange(n), rest]
        token = pick(steps[i - k][window // 4 ** (k - 1), rest] * tilts[which, i] * ahead, u[:, i])
        window = rest * 4 + token
        out.append(token)
    return torch.stack(out, 1), float(worth.mean().log())


def annealed(law: MarkovLaw, beta: float) -> float:
    """log of the sum over sequences of p^beta."""
    message, total = law.initial.flatten() ** beta, 0.0
    for step in law.transition:
        message = (message.reshape(4, -1, 1) * step.reshape(4, -1, 4) ** beta).sum(0).flatten()
        total += float(message.sum().log())
        message = message / message.sum()
    return total


# ---------------------------------------------------------------- runs
