"""Searches whose texts carry weights, as Feynman-Kac models: what their methods have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.estimate.variance import StandardError
from motes.core.files.settings import digest
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.run import Run
from motes.errors import EmptyConstraint, MotesError
from motes.language.constraint import Constraint
from motes.language.generation.arguments import Rules, as_rules, check_arguments, encoded
from motes.language.generation.frontier import Frontier
from motes.language.generation.prefix import TokenSequences
from motes.language.models.model import LanguageModel, Message
from motes.language.search.beam import Beam, follow, open_beam
from motes.rng import Rng

TOGETHER = "the texts of a run are chosen together and not independently; take the spread over several runs"
UNSEEN = (
    "f is zero for every text that was in by chance, so that texts that were left out have no error bar; take more "
    "texts, or the spread over several runs"
)
Choice = tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Any]]
"""Entry and token (-1: as it is) of each entry of the next beam, what the method keeps of each, and of all."""


class TextPopulation(FeynmanKac):
    """A search that keeps at most N texts and knows how often each was to be expected among them.

    With m(y) the expected number of copies of the text y and p(y) its unnormalised target, a text weighs
    N p(y) / m(y), so that the mean of w f(y) over the N particles is unbiased for sum_y p(y) f(y). A slot without a
    text weighs nothing. It never resamples: the choice of texts is its own.

    The target is as for `motes.Generation`: what rules and constraint make of the model's law, globally normalised, or
    with `globalise=False` the law that is renormalised token by token.

    Args:
        model: from `motes.language.load`, or a `TableModel`.
        prompt: a text, or chat messages.
        rules: applied in order before the constraint.
        constraint: what the texts must satisfy.
        max_tokens: the most tokens of a text.
        globalise: whether the rules' kept mass counts in the weights.
        chat: wrap the prompt in the model's chat template: True, False, or "auto" if there is one.

    Raises:
        MotesError: an argument is of the wrong kind.
    """

    model: LanguageModel
    constraint: Constraint | None
    max_tokens: int
    globalise: bool

    quantity: ClassVar[str] = "log normaliser"
    copied: ClassVar[bool] = False
    """Whether the population starts with N copies of the empty text, not with one."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: str | Sequence[Message],
        *,
        rules: Rules = (),
        constraint: Constraint | None = None,
        max_tokens: int = 128,
        globalise: bool = True,
        chat: bool | str = "auto",
    ):
        self.rules = as_rules(rules)
        check_arguments(model, constraint, None, max_tokens, None)
        self.model, self.constraint, self.max_tokens, self.globalise = model, constraint, max_tokens, globalise
        self.prompt: Tensor = encoded(model, prompt, chat, max_tokens)

    @abstractmethod
    def choose(self, rng: Rng, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Choice:
        """Which entries go on with which tokens.

        Args:
            rng: this step's address.
            beam: the used entries (M <= n).
            more: what the method keeps of each entry, see `begin`.
            shared: what it keeps of the population.
            n: the most entries.
        """

    def begin(self, rng: Rng, n: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the method keeps of each entry (n, ...) and of the population before the first token."""
        return {}, {}

    @abstractmethod
    def log_expected(self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int) -> Tensor:
        """(M,) the log of the expected number of copies of each entry."""

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        beam = self._open(n if self.copied else 1)
        more, shared = self.begin(rng, n)
        more = {k: v[: len(beam)] for k, v in more.items()}
        if not bool(beam.going.any()):
            raise EmptyConstraint("no first token is left after the rules and the constraint: weaken the rules")
        x, weight = self._packed(beam, more, shared, n)
        return Particles.start(x, weight, shared=shared, info={"evaluated": 1, "finished": 0.0})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        frontier = particles.x["frontier"]
        if not isinstance(frontier, Frontier) or frontier.stale:
            particles = self.restore(particles)
        beam, more = self._unpacked(particles)
        entry, token, more, shared = self.choose(rng, beam, more, particles.shared, particles.n)
        beam = beam.grow(entry, token)
        going = beam.going
        info = {
            "evaluated": len(torch.unique(beam.row[going])),
            "finished": 1 - float(going.sum()) / max(1, len(going)),
        }
        if not self.copied:  # what is in a dead end frees its place
            alive = ~torch.isneginf(beam.log_mass)
            beam, more = beam.keep(alive), {k: v[alive] for k, v in more.items()}
        x, weight = self._packed(beam, more, shared, particles.n)
        stepped = particles.step(x, torch.zeros_like(weight), shared=shared, info=info)
        return replace(stepped, log_weight=weight)

    def done(self, particles: Particles) -> bool:
        return bool(particles.x["finished"].all())

    def must_resample(self, particles: Particles) -> bool | None:
        return False

    # ---------------------------------------------------------------- around them

    def shows(self) -> str:
        return "texts"

    def view(self, particles: Particles) -> list[str]:
        """The texts, without their end token."""
        return TokenSequences.of(particles.x).strings(self.model)

    def standard_error(self, particles: Particles) -> StandardError | None:
        """None of its own: texts are chosen together, so their spread is not that of independent ones.

        Equal weights are an exact normaliser only where they could not have been others: without anything that drops
        mass, and in more than one text.
        """
        free = self.constraint is None and not (self.rules and self.globalise)
        if free and particles.n > 1 and bool((particles.log_weight == particles.log_weight[0]).all()):
            return StandardError(0.0, "equal weights", means=TOGETHER)
        reason = "one text alone has no spread; take more, or several runs" if particles.n == 1 else TOGETHER
        return StandardError(math.nan, "none", reason, means=reason)

    def progress(self, particles: Particles) -> float:
        return 1.0 if self.done(particles) else particles.t / self.max_tokens

    def restore(self, particles: Particles) -> Particles:
        """Evaluate the unfinished texts again."""
        x = particles.x
        going = torch.nonzero(~x["finished"])[:, 0]
        beam = self._open(1)
        row = torch.full_like(x["length"], -1)
        if len(going):
            row[going] = follow(beam, x["tokens"][going], x["length"][going]).row
        return replace(particles, x={**x, "frontier": Frontier(row, beam.reader, beam.reader.version)})

    # ---------------------------------------------------------------- their parts

    def _open(self, copies: int) -> Beam:
        return open_beam(
            self.model, self.prompt, self.max_tokens, self.rules, self.constraint, self.globalise, copies=copies
        )

    def _packed(
        self, beam: Beam, more: dict[str, Tensor], shared: dict[str, Any], n: int
    ) -> tuple[dict[str, Any], Tensor]:
        """The entries as particles, the unused slots behind them, and the log-weights."""
        expected = self.log_expected(beam, more, shared, n)
        weight = math.log(n) + beam.log_prob + beam.log_mass - expected
        finished = ~beam.going
        fields = {
            "tokens": beam.tokens,
            "length": beam.length,
            "finished": finished,
            "used": torch.ones_like(finished),
            "log_prob": beam.log_prob,
            "log_mass": beam.log_mass,
            "log_expected": expected,
        }
        x: dict[str, Any] = {k: _padded(v, n, k == "finished") for k, v in {**fields, **more}.items()}
        x["frontier"] = Frontier(_padded(beam.row, n, -1), beam.reader, beam.reader.version)
        return x, _padded(weight, n, -torch.inf)

    def _unpacked(self, particles: Particles) -> tuple[Beam, dict[str, Tensor]]:
        x = {k: v[particles.x["used"]] for k, v in particles.x.items() if k != "frontier"}
        frontier = particles.x["frontier"]
        row = frontier.row[particles.x["used"]]
        beam = Beam(frontier.reader, x["tokens"], x["length"], row, x["log_prob"], x["log_mass"])
        own = {"tokens", "length", "finished", "used", "log_prob", "log_mass", "log_expected"}
        return beam, {k: v for k, v in x.items() if k not in own}

    def settings(self) -> dict[str, Any]:
        return {
            **self.model.settings(),
            "prompt": digest(self.prompt),
            "max_tokens": self.max_tokens,
            "rules": [rule.settings() for rule in self.rules],
            "constraint": None if self.constraint is None else self.constraint.settings(),
            "globalise": self.globalise,
        }


def _padded(x: Tensor, n: int, fill: float) -> Tensor:
    """`x` (M, ...) with n - M further rows."""
    return torch.cat([x, torch.full((n - len(x), *x.shape[1:]), fill, dtype=x.dtype)])


def unbiased_mean(run: Run, f: Callable[[list[str]], Tensor]) -> Estimate[Tensor]:
    """The mean of w f over the particles, unbiased for the sum of f under the target, which `run.mean` normalises.

    Its error bar is known where texts are in or out independently of each other, given the threshold: stochastic beam
    search. There the variance is estimated without bias by the sum of (w f / N)^2 (1 - m), m the inclusion
    probability. Where that sum is zero although texts were left out, there is a reason in its place.

    Args:
        run: of `StochasticBeam`, `PoissonBeam` or `Arithmetic`.
        f: maps the texts to (N,) numbers.

    References:
        Duffield, Lund & Thorup (2007), Priority sampling for estimation of arbitrary subset sums, JACM 54(6), thm 1.
    """
    run = run.alone("unbiased_mean")
    if "log_expected" not in (run.particles.x if isinstance(run.particles.x, dict) else {}):
        raise MotesError(f"unbiased_mean is for searches with weights, not for a {run.setup['model']} run")
    value = run.values(f)
    part = run.log_weight.exp() / run.n * value
    if run.setup["model"] != "StochasticBeam":
        return Estimate(part.sum(), torch.tensor(math.nan, dtype=torch.float64), TOGETHER)
    out = -torch.expm1(run.particles.x["log_expected"])
    se = (part.square() * out).sum().sqrt()
    if float(se) == 0.0 and bool((out > 0).any()):
        return Estimate(part.sum(), torch.full_like(se, math.nan), UNSEEN)
    return Estimate(part.sum(), se, method="inclusion probabilities")
