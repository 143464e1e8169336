"""A temperature that follows the entropy of each next-token law."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from motes.language.rule import Rule, SeenTokens, rules
from motes.language.rules import check
from motes.language.rules.ranking import entropy, tempered


@rules.register
@dataclass(frozen=True)
class EntropyTemperature(Rule):
    """Sample from p^(1/T) with T = base * ratio^(theta / H), H the entropy: sharp where the model is sure (EDT).

    T goes to zero with H and to `base` as H grows; it is at least 1e-6.

    kept is log sum p^(1/T); the law of whole texts is the product of p(token)^(1/T) with the T that each token's
    beginning leads to, up to one constant.

    Args:
        base: the temperature at large entropy; positive.
        ratio: in (0, 1).
        theta: positive; how fast T falls.

    References:
        Zhang, Bao & Huang (2024), EDT: improving large language models' generation by entropy-based dynamic temperature
            sampling, arXiv 2403.14541, section 3.
    """

    base: float = 1.0
    _: KW_ONLY
    ratio: float = 0.8
    theta: float = 1.0

    def __post_init__(self) -> None:
        check.number("entropy_temperature", "base", self.base, 0, math.inf, open_low=True)
        check.number("entropy_temperature", "ratio", self.ratio, 0, 1, open_low=True, open_high=True)
        check.number("entropy_temperature", "theta", self.theta, 0, math.inf, open_low=True)

    def __call__(self, log_prob: Tensor, seen: SeenTokens | None = None) -> tuple[Tensor, Tensor]:
        return tempered(log_prob, self.temperature(entropy(log_prob)))

    def temperature(self, h: Tensor) -> Tensor:
        """The temperature at an entropy of `h` nats."""
        return self.base * (math.log(self.ratio) * self.theta / h.clamp(min=1e-300)).exp()
