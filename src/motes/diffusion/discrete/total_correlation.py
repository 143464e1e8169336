"""What drawing several places at once costs: the distance between a sampler's law and the model's."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import Masked
from motes.errors import MotesError
from motes.rng import Rng


def total_correlation(table: Tensor) -> float:
    """KL(p || product of its marginals), nats, of a law given by its table (V,) * L: the cost of one parallel step.

    References:
        Watanabe (1960), Information Theoretical Analysis of Multivariate Correlation, IBM Journal 4(1).

    Example:
        >>> import torch
        >>> table = torch.tensor([[0.5, 0.0], [0.0, 0.5]])  # two places that agree
        >>> round(total_correlation(table), 6) == round(torch.log(torch.tensor(2.0)).item(), 6)
        True
    """
    p = table.to(torch.float64) / table.sum()
    product = torch.ones_like(p)
    for i in range(p.ndim):
        marginal = p.sum([j for j in range(p.ndim) if j != i]) if p.ndim > 1 else p
        product = product * marginal.reshape([-1 if j == i else 1 for j in range(p.ndim)])
    return divergence(p, product)


def divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q), nats, of two tables of one shape."""
    p, q = p.to(torch.float64) / p.sum(), q.to(torch.float64) / q.sum()
    return float(torch.where(p > 0, p * (torch.log(p) - torch.log(q)), 0.0).sum())


def chain_law(model: TokenModel, steps: int | Tensor, *, most: int = 1 << 24) -> Tensor:
    """The law (V,) * L of what `Posterior` steps end in, by enumeration of all S^L sequences.

    Args:
        model: a model of short sequences; it is called once a step, on all of them.
        steps: the number of steps, or the falling times (K + 1,) down to 0.
        most: the largest number of pairs of sequences S^(2 L).
    """
    process, length = model.process, model.length
    times = process.times(steps) if isinstance(steps, int) else steps
    count = process.states**length
    if count * count > most:
        raise MotesError(f"{count} sequences have too many pairs; estimate by `parallel_cost`")
    if float(times[-1]) != 0:
        raise MotesError("the times must end at 0")
    state = torch.cartesian_prod(*[torch.arange(process.states)] * length).reshape(-1, length)
    tokens = process.tokens(state)
    law = process.stationary[state].prod(1)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        here = law > 0
        move = process.posterior(tokens[here], model(tokens[here], t), t, s).exp()
        path = torch.ones(len(move), count, dtype=torch.float64)
        for i in range(length):
            path *= move[:, i, state[:, i]]
        law = law[here] @ path
    table = law.reshape((process.states,) * length)
    return table[(slice(0, process.vocabulary),) * length]


def parallel_cost(rng: Rng, model: TokenModel, data: Tensor, steps: int | Tensor) -> Estimate[float]:
    """What unmasking in `steps` parallel steps costs a masked model, estimated from sequences of its law.

    The expected total correlation of the places of each step given what is there, summed over the steps: the KL
    divergence between the paths of the model's own chain and of the parallel one, so a bound of that between their
    sequences, equal to it for one step. With the times of all places drawn, it is the expectation over a place i of
    L [log p(x_i | places filled before i) - log p(x_i | places filled in earlier steps)], which two calls of the model
    give for all i that may come next, whatever the length. Unbiased for a model whose conditionals are those of one
    joint law. It is the error of a left Riemann sum of the predictions' accuracy over alpha, so in order 1 / K.

    Args:
        rng: the address.
        model: of `Masked`.
        data: (N, L) int64 sequences from the model's law, such as `first_hitting` draws; more make the error smaller.
        steps: the number of steps, or the falling times (K + 1,).

    Returns:
        Nats, an upper bound of KL(model || chain) on average; `parts["by step"]` is what each step contributes, (K,).

    References:
        Lezama, Salimans, Jiang, Chang, Ho & Essa (2023), Discrete Predictor-Corrector Diffusion Models for Image
        Synthesis, ICLR (independence within a step as the error). Watanabe (1960), IBM Journal 4(1).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion.discrete import Masked, joint
        >>> model = joint(Masked(2), torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
        >>> data = torch.tensor([[0, 0], [1, 1]]).repeat(500, 1)
        >>> cost = parallel_cost(motes.Rng(0), model, data, 1)  # log 2
        >>> abs(cost.value - 0.693) < 4 * cost.se < 0.2
        True
    """
    process, (n, length) = model.process, data.shape
    if not isinstance(process, Masked):
        raise MotesError(f"parallel_cost measures unmasking, it needs the process Masked, not {type(process).__name__}")
    process.check(data)
    if bool((data < 0).any()):
        raise MotesError("data must be whole sequences, without masks")
    times = process.times(steps) if isinstance(steps, int) else steps
    edges = process.alpha(times)  # (K + 1,), rising; the last step takes what is left
    edges = torch.cat([edges[:-1], edges.new_ones(1)])
    height = edges[0] + (1 - edges[0]) * rng.at("order").uniform((n, length))  # alpha at which a place is filled
    place = (rng.at("place").uniform((n,)) * length).to(torch.int64).clamp(max=length - 1)
    mine = height[torch.arange(n), place]
    k = torch.searchsorted(edges, mine, right=True) - 1
    contexts = height < mine[:, None], height < edges[k][:, None]
    differ = (contexts[0] != contexts[1]).any(1)
    gain = torch.zeros(n, dtype=torch.float64)
    for sign, context in zip((1, -1), contexts, strict=True):
        tokens = torch.where(context, data, -1)[differ]
        if len(tokens):
            with torch.no_grad():
                log_p0 = model(tokens, process.time(mine if sign > 0 else edges[k])[differ])
            value = log_p0.gather(-1, data[differ][..., None])[..., 0].to(torch.float64)
            hidden = ~contexts[0][differ]  # any of these may come next: the mean over them has less variance than one
            gain[differ] += sign * torch.where(hidden, value, 0.0).sum(1) / hidden.sum(1)
    gain *= length
    member = torch.nn.functional.one_hot(k, len(edges) - 1).to(torch.float64) * gain[:, None]
    whole = independent_mean(gain)
    parts = {"by step": independent_mean(member)}
    return Estimate(float(whole.value), float(whole.se), method=whole.method, parts=parts)
