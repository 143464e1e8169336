"""What chains do while they warm up: sweep, learn from all of them together, and see whether they agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.batch_means import APART, apart
from motes.core.remark import MEANS, Remark
from motes.density.markov.rungs import joined
from motes.errors import name_particles
from motes.kernels import Kernel, Parameters, State, Target
from motes.rng import Rng

ENOUGH = 64
"""Acceptances that are pooled before a kernel learns from them."""
POOL = 8192
"""Most points of a window's history that are kept for the kernel's scales."""
GROUPS = 8
"""Groups of chains that nested R-hat compares."""
CAREFULLY = 0.99
"""The acceptance that chains whose trajectories ran off are advised to ask for."""
KEPT = ("position", "log_likelihood", "log_prior", "likelihood_gradient", "prior_gradient")


def learn_from(
    kernel: Kernel,
    rng: Rng,
    target: Target,
    state: State,
    weight: Tensor,
    parameters: Parameters,
    sweeps: int,
    every: int | None = None,
) -> tuple[State, Parameters, float, float, dict[str, Tensor], Tensor]:
    """Sweeps with learning.

    Args:
        weight: (N,) normalised.
        every: sweeps between two lessons; None is as many as give `ENOUGH` acceptances.

    Returns:
        The state, the parameters, the mean acceptance, evaluations a particle, the history (N, T, ...) of the state
        chain by chain, thinned to `POOL` points, and the log-density (N, T) there.
    """
    n = len(weight)
    every = every or math.ceil(ENOUGH / n)
    keep = max(1, math.ceil(n * sweeps / POOL))
    rate, evaluations, seen = 0.0, 0.0, []
    history: dict[str, list[Tensor]] = {k: [] for k in KEPT if k in state}
    values = []
    for i in range(sweeps):
        sweep = kernel.sweep(rng.at("sweep", inner=i), target, state, parameters)
        state, evaluations = sweep.state, evaluations + sweep.evaluations
        rate += float(weight @ sweep.acceptance.to(weight)) / sweeps
        seen.append(sweep)
        if len(seen) == every or i == sweeps - 1:
            pooled = seen[0] if len(seen) == 1 else joined(seen, ("position",))
            parameters = kernel.learn(parameters, pooled, weight.repeat(len(seen)) / len(seen))
            seen = []
        if i % keep == keep - 1:
            values.append(target.log_density(state))
            for k, v in history.items():
                v.append(state[k])
    return (
        state,
        parameters,
        rate,
        evaluations,
        {k: torch.stack(v, 1) for k, v in history.items()},
        torch.stack(values, 1),
    )


def stationary(position: Tensor, log_density: Tensor) -> float:
    """The largest R-hat of the coordinates of `position` (N, T, d) and of `log_density` (N, T).

    Each chain is split in two (one chain alone then still says something). The spread of the halves' means is compared
    with the spread within them, as in Gelman et al. (2013), Bayesian Data Analysis, section 11.4.
    """
    worst = 0.0
    for value in (position, log_density[..., None]):
        t = value.shape[1] // 2
        if t < 2:
            return math.inf
        halves = torch.cat([value[:, :t], value[:, -t:]])
        worst = max(worst, _ratio(halves.var(1).mean(0) * (t - 1) / t, halves.mean(1).var(0)))
    return worst


def agreement(position: Tensor, log_density: Tensor) -> tuple[float, float]:
    """The R-hat of a window of the warm-up, and what it must not exceed for chains to agree.

    With 16 chains or more it is nested R-hat between groups of chains, each split in halves of time: whether the law of
    the chains still changes, not whether each has been everywhere.
    """
    if len(position) < 2 * GROUPS:
        return stationary(position, log_density), 1.05
    t = position.shape[1] // 2
    halves = [torch.cat([position, log_density[..., None]], -1)[:, part] for part in (slice(t), slice(-t, None))]
    return mixed(*halves) if t > 0 else math.inf, 1.02


def mixed(*parts: Tensor) -> float:
    """The largest R-hat of `parts` (N, T, d) between groups of chains, which few draws of many chains can tell.

    Nested R-hat (Margossian et al. 2024, eq. 8) of `GROUPS` groups of neighbouring chains in each part; with fewer than
    two chains a group it is R-hat between chains split in halves.
    """
    n = len(parts[0]) - len(parts[0]) % GROUPS
    if n < 2 * GROUPS:
        return max(stationary(p, p.square().sum(-1)) for p in parts)
    grouped = torch.cat([p[:n].reshape(GROUPS, n // GROUPS, *p.shape[1:]) for p in parts])
    mean = grouped.mean(2)
    within = grouped.var(2).mean(1) if grouped.shape[2] > 1 else 0.0
    return _ratio((within + mean.var(1)).mean(0), mean.mean(1).var(0))


def _ratio(within: Tensor, between: Tensor) -> float:
    return float((1 + between / within).sqrt().max()) if bool((within > 0).all()) else math.inf


def settled(before: dict[str, float], after: dict[str, float]) -> bool:
    """Whether what a kernel says of its parameters changed by less than half in a window."""
    return all(abs(math.log(after[k] / before[k])) < math.log(1.5) for k in before if before[k] > 0 and after[k] > 0)


def complaints(draws: Tensor, acceptance: Tensor, divergences: Tensor, sweeps: int, kernel: Kernel) -> list[Remark]:
    """What is wrong with chains, a sentence each.

    Args:
        draws: (N, T, d).
        acceptance: (N,) mean acceptance of each chain.
        divergences: (N,) how many of its sweeps had to be given up.
        sweeps: of each chain.
        kernel: what moved them.
    """
    out: list[str] = []
    n, t = draws.shape[:2]
    if t > 1:
        stuck = ((draws == draws[:, :1]).flatten(1).all(1)).nonzero().flatten().tolist()
        if stuck:
            out.append(
                f"{chains_called(stuck)} of {n} never moved: where they stand the density is much too rough for the "
                "kernel's step. Run more chains or a longer warm-up, or leave the stuck ones out"
            )
    diverging = (divergences > 0).nonzero().flatten().tolist()
    if diverging:
        lost, whole = int(divergences.sum()), n * max(1, sweeps)
        out.append(
            f"{lost} of {whole} trajectories ({100 * lost / whole:.2g} %) ran off and were rejected, in "
            f"{chains_called(diverging)}: there the density bends more sharply than the step can follow, and draws "
            f"near such places are too few. Reparametrise (non-centre a hierarchy), or {_shorter(kernel)}"
        )
    low = ((acceptance < 0.05) & (acceptance > 0)).nonzero().flatten().tolist()
    if low:
        out.append(f"{chains_called(low)} of {n} accepted fewer than 5 % of their proposals")
    doubts = [Remark(text, MEANS) for text in out]
    r_hat = mixed(draws) if t >= 4 else math.nan
    if r_hat > 1.05:
        text = (
            f"the chains have not mixed: R-hat is {r_hat:.3g} between groups of chains for the worst coordinate. Draw "
            "or warm up longer, or use a better parametrisation; with separate modes use motes.Tempering with "
            "replicas=8, which weighs them"
        )
        return [*doubts, Remark(text, MEANS)]
    r_hat = float(apart(draws).max())
    if r_hat > APART:
        text = (
            f"single chains are each somewhere else: R-hat between them is {r_hat:.3g} for the worst coordinate, "
            f"above {APART}. They remember where they began, and what is seen of each place is what the warm-up left "
            "there. Draw longer; with separate modes use motes.Tempering with replicas=8, which weighs them"
        )
        doubts.append(Remark(text, MEANS))
    return doubts


def known_before(kernel: Kernel, agreed: bool, longest: int) -> list[Remark]:
    """What can be said against chains before any draw: a biased kernel, or a warm-up that `longest` sweeps ended."""
    out = []
    if not kernel.exact:
        name = type(kernel).__name__
        out.append(Remark(f"{name} does not leave the target invariant: its docstring says which bias it has", MEANS))
    if not agreed:
        text = (
            f"the warm-up ended after {longest} sweeps, and chains did not agree yet, or the kernel still learnt. Use "
            "a better parametrisation; with separate modes use motes.Tempering with replicas=8, which weighs them"
        )
        out.append(Remark(text, MEANS))
    return out


def _shorter(kernel: Kernel) -> str:
    """What makes the steps of this kernel shorter, in words."""
    wanted = vars(kernel).get("acceptance")
    if wanted is None:
        return (
            f"use a kernel that can be asked for a higher acceptance, which {type(kernel).__name__} cannot, like "
            f"kernel=motes.kernels.ChEES(acceptance={CAREFULLY})"
        )
    more = CAREFULLY if wanted < CAREFULLY else (1 + wanted) / 2
    return f"ask for a higher acceptance: kernel=motes.kernels.{type(kernel).__name__}(acceptance={more:.4g})"


def chains_called(index: list[int]) -> str:
    """`chains [3, 9]`."""
    return name_particles(index).replace("particle", "chain", 1)
