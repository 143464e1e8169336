"""Priority sampling: different texts in the order in which the model doubts its greedy choices."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

from motes.core.errors import UnknownName
from motes.language.constraint import Constraint
from motes.language.model import LanguageModel, Message
from motes.language.rule import Rule
from motes.language.search.beam import Beam, follow
from motes.language.search.found import Found, check_whole, ranked, start

PRIORITIES = ("token", "joint")


def priority_sampling(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    n: int,
    *,
    priority: str = "joint",
    rules: Sequence[Rule] | Rule = (),
    constraint: Constraint | None = None,
    max_tokens: int = 32,
    chat: bool | str = "auto",
) -> Found:
    """Up to `n` different texts: the greedy one, then the greedy completions of the most probable untried branches.

    Every place on the way of a text leaves its other tokens behind in a queue; the next text takes the branch of the
    highest priority and goes on greedily. No two texts are equal, and `n` large enough lists every text once. Nothing
    is random. In the order in which they were found, with a falling number as score. A text costs one evaluation of the
    prompt and of each of its tokens.

    Args:
        model, prompt, rules, constraint, max_tokens, chat: as for `beam_search`.
        n: how many texts at most.
        priority: "joint" is the probability of the whole branch (prefix and token), "token" that of the token alone.

    Raises:
        EmptyConstraint: no text was found that the constraint accepts.
        MotesError: an argument is of the wrong kind.

    References:
        Grubisic, Seeker, Synnaeve & Cummins (2024), Priority sampling of large language models for compilers,
        EuroMLSys.
    """
    check_whole("n", n)
    if priority not in PRIORITIES:
        raise UnknownName("priority", priority, PRIORITIES)
    queue: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
    found: list[Beam] = []
    pushed = 1
    while queue and len(found) < n:
        branch = heapq.heappop(queue)[2]
        beam = start(model, prompt, rules, constraint, max_tokens, chat)
        if branch:
            tokens = torch.zeros(1, max_tokens, dtype=torch.int64)
            tokens[0, : len(branch)] = torch.tensor(branch)
            beam = follow(beam, tokens, torch.tensor([len(branch)]))
        while bool(beam.going.any()):
            law, text = beam.next_log_prob()[0], tuple(beam.tokens[0, : int(beam.length[0])].tolist())
            top = int(law.argmax())
            value = law + float(beam.log_prob[0]) if priority == "joint" else law
            most = n - len(found) + 1 if constraint is None else None  # a branch behind so many never has its turn
            others = torch.sort(value, descending=True, stable=True).indices[:most].tolist()
            for v in others:
                if v != top and not bool(torch.isneginf(value[v])):
                    heapq.heappush(queue, (-float(value[v]), pushed, (*text, v)))
                    pushed += 1
            beam = beam.grow(torch.zeros(1, dtype=torch.int64), torch.tensor([top]))
        if not bool(torch.isneginf(beam.log_mass[0])):
            found.append(beam)
    return ranked(found, -torch.arange(len(found), dtype=torch.float64), n)
