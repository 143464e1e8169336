"""Foresight decoding: steps of text are kept by where they lead and by how many others lead to the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.resampling import without_replacement
from motes.errors import MotesError, ShapeError, check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam, drawn_on
from motes.language.search.search_result import SearchResult, ranked, start
from motes.language.search.word_clusters import word_clusters
from motes.rng import Rng

SHARPNESS = 0.1
"""The temperature of the softmax of advantages."""
Cluster = Callable[[list[str]], Tensor | Sequence[int]]


def phi_decoding(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    seed: int | Rng,
    width: int = 4,
    rollouts: int = 4,
    depth: int = 8,
    step: int = 32,
    stop: str | None = "\n",
    foresight: int | None = None,
    temperature: float = 0.6,
    spread: float = 1.0,
    clusters: int | Cluster = 3,
    least: int = 4,
    agreement: float = 0.69,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 128,
    chat: bool | str = "auto",
) -> SearchResult:
    """Steps of text, looked at from their ends: kept by how probable and how common their continuations are.

    A round: each of at most `width` texts draws `rollouts` steps. Steps whose mean log-probability a token lies more
    than `spread` standard deviations below the mean of all are given up, though `width` are left, drawn by it. Each
    other one draws one continuation, the foresight, whose mean log-probability a token is its value F; its advantage
    is A = F - F(parent). Foresights are put in clusters. `width` steps are then drawn, one by one without replacement,
    with the weights of `foresight_weights`. After `depth` rounds, or at least `least` if one cluster holds the share
    `agreement` of all foresights or all kept texts are equal, the texts are drawn to their ends and weighed once more,
    which is the score of the result: `found.texts[0]` is the answer, and `vote(found.texts, found.score.log())` adds up
    the scores of equal answers.

    A text that ends within its step has no foresight: its value and its cluster are those of the step. One that had
    ended before stays a candidate with advantage 0. The published code values these at 0, the best there is.

    A heuristic: what it finds is no sample of any law. One text of one rollout at temperature 1 is an ordinary draw.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages.
        seed: of all draws; or an `Rng`.
        width: how many texts are kept.
        rollouts: steps that each draws in a round.
        depth: the most rounds.
        step: the most tokens of a step.
        stop: a step also ends where this is written; None: only there where its tokens are spent.
        foresight: the most tokens of a foresight; None: to the end of the text.
        temperature: of the draws of steps; foresights are drawn as they are.
        spread: how many standard deviations below the mean a step may lie.
        clusters: how many groups by words there may be, or a function of the foresights (a list of texts) that returns
            their groups as whole numbers.
        least: rounds before agreement can end the search.
        agreement: the share of one cluster that ends it, in (0, 1].
        rules, constraint, max_tokens, chat: as for `beam_search`.

    Raises:
        EmptyConstraint: no text was found that the constraint accepts.
        MotesError: an argument is of the wrong kind.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.2, 0.3]).log().expand(4, 3))
        >>> len(phi_decoding(model, "", seed=0, step=2, max_tokens=6))
        4

    References:
        Xu, Yan, Ma, Zhao, Liu, Lin & Wu (2025), phi-Decoding: adaptive foresight sampling for balanced inference-time
        exploration and exploitation, ACL (arXiv 2503.13288).
    """
    check_whole(1, width=width, rollouts=rollouts, depth=depth, step=step, least=least)
    if foresight is not None:
        check_whole(1, foresight=foresight)
    if not callable(clusters):
        check_whole(1, clusters=clusters)
    if stop is not None and not (isinstance(stop, str) and stop):
        raise MotesError(f"stop must be None or a string that is not empty, not {stop!r}")
    if not (temperature > 0 and spread >= 0 and 0 < agreement <= 1):
        raise MotesError(
            f"temperature must be positive, spread at least 0 and agreement in (0, 1], not {temperature!r}, "
            f"{spread!r} and {agreement!r}"
        )
    rng = (Rng(seed) if isinstance(seed, int) else seed).at("phi")
    beam, value = start(model, prompt, rules, constraint, max_tokens, chat), torch.zeros(1, dtype=torch.float64)
    for turn in range(depth):
        if not len(beam) or not bool(beam.going.any()):
            break
        here = rng.at(f"round-{turn}")
        going = beam.going
        parent = torch.repeat_interleave(torch.arange(len(beam)), torch.where(going, rollouts, 1))
        stepped = drawn_on(beam.keep(parent), here.at("step"), going[parent], step, temperature=temperature, stop=stop)
        kept = _promising(here, beam, stepped, parent, width, spread)
        stepped, parent = stepped.keep(kept), parent[kept]
        if not len(stepped):
            beam = stepped
            break
        look = _foreseen(here, beam, stepped, parent, value, max_tokens if foresight is None else foresight)
        label = _grouped(clusters, look.texts)
        weight = foresight_weights(look.value - value[parent], label)
        chosen = without_replacement(here.at("keep"), weight, width)
        beam, value = look.waited.keep(chosen), look.value[chosen]
        agreed = float(torch.bincount(label).max()) >= agreement * len(label)
        equal = len(beam) > 1 and bool((beam.tokens == beam.tokens[0]).all())
        if turn + 1 >= least and (agreed or equal):
            break
    if not len(beam):
        return ranked([], value, width)
    every = torch.arange(len(beam))
    look = _foreseen(rng.at("last"), beam, beam, every, value, max_tokens)
    weight = foresight_weights(look.value - value, _grouped(clusters, look.texts))
    return ranked([look.far], weight, width)


def foresight_weights(advantage: Tensor, label: Tensor) -> Tensor:
    """(n,) weights (softmax(C) + softmax(A / 0.1)) / 2, where C is the share of candidates in one's cluster.

    With one cluster they are (1/n + softmax(A / 0.1)) / 2.

    Args:
        advantage: (n,) how much better than its parent a candidate's foresight is, nats a token.
        label: (n,) int64 the clusters.

    Example:
        >>> foresight_weights(torch.zeros(4), torch.tensor([0, 0, 0, 1])).tolist()[3] < 0.25
        True
    """
    if advantage.shape != label.shape or advantage.ndim != 1:
        raise ShapeError(f"advantages {tuple(advantage.shape)} and labels {tuple(label.shape)} must both be (n,)")
    share = torch.bincount(label)[label].double() / len(label)
    return (torch.softmax(share, 0) + torch.softmax(advantage.double() / SHARPNESS, 0)) / 2


@dataclass(frozen=True)
class _Look:
    """What was foreseen: the entries as they waited, and continued, their values F, the texts that decide clusters."""

    waited: Beam
    far: Beam
    value: Tensor
    texts: list[str]


def _foreseen(rng: Rng, parents: Beam, beam: Beam, parent: Tensor, value: Tensor, most: int) -> _Look:
    """One continuation of each entry; the entries wait in their places."""
    n = len(beam)
    both = beam.keep(torch.cat([torch.arange(n), torch.arange(n)]))
    moving = torch.arange(2 * n) >= n
    both = drawn_on(both, rng.at("foresight"), moving, most)
    waited, far = both.keep(torch.arange(n)), both.keep(torch.arange(n, 2 * n))
    alive = beam.going
    before = parents.length[parent]
    begun = torch.where(alive, beam.length, before)
    spent = torch.where(alive, beam.log_prob, parents.log_prob[parent])
    found = (far.log_prob - spent) / (far.length - begun).clamp(min=1)
    found = torch.where(far.length > begun, found, value[parent])  # had ended before: nothing was drawn
    begin = torch.where(far.length > begun, begun, 0).tolist()
    return _Look(waited, far, found, [far.written(i, begin[i]) for i in range(n)])


def _promising(rng: Rng, parents: Beam, stepped: Beam, parent: Tensor, width: int, spread: float) -> Tensor:
    """The candidates that are worth a foresight: no dead ends, none far below the others."""
    drawn = stepped.length - parents.length[parent]
    mean = (stepped.log_prob - parents.log_prob[parent]) / drawn.clamp(min=1)
    alive = ~torch.isneginf(stepped.log_mass)
    new = alive & (drawn > 0)
    keep = alive.clone()
    if new.any():
        keep &= ~new | (mean >= mean[new].mean() - spread * mean[new].std(correction=0) - 1e-12)
    given_up, missing = torch.nonzero(alive & ~keep)[:, 0], width - int(keep.sum())
    if missing > 0 and len(given_up):
        weight = torch.softmax(mean[given_up] / SHARPNESS, 0)
        keep[given_up[without_replacement(rng.at("refill"), weight, missing)]] = True
    return torch.nonzero(keep)[:, 0]


def _grouped(clusters: int | Cluster, texts: list[str]) -> Tensor:
    """(n,) int64 the clusters, numbered from 0."""
    if not callable(clusters):
        return word_clusters(texts, clusters)
    label = torch.as_tensor(clusters(texts))
    if label.shape != (len(texts),) or label.is_floating_point():
        raise ShapeError(f"clusters must return {len(texts)} whole numbers for as many texts, not {label!r}")
    return torch.unique(label, return_inverse=True)[1]
