"""Block verification: the drafted tokens are accepted or refused together, never fewer on average than one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.language.speculation.single import next_token, ratios
from motes.rng import Rng


def verify(rng: Rng, ids: Tensor, log_p: Tensor, log_q: Tensor, drafts: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """How many drafted tokens are accepted, and the token behind them; together they follow the model's law.

    With s_0 = 1 and s_i = min(1, s_{i-1} p_i(x_i) / q_i(x_i)), place i < L passes with probability

        h_i = r_i / (r_i + 1 - s_i),    r_i = sum_x [s_i p_{i+1}(x) - q_{i+1}(x)]_+,

    and the last with h_L = s_L. The last place that passes is how far the drafts are accepted (0 if none does); behind
    it follows a draw from [s p - q]_+ normalised, or from p behind the last. Exact, as the enumeration in the tests
    shows for every text; the arguments and results are those of `single.verify`.

    References:
        Sun, Mendlovic, Leviathan, Aharoni, Ro, Beirami & Suresh (2024), Block verification accelerates speculative
        decoding, arXiv 2403.10444, algorithm 2.
    """
    N, L = drafts.shape
    counts = torch.arange(L) < count[:, None]
    ratio = ratios(log_p, log_q, drafts, counts).exp()
    scales = [torch.ones(N, dtype=torch.float64)]
    chance = torch.zeros(N, L, dtype=torch.float64)
    for i in range(1, L + 1):
        scales.append((scales[-1] * ratio[:, i - 1]).clamp(max=1))
        s = scales[-1]
        if i < L:
            rest = (s[:, None] * log_p[:, i].exp() - log_q[:, i].exp()).clamp(min=0).sum(1)
            below = rest + 1 - s
            inner = torch.where(below > 0, rest / below.clamp(min=1e-300), 1.0).clamp(max=1)
            chance[:, i - 1] = torch.where(count == i, s, inner)
        else:
            chance[:, i - 1] = s
    chance = torch.where(counts, chance, 0.0)
    passed = rng.at("accept").shard(ids).bernoulli(chance)
    accepted = (passed * torch.arange(1, L + 1)).amax(1) if L else count
    scale = torch.stack(scales, 1)[torch.arange(N), accepted]
    return accepted, next_token(rng, ids, log_p, log_q, accepted, count, scale)
