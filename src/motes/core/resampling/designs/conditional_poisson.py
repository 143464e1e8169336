"""Conditional Poisson sampling: subsets of a fixed size, with their inclusion probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.rng import Rng


def conditional_poisson(rng: Rng, log_prob: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A conditional Poisson sample: k of C candidates, each subset as likely as the product of its p / (1 - p).

    The sums over subsets go by a binary tree of Poisson binomials, whose numbers are probabilities, so that nothing
    overflows, in O(C k).

    References:
        Hajek (1964), Asymptotic theory of rejective sampling with varying probabilities, Ann. Math. Stat. 35.

    Args:
        rng: the address.
        log_prob: (C,) float64, at most 0 and finite; a candidate of probability 1 is always chosen.
        k: the size; if there are no more candidates than that, all are chosen.

    Returns:
        the chosen candidates (k,) in order, and the logs of their inclusion probabilities.
    """
    if k < 1:
        raise MotesError(f"the size of a subset must be a whole number of at least 1, not {k!r}")
    count = len(log_prob)
    if count <= k:
        return torch.arange(count), torch.zeros(count, dtype=torch.float64)
    levels = _tree(_coins(log_prob, k), k)
    node, size = torch.zeros(1, dtype=torch.int64), torch.tensor([k])
    for depth in range(len(levels) - 2, -1, -1):  # how many of a node's chosen ones lie on its left
        left, right = levels[depth][2 * node], levels[depth][2 * node + 1]
        a = torch.arange(k + 1).expand(len(node), -1)
        other = size[:, None] - a
        joint = _at(left, a) * torch.where(other >= 0, _at(right, other.clamp(min=0)), 0.0)
        on_left = rng.at(f"level-{depth}").shard(node).categorical(joint.log())
        node, size = torch.cat([2 * node, 2 * node + 1]), torch.cat([on_left, size - on_left])
        node, size = node[size > 0], size[size > 0]
    chosen = node.sort().values
    return chosen, _log_inclusion(levels, chosen, k)


def _coins(log_prob: Tensor, k: int) -> Tensor:
    """(C,) probabilities c w / (1 + c w), w = p / (1 - p), whose sum is k; the conditional law does not depend on c."""
    p = log_prob.exp().clamp(max=1.0)
    odds = log_prob - torch.log1p(-p)
    sure = torch.isposinf(odds)
    low, high = torch.tensor(-50.0).double() - odds[~sure].max(), torch.tensor(50.0).double() - odds.min()
    for _ in range(80):
        middle = (low + high) / 2
        if float(torch.sigmoid(odds + middle).sum()) < k:
            low = middle
        else:
            high = middle
    return torch.sigmoid(odds + high)


def _tree(coins: Tensor, k: int) -> list[Tensor]:
    """Laws of the number of heads, up to k, of 1, 2, 4, ... neighbouring coins: (nodes, numbers) each."""
    width = 1 << max(1, (len(coins) - 1).bit_length())
    coins = torch.nn.functional.pad(coins, (0, width - len(coins)))
    levels = [torch.stack([1 - coins, coins], 1)]
    while len(levels[-1]) > 1:
        left, right = levels[-1][0::2], levels[-1][1::2]
        levels.append(_product(left, right, k))
    return levels


def _product(left: Tensor, right: Tensor, k: int) -> Tensor:
    """The laws of sums, up to k: (nodes, a) and (nodes, b) to (nodes, min(a + b - 1, k + 1))."""
    size = min(left.shape[1] + right.shape[1] - 1, k + 1)
    out = left.new_zeros(len(left), size)
    for i in range(min(left.shape[1], size)):
        part = right[:, : size - i]
        out[:, i : i + part.shape[1]] += left[:, i : i + 1] * part
    return out


def _at(law: Tensor, index: Tensor) -> Tensor:
    """law[i, index[i, j]], zero behind its end."""
    size = law.shape[1]
    return torch.where(index < size, torch.gather(law, 1, index.clamp(max=size - 1)), 0.0)


def _log_inclusion(levels: list[Tensor], chosen: Tensor, k: int) -> Tensor:
    """log of P(coin i and k - 1 of the others) / P(k): the others' law is the product of the siblings on the way up."""
    others, node = torch.ones(len(chosen), 1, dtype=torch.float64), chosen
    for level in levels[:-1]:
        others = _product(others, level[node ^ 1], k)
        node = node // 2
    zero = torch.full_like(chosen, k - 1)[:, None]
    with_it = levels[0][chosen, 1] * _at(others, zero)[:, 0]
    return with_it.log() - levels[-1][0, k].log()
