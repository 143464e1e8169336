"""A model's numbers for given texts, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from motes.errors import MotesError


@dataclass(frozen=True)
class Scored:
    """A model's numbers for N texts of at most L tokens; zero behind the end of a text.

    Entropies and variances are None where only the log-probabilities are known, see `score_run`.

    Attributes:
        tokens: each text's tokens.
        log_prob: (N, L) float64, log p(token | prompt and what stands before it), nats.
        entropy: (N, L) float64, the entropy of the law that the token was drawn from, nats.
        variance: (N, L) float64, the variance of -log p under that law.
        length: (N,) int64.
    """

    tokens: list[tuple[int, ...]]
    log_prob: Tensor
    entropy: Tensor | None
    variance: Tensor | None
    length: Tensor

    def need_laws(self) -> tuple[Tensor, Tensor]:
        """Entropies and variances.

        Raises:
            MotesError: they are not known.
        """
        if self.entropy is None or self.variance is None:
            raise MotesError("this needs each token's law and not its probability alone: score_run(..., laws=True)")
        return self.entropy, self.variance

    @property
    def total(self) -> Tensor:
        """(N,) the log-probability of each text, nats."""
        return self.log_prob.sum(1)

    @property
    def mean(self) -> Tensor:
        """(N,) the mean log-probability of each text's tokens, nats; 0 for a text without tokens."""
        return self.total / self.length.clamp(min=1)
