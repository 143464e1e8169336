"""Resample-move for texts: what resampling copied is rewritten from a random place on, and accepted by Metropolis."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.variance import StandardError
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.run import Run
from motes.core.temperature import next_temperature
from motes.errors import MotesError, check_share, check_whole
from motes.language.generation.equal_weights import no_spread, reached_by_few, same_reward
from motes.language.generation.frontier import Closed
from motes.language.generation.generation import Generation
from motes.language.generation.prefix import PrefixState, TokenSequences
from motes.language.generation.proposals.conditional_draw import ConditionalDraw
from motes.language.generation.proposals.next_tokens import FromLaw
from motes.language.generation.step_end import AtEnd
from motes.language.generation.token_step import write
from motes.rng import Rng

GILKS = cited("gilks2001", "texts rewritten after resampling")
TEMPERING = cited("delmoral2006", "tempering of a reward")
WRITTEN = ("tokens", "length", "log_prob", "kept", "provisional")
"""What a rewrite changes of a particle."""


class ResampleMove(FeynmanKac):
    """Texts of a `Generation`, rewritten in blocks after resampling, so that copies part and the law stays.

    First the generation runs as it would alone. Then each step resamples, if the weights are not equal, and rewrites
    every text once. Of a text y of L tokens (its end token included) a place j in 0..L-1 is drawn uniformly, and what
    stands from j on is drawn anew from the law q that the generation draws tokens from (rules and constraint, token by
    token), until it ends, with L' tokens. With m_t the mass that rules and constraint keep at token t, as far as it
    counts in the weights, the target is p*(y) = q(y) prod_t m_t exp(reward(y)) 1[accepted], so that of the Metropolis
    ratio p*(y') q(y | j) / L' over p*(y) q(y' | j) / L there remains

        exp(reward(y') - reward(y))  prod_{t >= j} m'_t / prod_{t >= j} m_t  1[y' accepted]  L / L'.

    Every j has its own detailed balance. Where tokens are found by rejection the masses are the random weights that
    they came with; they are kept with the text, and the kernel leaves the law of text and masses invariant.

    With `temper` the generation runs without its reward (a twist still guides it), and the reward comes in through
    powers exp(b reward), with b rising from 0 to 1 such that each rise leaves `conditional_ess` of the effective sample
    size, and `sweeps` rewrites at each b: for rewards that hardly any text of the generation satisfies.

    The mean weight is unbiased for the normaliser with `temper=False`, and with a ladder of temperatures that is given
    (`freeze`); temperatures chosen from the particles themselves bias it by a term of order 1/N.

    A rewrite costs about what the generation did: kept beginnings are evaluated again, equal ones once.

    References:
        Gilks & Berzuini (2001), Following a moving target: Monte Carlo inference for dynamic Bayesian models, JRSS B
        63(1), section 3, resample-move.
        Del Moral, Doucet & Jasra (2006), Sequential Monte Carlo samplers, JRSS B 68(3), section 3.3.

    Args:
        generation: where texts come from, and what they must satisfy.
        sweeps: rewrites of each text, with `temper` at each temperature.
        temper: let the reward in by degrees.
        conditional_ess: the fraction of the effective sample size that one rise of the temperature leaves, in (0, 1).
        ladder: rising temperatures that end with 1, in place of chosen ones; see `freeze`.

    Raises:
        MotesError: an argument outside its range, or nothing to temper.

    Example:
        >>> import motes, torch
        >>> model = motes.language.TableModel(["a", "b", "."], torch.zeros(4, 3))
        >>> reward = lambda texts: torch.tensor([2.0 * text.count("b") for text in texts])
        >>> text = motes.Generation(model, "", reward=reward, max_tokens=6)
        >>> run = motes.sample(ResampleMove(text, temper=True), 100, seed=0, progress=False)
        >>> float(run.trace["temperature"][-1])
        1.0
    """

    generation: Generation
    sweeps: int
    temper: bool
    conditional_ess: float
    ladder: list[float] | None

    def __init__(
        self,
        generation: Generation,
        *,
        sweeps: int = 4,
        temper: bool = False,
        conditional_ess: float = 0.5,
        ladder: Sequence[float] | None = None,
    ):
        if not isinstance(generation, Generation):
            raise MotesError(f"ResampleMove rewrites the texts of a Generation, not of a {type(generation).__name__}")
        check_whole(1, sweeps=sweeps)
        check_share("(0, 1)", conditional_ess=conditional_ess)
        if temper and generation.reward is None:
            raise MotesError("temper lets the reward in by degrees, and this generation has none: give it a reward")
        constraint = generation.constraint
        if constraint is not None and generation.settings().get("lookahead"):
            if not constraint.recogniser(generation.model).full:
                raise MotesError(
                    f"texts whose {constraint.kind} is tested token by token cannot be written with lookahead and then "
                    "rewritten: their masses were not drawn as those of a rewrite are. Leave lookahead out"
                )
        if ladder is not None:
            ladder = [float(b) for b in ladder]
            if not temper or ladder != sorted(set(ladder)) or not ladder or ladder[0] <= 0 or ladder[-1] != 1:
                raise MotesError(f"a ladder goes with temper, and rises above 0 and ends with 1, unlike {ladder}")
        self.generation, self.sweeps, self.temper, self.conditional_ess, self.ladder = (
            generation,
            sweeps,
            temper,
            conditional_ess,
            ladder,
        )
        self.writer = generation
        if temper:
            self.writer: Generation = copy.copy(generation)
            self.writer.reward = None
        self.quantity = generation.quantity  # pyright: ignore[reportAttributeAccessIssue]
        self.references = (*generation.references, GILKS, *((TEMPERING,) if temper else ()))

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        particles = self.writer.init(rng, n)
        return replace(particles, shared={**particles.shared, "ladder": [], "left": self.sweeps})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        if self._writing(particles):
            particles = self.writer.step(rng, particles)
            return self._judged(particles) if self.writer.done(particles) else particles
        shared, ladder = particles.shared, particles.shared["ladder"]
        now, last = ladder[-1], shared["left"] == 1
        # chosen before the move, so that the weights at the next temperature come from other texts than chose it
        then = self._next(particles, now) if last and now < 1 else now
        x, info = self._rewritten(rng, particles, now)
        rise = then - now
        if rise:
            ladder = [*ladder, then]
        left = self.sweeps if rise else shared["left"] - 1
        gained = rise * x["provisional"] if rise else torch.zeros(particles.n, dtype=torch.float64)
        return particles.step(x, gained, shared={**shared, "ladder": ladder, "left": left}, info=info)

    def done(self, particles: Particles) -> bool:
        return particles.shared["left"] == 0

    # ---------------------------------------------------------------- their parts

    def _writing(self, particles: Particles) -> bool:
        """Whether the generation goes on (resampling can leave finished texts only, and then it has a step to go)."""
        return not particles.shared["ladder"]

    def _judged(self, particles: Particles) -> Particles:
        """The texts are written: with `temper` their rewards, and the first temperature."""
        shared, now = particles.shared, 1.0
        x, alive = particles.x, ~torch.isneginf(particles.log_weight)
        reward = torch.zeros(particles.n, dtype=torch.float64)
        if self.temper and alive.any():
            reward[alive] = self._reward(x, alive, particles.t)
        first = torch.where(alive, reward if self.temper else x["provisional"], -torch.inf)
        shared = {**shared, "written": {"worth": first, "root": particles.root}}
        if not self.temper:
            return replace(particles, shared={**shared, "ladder": [now]})
        particles = replace(particles, x={**x, "provisional": reward})
        now = self._next(particles, 0.0)
        weight = particles.log_weight + now * reward
        info = {**particles.info, "temperature": now}
        return replace(particles, log_weight=weight, shared={**shared, "ladder": [now]}, info=info)

    def _reward(self, x: dict[str, Any], which: Tensor, t: int) -> Tensor:
        """What the reward says of the texts `which` (N,) bool."""
        index, reward = torch.nonzero(which)[:, 0].tolist(), self.generation.reward
        if reward is None:
            return torch.zeros(len(index), dtype=torch.float64)
        return self.generation.account.ask(reward, TokenSequences.of(x), index, t)

    def _next(self, particles: Particles, now: float) -> float:
        """The temperature after `now`."""
        weight, reward = particles.log_weight, particles.x["provisional"]
        if self.ladder is not None:
            return self.ladder[len(particles.shared["ladder"])]
        if not ((weight > -math.inf) & (reward > -math.inf)).any():
            return 1.0  # nothing is left to choose by; the engine reports it
        then = next_temperature(weight, reward, now, self.conditional_ess)
        if not then > now:
            raise MotesError(
                f"the temperature cannot rise above {now!r} at t={particles.t}: rewards differ by more than "
                "their 16 digits hold; look for a reward of enormous size"
            )
        return then

    def _rewritten(self, rng: Rng, particles: Particles, now: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every text rewritten once, at the temperature `now`."""
        x, n = particles.x, particles.n
        length = x["length"]
        places = torch.arange(x["tokens"].shape[1]) < length[:, None]
        cut = rng.at("cut").categorical(torch.zeros(places.shape, dtype=torch.float64).masked_fill(~places, -torch.inf))
        new, mass, evaluated = self._written(rng, x, cut)
        whole = ~torch.isneginf(mass)
        new["provisional"] = torch.zeros(n, dtype=torch.float64)
        if whole.any():
            new["provisional"][whole] = self._reward(new, whole, particles.t + 1)
        ratio = mass - x["kept"].sum(1) + now * (new["provisional"] - x["provisional"])
        ratio = ratio + length.double().log() - new["length"].double().log()
        taken = rng.at("accept").bernoulli(ratio.clamp(max=0.0).exp())
        moved = taken & (new["tokens"] != x["tokens"]).any(1)
        after = {**x, "frontier": Closed(n)}
        for key in WRITTEN:
            after[key] = torch.where(taken if x[key].ndim == 1 else taken[:, None], new[key], x[key])
        info = {
            "acceptance": float(taken.double().mean()),
            "moved": float(moved.double().mean()),
            "distinct": len(torch.unique(torch.cat([after["length"][:, None], after["tokens"]], 1), dim=0)),
        }
        if self.temper:
            info["temperature"] = now
        return after, {**info, "evaluated": evaluated, "finished": 1.0}

    def _written(self, rng: Rng, x: dict[str, Any], cut: Tensor) -> tuple[dict[str, Any], Tensor, int]:
        """Texts that begin as those of `x` up to `cut` (N,) and go on anew, the log of their masses, the rows run."""
        blank = self.writer.init(rng.at("blank"), len(cut))
        draw = ConditionalDraw(FromLaw(self.writer.max_refused), x["tokens"], x["kept"], cut)
        new, mass, evaluated = write(rng, PrefixState.of(blank.x), blank.log_weight, draw, AtEnd())
        return new.leaves(), mass, evaluated + 1

    # ---------------------------------------------------------------- around them

    def must_resample(self, particles: Particles) -> bool | None:
        if self._writing(particles):
            return self.writer.must_resample(particles)
        return float(particles.log_weight.max()) > float(particles.log_weight.min())

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        if self._writing(particles):
            return self.writer.resampled(rng, scheme, particles)
        return super().resampled(rng, scheme, particles)

    def order(self, particles: Particles) -> Tensor:
        return self.generation.order(particles)

    def freeze(self, run: Run) -> ResampleMove:
        """The same model with the temperatures that `run` found: with another seed its normaliser is unbiased.

        Raises:
            MotesError: the run is no finished one of this model with `temper`.
        """
        mine = json.loads(json.dumps(self.settings()))
        if not self.temper or run.setup["model"] != type(self).__name__ or run.setup["settings"] != mine:
            raise MotesError("freeze needs a run of this very model, with temper=True")
        run = run.alone("freeze")
        if not self.done(run.particles):
            raise MotesError("the run has not ended: resume it, then freeze it")
        ladder = run.particles.shared["ladder"]
        return ResampleMove(
            self.generation, sweeps=self.sweeps, temper=True, conditional_ess=self.conditional_ess, ladder=ladder
        )

    def shows(self) -> str:
        return self.generation.shows()

    def view(self, particles: Particles) -> list[str]:
        """The texts, without their end token."""
        return self.generation.view(particles)

    def advice(self, particles: Particles) -> str:
        return self.generation.advice(particles)

    def standard_error(self, particles: Particles) -> StandardError | None:
        if "written" not in particles.shared:
            return None
        task, written = self.generation, particles.shared["written"]
        if (none := no_spread(task, particles)) is not None or task.reward is None:
            return none
        worth = torch.cat([written["worth"], particles.x["provisional"]])
        none = same_reward(task, worth[~torch.isneginf(worth)], particles)
        return none or reached_by_few(written["worth"], written["root"], particles)

    def progress(self, particles: Particles) -> float:
        """Half of it is the writing, and of the rest the temperature; it is not known how many there will be."""
        if self.done(particles):
            return 1.0
        if self._writing(particles):
            return 0.5 * self.writer.progress(particles)
        now, part = particles.shared["ladder"][-1], 1 - particles.shared["left"] / self.sweeps
        return 0.5 + 0.5 * (now * part if now == 1 else now)

    def restore(self, particles: Particles) -> Particles:
        return (self.writer if self._writing(particles) else self.generation).restore(particles)

    def settings(self) -> dict[str, Any]:
        return {
            **self.generation.settings(),
            "sweeps": self.sweeps,
            "temper": self.temper,
            "conditional_ess": self.conditional_ess,
            "ladder": self.ladder,
        }
