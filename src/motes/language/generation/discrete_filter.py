"""Sequential Monte Carlo that tries every next token: distinct texts, reduced to N by optimal resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.resampling.designs.optimal import FEARNHEAD, thin
from motes.errors import check_whole
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules, check_arguments
from motes.language.generation.potential import Potential, Reward, reward_name
from motes.language.generation.prefix import TokenSequences
from motes.language.generation.reward_account import RewardAccount, guides
from motes.language.generation.sources import LEW
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam
from motes.language.search.population import Choice, TextPopulation
from motes.rng import Rng

KEPT = (
    "which texts are kept depends on all others at every token, so that one run holds one draw and no spread: take the "
    "spread over several runs with other seeds"
)
EXACT = "every text was counted: it is exact"


class DiscreteParticleFilter(TextPopulation):
    """Sequential Monte Carlo over distinct texts: each is expanded into its next tokens, and N candidates are kept.

    With `factor=None` the candidates of a text of weight W are all its next tokens v, with their exact weights
    W p(v | text); nothing is random in them. With `factor=k` they are k N random draws from the next-token laws, W / k
    each (equal draws are one candidate with the sum), and the constraint, the reward of texts that end and the twist
    are asked about all of them, so that they count in the choice. A finished text stays as one candidate. Candidates
    are reduced to N with inclusion probabilities min(1, c w), sum N: heavy ones keep their weight, the others get 1/c
    (`motes.core.resampling.thin`). No text is held twice, so no particle is spent on a copy.

    The target is that of `motes.Generation`, and a run is unbiased at any N: the mean of w f(text) has the mean
    sum p(y) 1[accepted] exp(reward(y)) f(y). As long as there are no more than N candidates and `factor` is None, it is
    that sum itself. It never resamples otherwise. Else one run has no error bar (`run.standard_error.reason`): whether
    a text is kept depends on all others at every token, and one set of N says nothing of the sets that might have been.

    Args:
        model, prompt, rules, constraint, max_tokens, globalise, chat: as for `motes.Generation`.
        reward: of finished texts, as for `motes.Generation`; a `Potential` also judges prefixes.
        steer: also ask the reward about unfinished texts every `steer` tokens, taken back later.
        twist: who is asked about unfinished texts in the reward's place; without `steer` after every token.
        factor: None, or the number of draws a particle.

    Raises:
        MotesError: an argument is of the wrong kind.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> run = motes.sample(DiscreteParticleFilter(model, "", max_tokens=2), 7, seed=0, progress=False)
        >>> len(set(run.texts)), round(run.log_evidence, 9)
        (7, 0.0)

    References:
        Fearnhead & Clifford (2003), On-line inference for hidden Markov models via particle filters, J. R. Statist.
        Soc. B 65(4), section 3. Lew et al. (2023), arXiv 2306.03081, section 3, for `factor`.
    """

    reward: Reward | None
    twist: Reward | None
    steer: int | None

    references = (FEARNHEAD, LEW)

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[Message],
        *,
        rules: Rules = (),
        constraint: Constraint | None = None,
        reward: Reward | Potential | None = None,
        max_tokens: int = 128,
        globalise: bool = True,
        chat: bool | str = "auto",
        steer: int | None = None,
        twist: Reward | None = None,
        factor: int | None = None,
    ):
        super().__init__(
            model, prompt, rules=rules, constraint=constraint, max_tokens=max_tokens, globalise=globalise, chat=chat
        )
        check_arguments(model, constraint, reward, max_tokens, steer)
        self.reward, self.twist, self.steer = guides(reward, twist, steer)
        if factor is not None:
            check_whole(1, factor=factor)
        self.factor = factor

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        zero = torch.zeros(1, dtype=torch.float64)
        return {"log_included": zero, "provisional": zero}, {"exact": torch.tensor(self.factor is None)}

    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        t = int(beam.length.max()) + 1  # what is unfinished has the same length
        if self.factor is None:
            entry, token, log_prob = beam.candidates()
            included = more["log_included"][entry]
        else:
            entry, token, log_prob, drawn = self._drawn(rng.at("token"), beam, n)
            included = more["log_included"][entry] + drawn
        now = more["provisional"][entry]
        if self.factor is not None:
            entry, token, log_prob, included, now = self._judged(beam, t, entry, token, log_prob, included, now)
        kept, log_q = thin(rng.at("thin"), (log_prob + beam.log_mass[entry] - included)[None], n)
        chosen = torch.nonzero(kept[0])[:, 0]
        exact = shared["exact"] & (len(chosen) == len(entry))
        entry, token, log_prob, now = entry[chosen], token[chosen], log_prob[chosen], now[chosen]
        included = included[chosen] + log_q[0, chosen]
        if self.factor is None:
            entry, token, log_prob, included, now = self._judged(beam, t, entry, token, log_prob, included, now)
        return entry, token, {"log_included": included, "provisional": now}, {"exact": exact}

    def _drawn(self, rng: Rng, beam: Beam, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Candidates: entry, token, log-probability, and the log of the number of copies expected of each by its entry.

        A candidate drawn c times of k weighs W c / k, as if p k / c copies of it had been expected.
        """
        going, stay = torch.nonzero(beam.going)[:, 0], torch.nonzero(~beam.going)[:, 0]
        law = beam.next_log_prob()
        assert self.factor is not None
        k = self.factor * -(-n // len(going))
        which = torch.arange(len(going)).repeat_interleave(k)
        every = torch.arange(len(which))
        parts = every.split(max(1, 2**24 // law.shape[1]))
        token = torch.cat([rng.shard(ids).categorical(law[which[ids]]) for ids in parts])
        pair, count = torch.unique(which * law.shape[1] + token, return_counts=True)
        which, token = pair // law.shape[1], pair % law.shape[1]
        step = law[which, token]
        return (
            torch.cat([stay, going[which]]),
            torch.cat([torch.full_like(stay, -1), token]),
            torch.cat([beam.log_prob[stay], beam.log_prob[going[which]] + step]),
            torch.cat([torch.zeros_like(beam.log_prob[stay]), step - (count.to(step.dtype) / k).log()]),
        )

    def _judged(
        self, beam: Beam, t: int, entry: Tensor, token: Tensor, log_prob: Tensor, included: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The candidates without those that are worth nothing, and what they are worth: in `included` and as it is."""
        new = torch.nonzero(token >= 0)[:, 0]
        twist = self.twist if self.steer is not None and t % self.steer == 0 else None
        account, texts = RewardAccount(self.model, self.reward, twist, self.steer), entry[new]
        now, sequences = before.clone(), TokenSequences(beam.tokens[texts], beam.length[texts])
        now[new] = account.worth(beam.reader, sequences, beam.row[texts], token[new], before[new], t)
        alive = ~torch.isneginf(now)
        included = included - (now - before)
        return entry[alive], token[alive], log_prob[alive], included[alive], now[alive]

    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        return more["log_included"]

    def standard_error(self, particles: Particles) -> StandardError:
        if bool(particles.shared["exact"]):
            return StandardError(0.0, "every text was counted", means=EXACT)
        return StandardError(math.nan, "none", KEPT, means=KEPT)

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "reward": reward_name(self.reward),
            "steer": self.steer,
            "twist": reward_name(self.twist),
            "factor": self.factor,
        }
