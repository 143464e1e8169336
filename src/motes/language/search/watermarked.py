"""Texts that carry a watermark and are draws of the model all the same, and the best of some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.drive import uninterrupted
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.sample import sample
from motes.errors import MotesError, check_whole, warn
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules
from motes.language.generation.potential import Reward, ask
from motes.language.models.model import LanguageModel, Message
from motes.language.rules.gumbel_watermark import GumbelWatermark
from motes.language.search.beam import Beam
from motes.language.search.population import Choice, TextPopulation
from motes.language.watermark import Detection, check_key, hashed, keyed_uniform, last_tokens
from motes.rng import Rng


def draw_keys(key: int, n: int) -> list[int]:
    """The keys of the draws 0..n-1, a function of one key; `gumbel_watermark` takes them."""
    words = Rng(key).at("keys of draws").bits((n, 2)).tolist()
    return [(high << 32) | low for high, low in words]


class Watermarked(TextPopulation):
    """Draws N texts with the Gumbel watermark, each with a key of its own.

    The next token is argmax of log p + g, the noise g a function of the draw's key and of the `width` tokens before.
    Where those tokens stood before in the same text, the noise would be the same again; there it is fresh, from the
    run's seed.

    Over random keys (and seeds) the N texts are independent and each has the law p of the model under rules and
    constraint exactly, as far as keyed numbers are random. Given the key the texts are fixed but for the fresh noise,
    and two prompts that share the last tokens share noise: what is preserved is the law of one run and not the
    independence of runs with one key. Without fresh noise the law of whole texts is not p (a text that repeats itself
    goes on doing so), though the law of each token is.

    Weights are what rules and constraint drop, as for `motes.Generation`. Unbiased, error bars as for independent
    draws. The rules must leave more than one token: another watermark, or argmax, leaves nothing to mark.

    Args:
        key: a secret whole number.
        width: how many tokens before decide the noise.
        model, prompt, rules, constraint, max_tokens, globalise, chat: as for `motes.Generation`.

    References:
        Aaronson & Kirchner (2022), Watermarking GPT outputs.
        Hu et al. (2024), Unbiased watermark for large language models, ICLR, for repeated contexts.
    """

    key: int
    width: int

    copied: ClassVar[bool] = True
    references = (cited("hu2024", "watermarked texts whose law is the model's"),)

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[Message],
        *,
        key: int,
        width: int = 4,
        rules: Rules = (),
        constraint: Constraint | None = None,
        max_tokens: int = 128,
        globalise: bool = True,
        chat: bool | str = "auto",
    ):
        check_key("Watermarked", key, width)
        self.key, self.width = key, width
        super().__init__(
            model,
            prompt,
            rules=rules,
            constraint=constraint,
            max_tokens=max_tokens,
            globalise=globalise,
            chat=chat,
        )

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"contexts": torch.full((n, self.max_tokens), -1, dtype=torch.int64)}, {}

    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        going, keys = torch.nonzero(beam.going)[:, 0], draw_keys(self.key, n)
        law, contexts = beam.next_log_prob(), more["contexts"].clone()
        before = last_tokens(self.prompt, beam.tokens[going], beam.length[going], self.width)
        name = hashed(before)
        again = (contexts[going] == name[:, None]).any(1)
        contexts[going, beam.length[going]] = name
        parts = [keyed_uniform(keys[i], before[j : j + 1], law.shape[1]) for j, i in enumerate(going.tolist())]
        fresh = rng.at("repeat").shard(going).uniform(tuple(law.shape))
        u = torch.where(self.refreshed(again)[:, None], fresh, torch.cat(parts) if parts else fresh)
        token = torch.full((n,), -1, dtype=torch.int64)
        token[going] = (law - torch.log(-torch.log(u))).argmax(1)
        return torch.arange(n), token, {"contexts": contexts}, shared

    def refreshed(self, again: Tensor) -> Tensor:
        """(G,) bool: where the noise does not come from the key, given where the tokens before stood before."""
        return again

    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        return math.log(n) + beam.log_prob

    def standard_error(self, particles: Particles) -> StandardError | None:
        return None  # the draws are independent

    def detect(self, tokens: Sequence[int] | Tensor, n: int) -> Detection:
        """Whether a text carries one of the keys of the draws 0..n-1, this prompt before it.

        The score is that of the key that fits best. p_value is 1 - (1 - p)^n, with p the smallest of the n: the chance
        that a text without this watermark fits any of n independent keys as well.
        """
        check_whole(1, n=n)
        found = [self._one(key, tokens) for key in draw_keys(self.key, n)]
        return _any_of(min(found, key=lambda d: d.p_value), n)

    def _one(self, key: int, tokens: Sequence[int] | Tensor) -> Detection:
        rule = GumbelWatermark(key, width=self.width)
        return rule.detect(tokens, self.model.vocabulary, self.prompt)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "key": key_name(self.key), "width": self.width}


def key_name(key: int) -> str:
    """What tells keys apart in the settings of a run, which are saved with it instead of the key."""
    return format(draw_keys(key, 1)[0] & 0xFFFFFFFF, "08x")


def _any_of(best: Detection, n: int) -> Detection:
    p = -math.expm1(n * math.log1p(-best.p_value)) if best.p_value < 1 else 1.0
    return replace(best, p_value=p)


@dataclass(frozen=True)
class Aligned:
    """The winner among watermarked draws.

    Attributes:
        text: without its end token.
        tokens: with it.
        reward: what it is worth.
        draw: which of the n draws it is, so which of `draw_keys(key, n)` it carries.
        detection: what a detector says that tries its key, n keys taken into account.
        rewards: (n,) of all draws; -inf for those that did not compete.
        verified: how many draws passed `level`; n if none was asked for.
    """

    text: str
    tokens: tuple[int, ...]
    reward: float
    draw: int
    detection: Detection
    rewards: Tensor
    verified: int


def alignment_resampling(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    reward: Reward,
    *,
    n: int = 4,
    key: int,
    seed: int | Rng,
    width: int = 4,
    level: float | None = None,
    rules: Rules = (),
    constraint: Constraint | None = None,
    max_tokens: int = 128,
    chat: bool | str = "auto",
) -> Aligned:
    """The best of n watermarked texts by a reward: what the watermark costs in alignment is won back by choosing.

    Without `level`: over random keys the n draws of `Watermarked` are independent with the model's law p, so the winner
    has exactly the law of best-of-n without a watermark. `best_of_n_law` and `best_of_n_divergence` hold for it
    too. It is not p, since choosing by reward changes it. And it is a statement about one run: with one key, equal
    prompts give equal texts as far as no context repeats. Where rules or a constraint leave tokens out, p is the law
    renormalised token by token; draws in a dead end, or cut before the constraint is satisfied, do not compete, so that
    the winner is then the best of a random number of draws, at most n.

    With `level`: only draws compete whose watermark is found with a p-value of at most `level` by a detector that tries
    all n keys. These have the law p(y) P(found | y) / P(found), which prefers long texts of high entropy; short or
    certain texts never pass. Neither p nor the law of best-of-n is preserved. If no draw passes, all compete, and a
    warning says so.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages.
        reward: as for `motes.Generation`: maps a list of texts to (n,).
        n: how many draws; the published experiments take 2 to 4.
        key: a secret whole number; the draws' own keys follow from it.
        seed: of what the keys do not decide.
        width: how many tokens before decide the noise.
        level: the largest p-value that counts as found, in (0, 1); None does not ask.
        rules, constraint, max_tokens, chat: as for `motes.Generation`.

    Raises:
        EmptyConstraint: nothing can follow the prompt.
        AllWeightsZero: every draw ran into a dead end.
        MotesError: an argument is of the wrong kind.

    Example:
        >>> import motes, torch
        >>> table = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.4, 0.1]).log().expand(4, 3))
        >>> best = alignment_resampling(table, "", lambda t: torch.tensor([s.count("a") for s in t]), key=7, seed=0)
        >>> best.reward == best.text.count("a") == best.rewards.max()
        tensor(True)

    References:
        Verma, Phan & Trivedi (2025), Watermarking degrades alignment in language models: analysis and mitigation,
        arXiv 2506.04462; its Gumbel watermark draws from a tilted softmax in place of keys for each draw, and does not
        keep the law.
    """
    check_whole(1, n=n)
    if level is not None and not 0 < level < 1:
        raise MotesError(f"level must be None or lie in (0, 1), not {level!r}")
    marked = Watermarked(
        model, prompt, key=key, width=width, rules=rules, constraint=constraint, max_tokens=max_tokens, chat=chat
    )
    run = uninterrupted(sample(marked, n, seed=seed, progress=False))
    x = run.particles.x
    texts = [tuple(x["tokens"][i, : int(x["length"][i])].tolist()) for i in range(n)]
    found = [_any_of(marked._one(k, text), n) for k, text in zip(draw_keys(key, n), texts, strict=True)]
    alive = ~torch.isneginf(run.log_weight)
    passed = alive & torch.tensor([level is None or d.p_value <= level for d in found])
    if not bool(passed.any()):
        warn(
            f"none of {n} watermarked texts is recognised at level {level}, so the best of all of them was taken: use "
            "more draws, longer texts or a higher level"
        )
    compete = passed if bool(passed.any()) else alive
    index = torch.nonzero(compete)[:, 0].tolist()
    own = [torch.tensor([v for v in texts[i] if v not in model.end], dtype=torch.int64) for i in index]
    rewards = torch.full((n,), -torch.inf, dtype=torch.float64)
    rewards[index] = ask(reward, [run.texts[i] for i in index], own, 0)
    best = index[int(rewards[index].argmax())]
    verified = n if level is None else int(passed.sum())
    return Aligned(run.texts[best], texts[best], float(rewards[best]), best, found[best], rewards, verified)
