"""The texts of a saved generation, evaluated anew: files hold no cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motes.core.files.resuming import must_agree
from motes.core.particles import Particles
from motes.language.generation.frontier import Closed, Frontier, TextReader
from motes.language.generation.prefix import TokenSequences
from motes.language.generation.reward_account import RewardAccount
from motes.language.generation.step_end import AfterToken, StepEnd


def with_frontier(particles: Particles, frontier: Frontier | Closed) -> Particles:
    """The same particles at another frontier."""
    return replace(particles, x={**particles.x, "frontier": frontier})


def restored(
    particles: Particles, account: RewardAccount, step_end: StepEnd, begin: Callable[[int], TextReader]
) -> Particles:
    """Evaluate the unfinished texts again, token by token, each in the row and the batch that it had.

    The logits come out bit for bit as they were if the model's arithmetic for a row does not depend on what stands
    in the other rows of a batch of the same size (mixtures of experts with a capacity are the exception).

    Args:
        particles: as they were saved.
        account: what texts are paid.
        step_end: where a step ends.
        begin: makes N empty texts of the task.

    Raises:
        FileError: the reward of a finished text, or the law of the first token, is not what it was.
    """
    x, n = particles.x, particles.n
    alive = ~x["finished"]
    check_reward(account, particles)
    if not alive.any():
        return with_frontier(particles, Closed(n))
    reader = begin(n)
    check_first(reader, particles)
    at, one = torch.zeros(n, dtype=torch.int64), int(torch.nonzero(alive)[0])
    if not isinstance(step_end, AfterToken):
        return with_frontier(particles, again(reader, x, alive))
    for j in range(particles.t):
        rows = int(particles.shared["rows"][j])
        parent, token = at[one].repeat(rows), x["tokens"][one, j].repeat(rows)  # lost rows get a true text too
        now = x["row"][:, j].to(torch.int64)
        parent[now[alive]], token[now[alive]] = at[alive], x["tokens"][alive, j]
        reader.replay(parent, token)
        at = now
    at = torch.where(alive, at, -1)
    texts = {int(at[i]): x["tokens"][i, : particles.t].tolist() for i in torch.nonzero(alive)[:, 0].tolist()}
    reader.reopen(texts)
    return with_frontier(particles, Frontier(at, reader, reader.version))


def again(reader: TextReader, x: dict[str, Any], alive: Tensor) -> Frontier:
    """Texts of different lengths are evaluated anew, side by side."""
    frontier = Frontier(torch.where(alive, 0, -1), reader, reader.version)
    for j in range(int(x["length"][alive].max())):
        going = alive & (x["length"] > j)
        frontier, _ = frontier.extend(torch.where(going, x["tokens"][:, j], -1), going, j + 1, alive & ~going)
    return frontier


def check_reward(account: RewardAccount, particles: Particles) -> None:
    """The reward says of the finished texts what it said before the run was saved."""
    x = particles.x
    ended = x["finished"] & ~torch.isneginf(particles.log_weight)
    index = torch.nonzero(ended)[:, 0].tolist()
    if account.reward is None or not index or (account.pays_last and not bool(x["finished"].all())):
        return
    now = x["provisional"].clone()
    now[ended] = account.ask(account.reward, TokenSequences.of(x), index, particles.t)
    must_agree("reward", now, x["provisional"], "the reward that began it")


def check_first(reader: TextReader, particles: Particles) -> None:
    """The law of the first token is what it was before the run was saved."""
    now, then = reader.law.log_prob[0], particles.shared["first"]
    mend = "the model that began the run, and rules and a constraint that mean what they meant"
    must_agree("law of the first token", now, then, mend, rows=False)
