"""Rules change the next-token law and say how much mass they kept, so that a run can correct for it.

A rule maps log-probabilities (A, V) float64 to the changed, normalised ones and the log of the mass kept (A,), nats:
what the changed law was divided by to sum to one. Summed over a text, the kept mass is the ratio between the locally
normalised law that is drawn from and the globally normalised one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.errors import MotesError


class Rule(ABC):
    """One change to the next-token law."""

    @abstractmethod
    def __call__(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (A, V) to changed ones (A, V) and the log of the mass kept (A,)."""

    def settings(self) -> dict[str, Any]:
        """The rule and its knobs, as JSON."""
        return {"rule": type(self).__name__, **asdict(self)}  # pyright: ignore[reportArgumentType]


def renormalised(log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (A, V) divided by their mass, and the log of that mass (A,); a row without mass stays -inf."""
    kept = torch.logsumexp(log_prob, -1)
    return torch.where(torch.isneginf(kept)[:, None], log_prob, log_prob - kept[:, None]), kept


@dataclass(frozen=True)
class Temperature(Rule):
    """p(v)^(1/T): under the kept mass, the law of whole texts becomes p(text)^(1/T) up to one constant."""

    temperature: float

    def __call__(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        return renormalised(log_prob / self.temperature)


@dataclass(frozen=True)
class Nucleus(Rule):
    """Keep the most probable tokens until their mass reaches `mass`, with the one that crosses it.

    Of tokens with equal probability those with lower numbers come first.

    References:
        Holtzman, Buys, Du, Forbes & Choi (2020), The curious case of neural text degeneration, ICLR, section 3.1.
    """

    mass: float

    def __call__(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        ranked, order = torch.sort(log_prob, dim=-1, descending=True, stable=True)
        before = ranked.exp().cumsum(-1) - ranked.exp()
        dropped = before >= self.mass
        dropped[:, 0] = False
        return renormalised(log_prob.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), -torch.inf))


@dataclass(frozen=True)
class TopK(Rule):
    """Keep the `k` most probable tokens; of equal ones those with lower numbers.

    References:
        Fan, Lewis & Dauphin (2018), Hierarchical neural story generation, ACL, section 5.4.
    """

    k: int

    def __call__(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.sort(log_prob, dim=-1, descending=True, stable=True).indices[:, self.k :]
        return renormalised(log_prob.scatter(1, order, -torch.inf))


def temperature(value: float) -> Temperature:
    """Sample from p^(1/value); below 1 sharper, above 1 flatter."""
    if not 0 < value < float("inf"):
        raise MotesError(f"a temperature must be positive and finite, not {value!r}; a small one is nearly greedy")
    return Temperature(float(value))


def nucleus(mass: float) -> Nucleus:
    """Sample from the smallest set of most probable tokens whose mass reaches `mass` (top-p)."""
    if not 0 < mass <= 1:
        raise MotesError(f"the mass of a nucleus must lie in (0, 1], not {mass!r}")
    return Nucleus(float(mass))


def top_k(k: int) -> TopK:
    """Sample from the `k` most probable tokens."""
    if not isinstance(k, int) or k < 1:
        raise MotesError(f"top_k needs a whole number of at least 1, not {k!r}")
    return TopK(k)
