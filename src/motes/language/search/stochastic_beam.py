"""Stochastic beam search: texts without replacement by Gumbel noise on whole texts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.resampling.designs.gumbel import given_maximum, largest, log_inclusion
from motes.core.weights import total
from motes.language.search.beam import Beam
from motes.language.search.population import Choice, TextPopulation
from motes.rng import Rng


class StochasticBeam(TextPopulation):
    """Draws up to N different texts, as drawing one by one without replacement would, in one pass of a beam.

    Every text y has a perturbed log-probability G(y) = log p(y) + Gumbel noise; the N largest are the sample. A prefix
    carries the maximum over its texts, which is Gumbel around the prefix's log p, so the beam draws children given that
    their maximum is their parent's:

        u = G_parent - g + log(1 - exp(g - Z)),   G = G_parent - max(u, 0) - log(1 + exp(-|u|)),

    g the children's free draws and Z their maximum. The threshold kappa is the largest G that was ever dropped, that is
    the (N+1)-th largest of all texts; given it a text is in with probability 1 - exp(-exp(log p(y) - kappa)), and its
    weight is one over that. So all N texts count, and no text is spent on the threshold.

    Unbiased: E[mean of w f] = sum_y p(y) f(y) at any N; the standard error of the normaliser is that of independent
    inclusions given the threshold. Texts that run into a dead end free their place.

    Args:
        model, prompt, rules, constraint, max_tokens, globalise, chat: as for `motes.Generation`.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> run = motes.sample(StochasticBeam(model, "", max_tokens=4), 6, seed=0, progress=False)
        >>> len(set(run.texts))
        6

    References:
        Kool, van Hoof & Welling (2019), Stochastic beams and where to find them, ICML, sections 3 and 4, appendix B.
        Duffield, Lund & Thorup (2007), Priority sampling for estimation of arbitrary subset sums, JACM 54(6).
    """

    references = (
        cited("kool2019", "texts without replacement"),
        cited("duffield2007", "the weights of a threshold sample and their variance"),
    )

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        perturbed = rng.at("gumbel").gumbel((1,))
        return {"perturbed": perturbed}, {"threshold": torch.tensor(-math.inf, dtype=torch.float64)}

    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        going, stay = torch.nonzero(beam.going)[:, 0], torch.nonzero(~beam.going)[:, 0]
        free = beam.log_prob[going][:, None] + beam.next_log_prob()
        free = free + rng.at("gumbel").shard(going).gumbel(tuple(free.shape))
        child = given_maximum(free, more["perturbed"][going])
        perturbed = torch.cat([more["perturbed"][stay], child.flatten()])
        value, index, threshold = largest(perturbed, shared["threshold"], n)
        behind = (index - len(stay)).clamp(min=0)
        carried, width = index < len(stay), child.shape[1]
        stays = torch.cat([stay, stay.new_zeros(1)])[index.clamp(max=len(stay))]
        entry = torch.where(carried, stays, going[behind // width])
        token = torch.where(carried, -1, behind % width)
        return entry, token, {"perturbed": value}, {"threshold": threshold}

    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        return log_inclusion(beam.log_prob, shared["threshold"])

    def standard_error(self, particles: Particles) -> StandardError:
        part = (particles.log_weight - particles.log_weight.max()).exp()
        variance = total(part.square() * -torch.expm1(particles.x["log_expected"])) / total(part) ** 2
        return StandardError(math.sqrt(max(0.0, variance)), "inclusions independent given the threshold")
