"""Exact simulation of reverse chains in continuous time: no steps, so no error of steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.diffusion.discrete.draw import draw
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import Masked
from motes.errors import MotesError, name_particles
from motes.rng import Rng


def first_hitting(rng: Rng, model: TokenModel, n: int, *, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sequences (N, L) of a masked model, and the times (N, L) at which their places were filled (nan where given).

    The reverse chain fills each masked place at a time of its own, independent of everything else: alpha there is
    uniform. So the next time is a minimum of uniform numbers, its place is equally likely any, and its token comes from
    the prediction at that time: one call of the model for each place. The law is that of the continuous-time chain, so
    of the data for a perfect model. `ReverseDiscrete` with `Ordered` and one place a step has the same law where the
    model doesn't look at the time, and takes rewards.

    Args:
        rng: the address.
        model: of `Masked`.
        n: the number of sequences.
        given: (L,) int64, tokens that are there from the start, -1 at the others.

    References:
        Zheng, Chen, Mao, Liu, Zhu & Zhang (2025), Masked Diffusion Models are Secretly Time-Agnostic Masked Models and
        Exploit Inaccurate Categorical Sampling, ICLR (the first-hitting sampler).
    """
    process = model.process
    if not isinstance(process, Masked):
        raise MotesError(f"the first-hitting sampler needs the process Masked, not {type(process).__name__}")
    start = torch.full((model.length,), -1) if given is None else given
    process.check(start[None])
    tokens = start.expand(n, -1).clone()
    times = torch.full(tokens.shape, math.nan, dtype=torch.float64)
    alpha = process.alpha(process.t_max).expand(n)
    row = torch.arange(n)
    for left in range(int((start < 0).sum()), 0, -1):
        draws = rng.at("hit", inner=left).uniform((n, 2))
        alpha = alpha + (1 - alpha) * -torch.expm1(torch.log(draws[:, 0]) / left)
        which = (draws[:, 1] * left).to(torch.int64).clamp(max=left - 1)
        place = torch.sort((tokens >= 0).to(torch.int64), dim=1, stable=True).indices[row, which]
        t = process.time(alpha)
        with torch.no_grad():
            law = model(tokens, t)[row, place]
        tokens[row, place] = draw(rng.at("token", inner=left), law[:, None])[:, 0]
        times[row, place] = t
    return tokens, times


def uniformised(
    rng: Rng, model: TokenModel, n: int, *, until: float = 1e-2, pieces: int = 32, most: int = 100_000
) -> Tensor:
    """Sequences (N, L) of x_t at the time `until`, from the reverse chain of a process in which all states mix.

    Jumps are proposed at the times of a Poisson process faster than the chain, and kept with the ratio of the rates.
    A bound comes from the process alone: q_t(y) / q_t(x) <= max_a K(0,t)[a,y] / K(0,t)[a,x], which falls as the clock
    runs on. Exact, but for the stationary law at t_max instead of q there. The number of calls of the model is
    random, and grows like log(1 / until) times the length; close to time 0 rates have no bound, so the last of the
    noise is left to the user (`Posterior` from there, or the prediction).

    Args:
        rng: the address.
        model: of `Uniform`, or of `Rates` in which each state leads to each.
        n: the number of sequences.
        until: the time to stop at, above 0.
        pieces: pieces of the clock, equal in its logarithm, that have a bound each.
        most: proposals of one sequence in one piece, after which the run is given up.

    Raises:
        ValueError: some state cannot be reached from some other: a masked process has `first_hitting`.
        MotesError: more proposals than `most`; names the particles.

    References:
        Chen & Ying (2024), Convergence Analysis of Discrete Diffusion Model: Exact Implementation through
        Uniformization, arXiv 2402.08095. Lewis & Shedler (1979), Naval Research Logistics 26 (thinning).
    """
    process, matrix = model.process, model.process.matrix
    if not 0 < until < process.t_max:
        raise MotesError(f"until must lie between 0 and {process.t_max}, not {until}")
    ends = torch.log(process.clock(process.t_max)), torch.log(process.clock(until))
    clocks = torch.exp(torch.linspace(float(ends[0]), float(ends[1]), pieces + 1, dtype=torch.float64)).tolist()
    if not bool((process.kernel(0.0, until) > 0).all()):
        raise MotesError("uniformisation needs a process in which each state leads to each; masks: see first_hitting")
    tokens = process.start(rng, (n, model.length))
    for piece in range(pieces):
        low = clocks[piece + 1]
        kernel = process.kernel(0.0, process.time(math.exp(-low)))
        best = (kernel[:, None, :] / kernel[:, :, None]).amax(0)  # (x, y): max_a K[a, y] / K[a, x]
        bound = (matrix.T * best).fill_diagonal_(0.0).sum(1)  # of the total rate out of x, at clock speed 1
        clock = torch.full((n,), clocks[piece], dtype=torch.float64)
        active = torch.arange(n)
        for event in range(most):
            draws = rng.at(f"piece-{piece}").at("event", inner=event).shard(_ids(rng, active)).uniform((len(active), 2))
            fastest = bound[process.index(tokens[active])].sum(1)
            clock[active] += torch.log(draws[:, 0]) / fastest
            inside = clock[active] > low
            active, height, fastest = active[inside], draws[inside, 1] * fastest[inside], fastest[inside]
            if not len(active):
                break
            t = process.time(torch.exp(-clock[active]))
            with torch.no_grad():
                log_p0 = model(tokens[active], t)
            rates = _rates(model, tokens[active], log_p0, t, matrix)
            ladder = rates.flatten(1).cumsum(1)
            moves = height < ladder[:, -1]
            jump = torch.searchsorted(ladder, height[:, None], right=True)[:, 0].clamp(max=ladder.shape[1] - 1)
            who, to = active[moves], jump[moves]
            tokens[who, to // process.states] = process.tokens(to % process.states)
        else:
            raise MotesError(f"more than {most} proposals in one piece for {name_particles(active.tolist())}")
    return tokens


def _rates(model: TokenModel, tokens: Tensor, log_p0: Tensor, t: Tensor, matrix: Tensor) -> Tensor:
    """(N, L, S): rates of the jumps at clock speed 1, each sequence at its own time."""
    process, row = model.process, torch.arange(len(tokens))[:, None]
    index = process.index(tokens)
    kernel = process.kernel(torch.zeros_like(t), t)[:, : process.vocabulary]  # (N, V, S)
    share = log_p0.to(torch.float64).exp() / kernel.transpose(1, 2)[row, index]
    return (matrix.T[index] * (share @ kernel)).scatter(-1, index[..., None], 0.0)


def _ids(rng: Rng, active: Tensor) -> Tensor:
    return active if rng.ids is None else rng.ids[active]
