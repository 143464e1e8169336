"""Conditional Poisson stochastic beam search: subsets of a fixed size, with their inclusion probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.resampling import conditional_poisson
from motes.language.search.beam import Beam
from motes.language.search.population import Choice, TextPopulation
from motes.rng import Rng


class PoissonBeam(TextPopulation):
    """Draws up to N different texts; at each token a subset of N prefixes with probability proportional to the product
    of p / (1 - p) over it.

    That is the law of independent coins with probabilities p given that N of them fall right (conditional Poisson
    sampling). The probability pi that a candidate is in the subset, given the candidates, is known; multiplied over the
    tokens of a text it is what the Horvitz-Thompson weight p(y) / prod pi divides by.

    Unbiased at any N; no error bar from one run.

    Args:
        model, prompt, rules, constraint, max_tokens, globalise, chat: as for `motes.Generation`.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> run = motes.sample(PoissonBeam(model, "", max_tokens=4), 6, seed=0, progress=False)
        >>> len(set(run.texts))
        6

    References:
        Meister, Amini, Vieira & Cotterell (2021), Conditional Poisson stochastic beams, EMNLP, section 3.
        Hajek (1964), Asymptotic theory of rejective sampling with varying probabilities, Ann. Math. Stat. 35.
    """

    references = (cited("meister2021", "texts without replacement, of known inclusion probability"),)

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"log_included": torch.zeros(1, dtype=torch.float64)}, {}

    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        entry, token, log_prob = beam.candidates()
        chosen, log_inclusion = conditional_poisson(rng.at("subset"), log_prob, n)
        included = more["log_included"][entry[chosen]] + log_inclusion
        return entry[chosen], token[chosen], {"log_included": included}, shared

    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        return more["log_included"]
