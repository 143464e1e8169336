"""Priority sampling: different texts in the order in which the model doubts its greedy choices."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

from motes.errors import check_name, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam
from motes.language.search.search_result import SearchResult, ranked, start

PRIORITIES = ("token", "joint")


def priority_sampling(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    n: int,
    *,
    priority: str = "joint",
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 32,
    chat: bool | str = "auto",
) -> SearchResult:
    """Up to `n` different texts: the greedy one, then the greedy completions of the most probable untried branches.

    Every place on the way of a text leaves its other tokens behind in a queue; the next text takes the branch of the
    highest priority and goes on greedily. No two texts are equal, and `n` large enough lists every text once. Nothing
    is random. In the order in which they were found, with a falling number as score. The prompt is evaluated once, and
    of each text every token but the last.

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
    check_whole(1, n=n)
    check_name("priority", priority, PRIORITIES)
    queue: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]
    found: list[Beam] = []
    pushed = 1
    beam = start(model, prompt, rules, constraint, max_tokens, chat)
    empty, both = torch.tensor([0]), torch.tensor([0, 1])
    while queue and len(found) < n:
        branch = heapq.heappop(queue)[2]
        beam = beam.keep(torch.tensor([0, 0]))  # the first stays the empty text, the second is written
        while bool(beam.going[1]):
            at, law = int(beam.length[1]), beam.reader.law.log_prob[beam.row[1]]
            top = branch[at] if at < len(branch) else int(law.argmax())
            if at >= len(branch):
                text = tuple(beam.tokens[1, :at].tolist())
                value = law + float(beam.log_prob[1]) if priority == "joint" else law
                most = n - len(found) + 1 if constraint is None else None  # one behind that many never has its turn
                for v in torch.sort(value, descending=True, stable=True).indices[:most].tolist():
                    if v != top and not bool(torch.isneginf(value[v])):
                        heapq.heappush(queue, (-float(value[v]), pushed, (*text, v)))
                        pushed += 1
            beam = beam.grow(both, torch.tensor([-1, top]))
        if not bool(torch.isneginf(beam.log_mass[1])):
            found.append(beam.keep(both[1:]))
        beam = beam.keep(empty)
    return ranked(found, -torch.arange(len(found), dtype=torch.float64), n)
