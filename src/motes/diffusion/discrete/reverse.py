"""Sampling tokens as a Feynman-Kac model: a chain that undoes the noise, and a reward that tilts its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.remark import ALL, MEANS, Remark
from motes.diffusion.arguments import check_networks, falling_times
from motes.diffusion.discrete import stale
from motes.diffusion.discrete.draw import draw, draw_rows
from motes.diffusion.discrete.guidance import Guides, TokenGuidance, as_guidance
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.posterior import Posterior
from motes.diffusion.discrete.process import MASK, Masked, TokenProcess
from motes.diffusion.discrete.step import StepRule, TokenContext
from motes.diffusion.evaluation.checks import EARLY, checked_reward, refuse
from motes.diffusion.evaluation.intermediate_reward import POTENTIALS, Schedule, strengths
from motes.diffusion.sampler import StepSampler
from motes.errors import MotesError, ShapeError, WrongType, check_at_least, check_name, plural
from motes.rng import Rng

STEERING = cited("singhal2025", "the intermediate rewards")


@dataclass(frozen=True, eq=False)
class ReverseDiscrete(StepSampler):
    """Sequences of a discrete diffusion model, tilted by exp(reward) and weighted for it.

    The chain of a rule (`Posterior`: all places at once) starts from noise and ends in a sequence x_0; the particles
    target its law tilted by exp(reward(x_0)), with normaliser E[exp(reward(x_0))] under that chain: exactly, at any
    number of steps and of particles, whatever the guidance. How far the chain's law is from the model's is a matter of
    the rule: nothing for `Ordered` with one place a step, otherwise see `parallel_cost`. For `Posterior` of a masked
    model the run tells what half as many steps would change (`stale.py`), and the error bar carries it; for other rules
    that err the normaliser is named for the chain, and a remark doubts it.

    Args:
        model: the model, of the process that it undoes.
        steps: the number of steps K over the process's times, or the falling times (K + 1,).
        reward: maps sequences (N, L) int64 to (N,) nats; on the way it is asked about completions drawn from the
            prediction. It must be finite there; at the end -inf excludes a sequence.
        guidance: what tilts the laws that a step draws from: None; "reward" (`LocalReward`), a number multiplies it; a
            function (tokens, t) to tilts (N, L, V); or a `TokenGuidance`. The weights make up for it exactly.
        rule: how a step draws: `Posterior`, `TauLeap`, `Remask`, `Ordered`, `Routed`.
        given: (L,) int64, tokens that are there from the start, -1 at the places to be filled; masked models only.
        schedule: how much of the predicted reward counts on the way: "signal" is alpha(t), else see
            `diffusion.evaluation.intermediate_reward.strengths`.
        potential: "difference", "max" or "sum", see `diffusion.evaluation.intermediate_reward.POTENTIALS`.
        completions: how many completions the predicted reward is a log-mean-exp of.
        twist: a better guess of what a path is worth before its end, (tokens, t) to (N,) nats; it counts in full.
        device: of tokens and model; weights are float64 on the CPU.

    Raises:
        NanLogPotential: the model, the reward or guidance returned NaN, +inf, or -inf on the way; names particles.
        ShapeError, UnknownName, ValueError: what was given does not fit.

    References:
        Singhal et al. (2025), arXiv 2501.06848 (potentials). Wu, Trippe, Naesseth, Blei & Cunningham (2023), NeurIPS,
        section 3 (weights of guided transitions; here ratios of products of categorical laws).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion.discrete import Masked, Ordered, ReverseDiscrete, joint
        >>> process = Masked(2)
        >>> exact = joint(process, torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
        >>> model = ReverseDiscrete(exact, 2, reward=lambda x: 2.0 * x[:, 0], rule=Ordered())
        >>> run = motes.sample(model, 1000, seed=1, progress=False)  # log E[exp(2 x)] = log((1 + e^2) / 2) = 1.434
        >>> abs(run.log_evidence - 1.434) < 0.1
        True
    """

    model: TokenModel
    steps: int | Tensor
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor] | None = None
    guidance: Guides | None = None
    rule: StepRule = field(default_factory=Posterior)
    given: Tensor | None = None
    schedule: Schedule = "signal"
    potential: str = "difference"
    completions: int = 1
    twist: Callable[[Tensor, float], Tensor] | None = None
    device: str = "cpu"
    process: TokenProcess = field(init=False, repr=False)
    times: Tensor = field(init=False, repr=False)
    strength: Tensor = field(init=False, repr=False)
    free: Tensor = field(init=False, repr=False)
    guide: TokenGuidance | None = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        if not isinstance(self.model, TokenModel):
            raise WrongType(f"give a TokenModel(model, process, length), not a {type(self.model).__name__}")
        check_networks(model=self.model, reward=self.reward, twist=self.twist, guidance=self.guidance)
        object.__setattr__(self, "process", self.model.process)
        if not isinstance(self.rule, StepRule):
            raise WrongType(f"rule must be a rule such as Posterior() or Ordered(), not {self.rule!r}")
        if self.given is not None and not isinstance(self.given, Tensor):
            raise WrongType(f"given must be a tensor (L,) int64 with -1 at the places to fill, not {self.given!r}")
        check_name("potential", self.potential, POTENTIALS)
        check_at_least(1, completions=self.completions)
        guide = as_guidance(self.guidance)
        if self.reward is None and ((guide is not None and guide.needs_reward) or self.twist is not None):
            raise MotesError("a twist, and guidance by the reward, need the reward too")
        self.rule.check(self.process)
        times = falling_times(self.steps, self.process.times)
        if not self.process.t_min <= float(times[-1]) or not float(times[0]) <= self.process.t_max:
            raise MotesError(f"times must lie in [{self.process.t_min}, {self.process.t_max}]")
        signal = self.schedule == "signal"
        curve: Schedule = (lambda t: float(self.process.alpha(t))) if signal else self.schedule
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "strength", strengths(curve, self.process, times))  # type: ignore[arg-type]
        object.__setattr__(self, "free", self._free())
        object.__setattr__(self, "guide", guide)
        if self.rule.error(self.process, times, int(self.free.sum())) and not self._pairs:
            object.__setattr__(self, "quantity", f"log normaliser of the chain of {plural(len(times) - 1, 'step')}")
        guided = guide.references if guide is not None else ()
        used = (*self.rule.references, *((STEERING,) if self.reward is not None else ()), *guided)
        object.__setattr__(self, "references", used)

    def init(self, rng: Rng, n: int) -> Particles:
        given, shape = self.given, (n, self.model.length)
        tokens = self.process.start(rng, shape) if given is None else given.expand(n, -1).clone()
        tokens = tokens.to(self.device)
        zero = torch.zeros(n, dtype=torch.float64)
        x = self._observe(rng, tokens, torch.zeros_like(tokens, dtype=torch.float64), 0)
        x["total"], x["history"] = self._total(x, 0, zero, zero + POTENTIALS[self.potential][1])
        x |= {"gap": zero} if self._pairs else {}
        return Particles.start(x, x["total"], shared={"probe": self._probe()}, info=self._info(x, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old = particles.t, particles.x
        context = self._context(old, k)
        move = self.rule.plan(rng, context)
        particle, place = move.where.nonzero(as_tuple=True)
        u = rng.at("token").uniform(tuple(context.tokens.shape)).to(self.device)[particle, place]
        log_law, log_ratio = move.log_law, torch.zeros(particles.n, dtype=torch.float64)
        if self.guide is None or not len(particle):
            state = draw_rows(u, log_law, particle, place)
            score = log_law[particle, place].gather(1, state[:, None])[:, 0].to(torch.float64)
        else:
            base = torch.log_softmax(log_law[particle, place].to(torch.float64), -1)
            guided = torch.log_softmax(base + self._tilt(context, particle, place, base), -1)
            rows = torch.arange(len(particle), device=base.device)
            state = draw_rows(u, guided[None], torch.zeros_like(rows), rows, names=particle)
            score = base[rows, state]
            log_ratio.index_add_(0, particle.cpu(), (score - guided[rows, state]).cpu())
        gap = self._gap(k, old, particle, place, state)
        tokens, scores = context.tokens.clone(), context.score.clone()
        tokens[particle, place] = self.process.tokens(state)
        scores[particle, place] = score
        if move.lost is not None:
            tokens, scores = torch.where(move.lost, MASK, tokens), torch.where(move.lost, 0.0, scores)
        tokens, scores = self.rule.settle(rng, context, tokens, scores)
        x = self._observe(rng, tokens, scores, k + 1)
        x["total"], x["history"] = self._total(x, k + 1, old["total"], old["history"])
        x |= gap
        return particles.step(x, x["total"] - old["total"] + log_ratio, info=self._info(x, k + 1))

    @property
    def last(self) -> int:
        return len(self.times) - 1

    def view(self, particles: Particles) -> Tensor:
        """The sequences (N, L): x_0 at the end; on the way completions, or the tokens where none were drawn."""
        return particles.x["filled"]

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward, by which sorted resampling orders the particles (zeros where it was not asked)."""
        return particles.x["reward"] if self.reward is not None else super().order(particles)

    def remarks(self, particles: Particles) -> list[str]:
        found = self.rule.error(self.process, self.times, int(self.free.sum()))
        if not found or not self._pairs:
            return [Remark(found, MEANS if self.reward is None else ALL)] if found else []
        return stale.doubts(particles.log_weight, particles.x["gap"], found) if self.done(particles) else []

    def standard_error(self, particles: Particles) -> StandardError | None:
        return unearned(particles, particles.x["reward"] if self.reward and self.done(particles) else None)

    def systematic(self, particles: Particles) -> Systematic | None:
        if not self._pairs or self.reward is None or not self.done(particles):
            return None
        return stale.systematic(particles.log_weight, particles.x["gap"], self.last)

    def restore(self, particles: Particles) -> Particles:
        """The particles, if model and reward still say of them what their file says.

        Raises:
            FileError: the model or the reward has changed since.
        """
        x = {k: v.to(self.device) if v.ndim > 1 else v for k, v in particles.x.items()}
        if self.reward is not None:
            now, then = self._probe()["reward"], particles.shared["probe"]["reward"]
            must_agree("reward of four fixed sequences", now, then, "the reward that began it", rows=False)
        if "log_p0" in x:
            now = self._predict(x["tokens"], particles.t)
            must_agree("prediction", now.exp(), x["log_p0"].exp(), "the model that began it")
        return replace(particles, x=x)

    # ---------------------------------------------------------------- what is known of the particles

    @property
    def _pairs(self) -> bool:
        """Whether two steps by one prediction are one of twice the length."""
        return isinstance(self.rule, Posterior) and isinstance(self.process, Masked) and self.last > 1

    def _gap(self, k: int, x: dict[str, Tensor], particle: Tensor, place: Tensor, state: Tensor) -> dict[str, Tensor]:
        """What particles carry for `stale`: at every second step the prediction, after it the log-ratio so far.

        Args:
            k, x: the step, and the particles before it.
            particle, place, state: (R,) what was drawn.
        """
        if not self._pairs:
            return {}
        if k % 2 == 0:
            return {"gap": x["gap"]} | ({"stale": x["log_p0"]} if k + 1 < self.last else {})
        old = torch.log_softmax(x["stale"][particle, place].to(torch.float64), -1)
        new = torch.log_softmax(x["log_p0"][particle, place].to(torch.float64), -1)
        rows = torch.arange(len(state), device=state.device)
        return {"gap": x["gap"].index_add(0, particle.cpu(), (old[rows, state] - new[rows, state]).cpu())}

    def _observe(self, rng: Rng, tokens: Tensor, score: Tensor, k: int) -> dict[str, Tensor]:
        """The prediction at time k, completions and their reward, and what they say that the path is worth."""
        last = k == self.last
        x = {"tokens": tokens, "score": score}
        if not last or float(self.times[-1]) > 0 or (self.process.masks and not self.rule.finishes):
            x["log_p0"] = self._predict(tokens, k)
        wanted = self._asks(k)
        values, filled = [], tokens
        for m in range(self.completions if wanted and not last else 1):
            now = self._filled(rng.at("complete", inner=m), x) if wanted or last or self._guides(k) else tokens
            filled = now if m == 0 else filled
            if wanted:
                values.append(self._reward(now, k))
        x["filled"] = filled
        x["reward"] = values[0] if wanted else torch.zeros(len(tokens), dtype=torch.float64)
        if self.twist is not None and not last:
            worth = checked_reward(self.twist(tokens, float(self.times[k])), len(tokens)).cpu()
            refuse(~torch.isfinite(worth), f"the twist is not finite at step {k}", "twist")
        elif wanted and not last:
            worth = torch.logsumexp(float(self.strength[k]) * torch.stack(values), 0) - math.log(len(values))
        else:
            worth = x["reward"]
        x["worth"] = worth
        return x

    def _asks(self, k: int) -> bool:
        """Whether the reward of a completion at time k counts."""
        return self.reward is not None and (k == self.last or (self.twist is None and float(self.strength[k]) != 0))

    def _guides(self, k: int) -> bool:
        """Whether guidance of the step that begins at time k looks at a completion."""
        return self.guide is not None and self.guide.needs_reward and float(self.strength[k + 1]) != 0

    def _predict(self, tokens: Tensor, k: int) -> Tensor:
        with torch.no_grad():
            return self.model(tokens, float(self.times[k]))

    def _filled(self, rng: Rng, x: dict[str, Tensor]) -> Tensor:
        """The tokens with what the noise hides drawn from the prediction."""
        tokens = x["tokens"]
        if "log_p0" not in x:
            return tokens
        if not self.process.keeps:
            return draw(rng, x["log_p0"])
        masked = tokens < 0
        return torch.where(masked, draw(rng, x["log_p0"], masked), tokens)

    def _reward(self, sequences: Tensor, k: int) -> Tensor:
        reward = self._ask(sequences)
        where = f"at step {k} of {self.last}"
        refuse(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if k < self.last:
            refuse(reward == -torch.inf, f"the reward is -inf {where}", EARLY)
        return reward

    def _ask(self, sequences: Tensor) -> Tensor:
        assert self.reward is not None
        reward = self.reward

        def rows(x: Tensor) -> Tensor:
            with torch.no_grad():
                return checked_reward(reward(x), len(x)).cpu()

        return in_parts(rows, self.model.micro_batch, sequences)

    def _context(self, x: dict[str, Tensor], k: int) -> TokenContext:
        known = {name: x[name] for name in ("tokens", "log_p0", "score", "filled", "reward")}
        return TokenContext(
            **known,
            free=self.free.to(self.device),
            t=float(self.times[k]),
            s=float(self.times[k + 1]),
            step=k,
            times=self.times,
            process=self.process,
            reward_of=None if self.reward is None else self._ask,
            strength=float(self.strength[k + 1]),
        )

    def _tilt(self, context: TokenContext, particle: Tensor, place: Tensor, base: Tensor) -> Tensor:
        """(R, C) finite tilts of the rows' laws; a mask among the states is not tilted."""
        if self.guide is None or (self.guide.needs_reward and context.strength == 0):
            return torch.zeros_like(base)
        tilt = self.guide(context, particle, place).detach().to(base)
        if tilt.shape != (len(base), self.process.vocabulary):
            raise ShapeError(f"guidance must return tilts of shape {(len(base), self.process.vocabulary)}")
        bad = ~torch.isfinite(tilt).all(1)
        if bool(bad.any()):
            marked = torch.zeros(len(context.tokens), dtype=torch.bool)
            marked[particle[bad].cpu()] = True
            refuse(marked, f"guidance is not finite at step {context.step + 1} of {self.last}", "guidance")
        return torch.nn.functional.pad(tilt, (0, base.shape[1] - tilt.shape[1]))

    def _total(self, x: dict[str, Tensor], k: int, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """The log-potential of each path up to time k, and the history that the next one needs."""
        worth = x.pop("worth")
        return (worth, history) if k == self.last else POTENTIALS[self.potential][0](worth, total, history)

    def _free(self) -> Tensor:
        """(L,) bool: the places that are not given."""
        length = self.model.length
        if self.given is None:
            return torch.ones(length, dtype=torch.bool)
        if not isinstance(self.process, Masked):
            raise MotesError("tokens can be given to masked models only; tilt others by a reward")
        if self.given.shape != (length,):
            raise ShapeError(f"given must have shape ({length},), not {tuple(self.given.shape)}")
        self.process.check(self.given[None])
        if bool((self.given >= 0).all()):
            raise MotesError("all tokens are given: leave some places masked, as -1")
        return self.given < 0

    def _probe(self) -> dict[str, Tensor]:
        """What the reward says of four fixed sequences, by which a file can tell it from others."""
        if self.reward is None:
            return {}
        sequences = Rng(0).at("probe").integers((4, self.model.length), self.process.vocabulary).to(self.device)
        return {"reward": self._ask(sequences)}

    def _info(self, x: dict[str, Tensor], k: int) -> dict[str, float]:
        masked = float((x["tokens"] < 0).to(torch.float64).mean())
        info = {"noise_level": 1 - float(self.process.alpha(self.times[k])), "masked": masked}
        return {**info, "reward": float(x["reward"].mean())} if self._asks(k) else info
