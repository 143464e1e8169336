"""Greedy decoding that samples where the entropy is too high, and steps back where it stays too low."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.models.model import LanguageModel, Message
from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy
from motes.language.rules.top_k import TopK
from motes.language.rules.typical import Typical
from motes.rng import Rng
from motes.rng.seed import seeded

GREEDY = TopK(1)


@rules.register
@dataclass(frozen=True)
class StableEntropy(Rule):
    """Take the most probable token unless the entropy lies above a band around its mean on human text; then sample.

    The band at token t = 1, 2, ... is mean(t) +- width * sd(t), both lines in t, nats; `calm` tokens come first, which
    are greedy. Above the band the token comes from p restricted to the `mass` of locally typical tokens. The rule does
    not step back where the entropy stays below the band, since a rule cannot take tokens back: `decode_stable` does.
    It looks at nothing but the text, not at a particle, so kept is a truncation's.

    kept is the log of p of the most probable token, or of the mass of the typical ones; the law of whole texts is p(y)
    where each token lies in its set.

    Args:
        width: at least 0; inf is greedy.
        mean: intercept and slope of the mean entropy; fitted by the authors to GPT-2 XL.
        sd: intercept and slope of its standard deviation.
        calm: tokens before the band counts.
        mass: of the typical sampler.

    References:
        Arora, O'Donnell, Precup, Weston & Cheung (2023), The stable entropy hypothesis and entropy-aware decoding,
            arXiv 2302.06784, section 5.
    """

    width: float = 1.0
    _: KW_ONLY
    mean: tuple[float, float] = (2.88702, -0.00277)
    sd: tuple[float, float] = (0.91427, -0.00064)
    calm: int = 5
    mass: float = 0.25

    def __post_init__(self) -> None:
        if not (isinstance(self.width, (int, float)) and self.width >= 0):
            raise MotesError(f"width of stable_entropy must be a number of at least 0, or inf, not {self.width!r}")
        for name, line in (("mean", self.mean), ("sd", self.sd)):
            if not isinstance(line, (tuple, list)) or len(line) != 2:
                raise MotesError(f"{name} of stable_entropy must be an intercept and a slope, not {line!r}")
            for number in line:
                check.number("stable_entropy", name, number, -math.inf, math.inf)
        check.whole("stable_entropy", "calm", self.calm, 0)
        check.number("stable_entropy", "mass", self.mass, 0, 1, open_low=True)

    def band(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper edge for the token behind `length` (A,) tokens."""
        t = length.double() + 1
        middle = self.mean[0] + self.mean[1] * t
        half = (self.sd[0] + self.sd[1] * t).clamp(min=0)
        half = torch.full_like(half, math.inf) if self.width == math.inf else self.width * half
        return middle - half, middle + half

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        seen = check.needs_run(self, seen)
        high = (entropy(log_prob) > self.band(seen.length)[1]) & (seen.length >= self.calm)
        law, kept = GREEDY(log_prob)
        if high.any():
            law[high], kept[high] = Typical(self.mass)(log_prob[high])
        return law, kept


def decode_stable(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    *,
    seed: int | Rng,
    rule: StableEntropy | None = None,
    max_tokens: int = 64,
    patience: int = 5,
    back: int = 5,
    most: int = 10,
    chat: bool | str = "auto",
) -> tuple[str, int]:
    """One text by entropy-aware decoding with back-off, and how often it stepped back.

    Where the entropy lay below the band for more than `patience` tokens in a row, the last `back` tokens are taken back
    and the token of the next rank stands where the first of them stood; at most `most` times. The text is a draw
    without a weight: taking tokens back follows no law that could be stated.

    Args:
        model: the language model.
        prompt: a text or chat messages.
        seed: a whole number or an Rng.
        rule: the band and the sampler; None is `StableEntropy()`.
        max_tokens: the most tokens of the text.
        patience: see above.
        back: see above.
        most: see above.
        chat: as in `Generation`.
    """
    rng = seeded(seed)
    rule = StableEntropy() if rule is None else rule
    for name, value, low in (
        ("max_tokens", max_tokens, 1),
        ("patience", patience, 0),
        ("back", back, 1),
        ("most", most, 0),
    ):
        check.whole("decode_stable", name, value, low)
    start = model.encode(prompt, chat)
    prefixes = model.prefixes(start, max_tokens)
    one = torch.zeros(1, dtype=torch.int64)
    text: list[int] = []
    ranks: list[int] = []  # of each token when it was chosen by a step back; 0 otherwise
    low = backs = draws = 0
    while len(text) < max_tokens and not (text and text[-1] in model.end):
        log_prob = torch.log_softmax(prefixes.logits.detach().cpu().double(), -1)
        length = torch.tensor([len(text)])
        low = low + 1 if bool(entropy(log_prob)[0] < rule.band(length)[0][0]) and len(text) >= rule.calm else 0
        rank = 0
        if low > patience and backs < most and len(text) >= back:
            at = len(text) - back
            rank = ranks[at] + 1
            text, ranks = text[:at], ranks[:at]
            backs, low = backs + 1, 0
            prefixes = model.prefixes(start, max_tokens)
            for token in text:
                prefixes.extend(one, torch.tensor([token]))
            log_prob = torch.log_softmax(prefixes.logits.detach().cpu().double(), -1)
        if rank:
            order = torch.sort(log_prob[0], descending=True, stable=True).indices
            token = int(order[min(rank, len(order) - 1)])
        else:
            seen = SeenTokens(
                model, start, torch.tensor([text], dtype=torch.int64), torch.tensor([len(text)]), log_prob
            )
            token = int(rng.at("stable", inner=draws).categorical(rule(log_prob, seen)[0])[0])
            draws += 1
        text.append(token)
        ranks.append(rank)
        if len(text) < max_tokens and token not in model.end:
            prefixes.extend(one, torch.tensor([token]))
    return model.decode([token for token in text if token not in model.end]), backs
