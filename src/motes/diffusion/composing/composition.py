"""Products of powers of diffusion models: annealing, classifier-free guidance, products, weighted for what they claim.

A sum of scores sum_i w_i s_i is the score of prod_i q_i^{w_i} at each noise level, but these laws are no noised
versions of each other, so a sampler that follows the sum ends elsewhere. Weights make up for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.remark import Remark
from motes.core.weights import normalise
from motes.diffusion.arguments import check_networks
from motes.diffusion.composing.calming_map import CalmingMap
from motes.diffusion.composing.composition_remarks import remarks
from motes.diffusion.composing.crosswise import by_half, rows
from motes.diffusion.composing.curvature import measured
from motes.diffusion.composing.driftlite import DriftLite
from motes.diffusion.composing.product import ModelProduct
from motes.diffusion.composing.step_doubling import begun, compare, estimate, most, told
from motes.diffusion.composing.step_weights import Grid, Ratio, backward_over_forward, dot, euler, tempered
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.evaluator import Evaluator
from motes.diffusion.evaluation.intermediate_reward import Schedule, strengths
from motes.diffusion.flows.coupling import tested
from motes.diffusion.processes.process import Process
from motes.diffusion.processes.transition import log_reference_over_guided, transitions
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.sampling.reverse import SAMPLER, Guides, as_guidance
from motes.errors import MotesError, WrongType, check_name
from motes.rng import Rng

CORRECTORS = cited("skreta2025", "the weights of a composition")
DISTILLED = cited("thornton2025", "the weights from log-densities")
RULES = ("auto", "energy", "transition", "rate", "none")


@dataclass(frozen=True, eq=False)
class Composition(ImageSampler):
    """Weighted samples of a product of powers of diffusion models, prod_i q_i(x)^{w_i}, perhaps tilted by exp(reward).

    The log normaliser is that of the product of the models' normalised densities at the process's last time t_min.
    Rules for the weights:

    - "energy": every model has a log-density. Exact for any number of steps and of particles: E[Z_hat] = Z.
    - "transition": from the models' own normal transitions, with the curvature of each log-density measured from the
      noise of the steps. For exponents that sum to 1 and a given curvature it weighs exactly for the composition of the
      discretised samplers, which comes to that of the laws as the steps shrink; for others each step ends with a map
      that calms the weights (`calming_map.CalmingMap`), and few steps are much nearer than with "rate".
    - "rate": the limit of small steps at any noise, with W = sum_i w_i
      (W - 1) div(f x) + g^2 / 2 (|sum_i w_i s_i|^2 - sum_i w_i |s_i|^2) a unit of time; coarse grids are off by nats.
    - "none": no weights, the sampler that follows the sum of scores: biased.

    "transition" and "rate" estimate their discretisation error (`discretisation`, and in the trace), the one from steps
    of twice the length along the same paths, the other from the weights of transitions along its own; where paths of
    many dimensions make that too noisy, from the mean weights of the steps alone, which is rougher.

    Args:
        denoisers: the models, all of the one process that is walked back.
        exponents: a number for each model; with "energy" also functions of the time. Their sum must be positive at all
            times; negative ones are allowed, but only if the product has a normaliser.
        steps: the number of steps K, equal in log(alpha / sigma), or the falling times (K + 1,).
        reward: maps images (N, *shape) to (N,) nats, as for `ReverseDiffusion`.
        guidance: what moves the means besides, as for `ReverseDiffusion`; the weights make up for it.
        shape: the shape of one image.
        weights: "auto" takes the first of "energy", "transition" (noise 1) and "rate" that the models allow; with a
            control, "rate".
        noise: a step's noise relative to the rule's own, which is the process's (the "target score") and for "energy"
            1 / sqrt(W) of it (the noise that a power W would have); any positive number has the same target.
        control: a drift that calms the weights, see `DriftLite`; for "rate", and worth it there if W is not 1.
        initial: (N, *shape) to (N,): sum_i w_i log q_i at t_max, where it is known; for "transition" and "rate", which
            otherwise take q_i to be the normal law that the process starts from.
        curvature: "measured", or a standard deviation of the data's details: minus the second derivative of each
            log-density is then taken to be 1 / (alpha^2 std^2 + sigma^2).
        schedule: how much of the predicted reward counts on the way, see `intermediate_reward.strengths`.
        final: the image is the "denoised" prediction at t_min (weighted over the models by exponent), or the "state"
            there, whose law is the composition's.
        micro_batch, dtype, device: as for `ReverseDiffusion`.

    Raises:
        MotesError: a rule that the models do not allow.
        NanLogPotential: a model or the reward returned something that is not finite; names particles and step.
        ShapeError, UnknownName, ValueError, TypeError: what was given does not fit.

    References:
        Skreta et al. (2025), ICML (rates; for any exponents, churn and process they are derived here).
        Thornton et al. (2025), AISTATS (log-densities).
        Bao, Li, Zhu & Zhang (2022), Analytic-DPM, ICLR (the variance of a transition from the mean curvature).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> from motes.diffusion.composing.composition import Composition
        >>> process = VariancePreserving()
        >>> model = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> squared = Composition([model], [2.0], 20, shape=(1,))  # the integral of N(x; 0, 1)^2
        >>> run = motes.sample(squared, 500, seed=1, progress=False)
        >>> abs(run.log_evidence + 0.5 * math.log(4 * math.pi)) < 0.1
        True
    """

    denoisers: Sequence[Denoiser]
    exponents: Sequence[float | Callable[[float], float]]
    steps: int | Tensor
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor] | None = None
    guidance: Guides | None = None
    shape: tuple[int, ...]
    weights: Literal["auto", "energy", "transition", "rate", "none"] = "auto"
    noise: float = 1.0
    control: DriftLite | None = None
    initial: Callable[[Tensor], Tensor] | None = None
    curvature: Literal["measured"] | float = "measured"
    schedule: Schedule = "signal"
    final: Literal["denoised", "state"] = "denoised"
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    process: Process = field(init=False, repr=False)
    rule: str = field(init=False)
    grid: Grid = field(init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        denoisers = tuple(self.denoisers)
        if not denoisers or not all(isinstance(d, Denoiser) for d in denoisers):
            raise WrongType("give a list of Denoiser(model, process, predicts=...), at least one")
        object.__setattr__(self, "process", denoisers[0].process)
        if foreign := [d.process for d in denoisers if d.process != self.process]:
            raise MotesError(f"models of one process compose, not of {self.process} and {foreign[0]}")
        if len(self.exponents) != len(denoisers):
            raise MotesError(f"{len(denoisers)} models need as many exponents, not {len(self.exponents)}")
        for kind, name, legal in (("rule", self.weights, RULES), ("final", self.final, ("denoised", "state"))):
            check_name(kind, name, legal)
        if not (math.isfinite(self.noise) and self.noise > 0):
            raise MotesError(f"noise must be positive, not {self.noise}: without noise no resampled particles separate")
        if self.curvature != "measured" and (isinstance(self.curvature, str) or not self.curvature >= 0):
            raise MotesError(f'curvature must be "measured" or a standard deviation >= 0, not {self.curvature!r}')
        steps = self.process.times(self.steps, "snr") if isinstance(self.steps, int) else self.steps
        if not float(self.process.sigma(steps[-1])) > 0:
            raise MotesError("the last time has no noise, so the last step has no law: end the grid before sigma = 0")
        times = transitions(self.process, steps, still=True).times
        table = torch.tensor(
            [[float(e(float(t))) if callable(e) else float(e) for e in self.exponents] for t in times],
            dtype=torch.float64,
        )
        if not float((power := table.sum(1)).min()) > 0:
            raise MotesError(f"the exponents must add to more than 0, or noise has no law: {table[0].tolist()}")
        check_networks(initial=self.initial)
        guidance = as_guidance(self.guidance)
        if self.reward is None and guidance is not None and guidance.value:
            raise MotesError("guidance by the reward needs a reward; give one, or a function (x, t)")
        rule = self._rule()
        flow = 1 / power[:-1] if rule == "energy" else torch.ones_like(power[:-1])
        grid = Grid(self.process, times, table, flow * self.noise**2, flow)
        object.__setattr__(self, "denoisers", denoisers)
        object.__setattr__(self, "guidance", guidance)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "rule", rule)
        strength = strengths(self.schedule, self.process, times)
        asked = (rule == "energy", self.control is not None and self.control.scores, rule != "none")
        models = ModelProduct(denoisers, grid, *asked, self.final)
        evaluator = Evaluator(models, self.reward, strength, guidance=guidance, micro_batch=self.micro_batch)
        object.__setattr__(self, "evaluator", evaluator)
        sources = {"none": (SAMPLER,), "energy": (SAMPLER, DISTILLED)}.get(rule, (SAMPLER, CORRECTORS))
        object.__setattr__(self, "references", sources + (self.control.references if self.control else ()))

    def _rule(self) -> str:
        known = all(d.has_log_density for d in self.denoisers)
        rule: str = self.weights
        if rule == "auto" and known and not self.control:
            rule = "energy"
        elif rule == "auto":
            rule = "transition" if self._plain else "rate"
        if rule == "energy" and not known:
            raise MotesError(
                'weights="energy" needs the log-density of every model, Denoiser(..., log_density=f); '
                '"transition" and "rate" do without'
            )
        if rule in ("transition", "rate") and any(callable(e) for e in self.exponents):
            raise MotesError("exponents that change with the time need log-densities: only weights='energy' has them")
        if rule == "transition" and self.noise != 1:
            raise MotesError('weights="transition" is for noise=1; "rate" and "energy" take any')
        if rule != "rate" and self.control:
            raise MotesError(
                f'a control is for weights="rate"; weights by "{rule}" vary less by themselves, or are none'
            )
        return rule

    def init(self, rng: Rng, n: int) -> Particles:
        exponent, d = float(self.grid.exponents[0].sum()), math.prod(self.shape)
        std = self.process.start_std / math.sqrt(exponent)
        noise = rng.at("start").normal((n, *self.shape), dtype=self.dtype).to(self.device)
        x = self._known(rng, std * noise, 0)
        if self.rule in ("transition", "rate"):
            x |= begun(x["state"], self.rule == "transition")
        log_start = -0.5 * dot(noise, noise) - 0.5 * d * math.log(2 * math.pi * std**2)
        if self.rule == "none":
            log_weight = torch.zeros(n, dtype=torch.float64)
        elif self.rule == "energy":
            log_weight = x["log_density"] - log_start + x["total"]
        elif self.initial:
            log_weight = self.initial(x["state"]).to(torch.float64).cpu() - log_start + x["total"]
        else:
            constant = (1 - exponent) * math.log(2 * math.pi * self.process.start_std**2) - math.log(exponent)
            log_weight = 0.5 * d * constant + x["total"]
        first = torch.full((2, len(self.denoisers)), self.process.start_std**-2, dtype=torch.float64)
        coupling = tested(self.denoisers, self.shape, self.dtype, self.device, self.micro_batch)
        shared = {**coupling, "curvature": first, "tails": torch.tensor(math.inf, dtype=torch.float64)}
        return Particles.start(x, log_weight, shared=shared, info=self._info(x, 0, 0.0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old, shared = particles.t, particles.x, dict(particles.shared)
        grid, state, weight = self.grid, old["state"], normalise(particles.log_weight)
        score, dt = grid.combined(k, old["scores"]), float(grid.times[k] - grid.times[k + 1])
        rate, curvature = grid.rate(k, old["scores"]), self._curvature(k, shared)
        each = by_half(curvature, particles.n)
        ratio = Ratio.at(grid, k, old["scores"], each)
        if self.rule == "rate":
            move = euler(grid, k, state, score)
        else:
            plain = self.rule != "energy" and self._plain
            move = ratio.move(state) if plain else tempered(grid, k, state, score, curvature[0])
        mean, steer = move.mean, None
        if self.control:
            steer = self.control.fit(rng.at("control"), float(grid.times[k]), old, score, rate, weight)
            mean, rate = mean + dt * steer.drift, rate + steer.rate
        xi = rng.at("noise").normal((particles.n, *self.shape), dtype=self.dtype).to(self.device)
        landed, width = mean + old.get("shift", 0.0) + rows(move.std, xi) * xi, move.std
        stretch = None
        if self.rule == "transition" and abs(float(grid.exponents[k].sum()) - 1) > 1e-9:
            stretch = CalmingMap.fit(grid, k, state, score, rate, weight)
            width = width * stretch.factor
        x = self._known(rng, stretch(landed) if stretch else landed, k + 1)
        crosswise, change = self.rule in ("transition", "rate"), x["scores"] - old["scores"]
        shared["curvature"], bound = measured(grid, k, state, weight, xi, change, width, crosswise)
        if xi.numel() >= 100:
            shared["tails"] = torch.minimum(shared["tails"], bound)
        if self.rule == "none":
            return particles.step(x, torch.zeros_like(weight), shared=shared, info=self._info(x, k + 1, 0.0))

        y, after = x["state"], grid.combined(k + 1, x["scores"])
        path = backward_over_forward(grid, k, state, landed, after, xi, move.std)
        if self.rule == "energy":
            gain = x["log_density"] - old["log_density"] + path
        elif self.rule == "transition":
            gain = path + (fine := ratio(state, y))
            if stretch:
                gain = gain + xi[0].numel() * torch.log(stretch.factor)
            compare(grid, k, old, x, ratio, each, fine)
        else:
            gain = dt * rate
            if "shift" in old:
                gain = gain + log_reference_over_guided(xi, old["shift"] / rows(move.std, xi))
            if self._plain:
                x["gap"] = old["gap"] + ratio(state, y) + path - gain
                x["rough"] = old["rough"] + ratio.total() - dt * rate
            else:  # transitions weigh the process's own noise only: the trapezoid's rule against that of left ends
                ends = grid.rate(k + 1, x["scores"]) - grid.rate(k, old["scores"])
                x["gap"] = x["rough"] = old["gap"] + 0.5 * dt * (weight @ ends)
        moved = particles.step(x, gain + x["total"] - old["total"], shared=shared)
        return replace(moved, info=self._info(x, k + 1, self.discretisation(moved)))

    @property
    def last(self) -> int:
        return self.grid.steps

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "weights": self.rule}

    def discretisation(self, particles: Particles) -> float:
        """An estimate of how far the log normaliser is off because steps are not infinitely small, nats; 0 if exact."""
        return self._steps_error(particles)[0]

    def systematic(self, particles: Particles) -> Systematic | None:
        """The error of the steps; None where weights are exact, or are none."""
        if self.rule in ("energy", "none"):
            return None
        error, noise = self._steps_error(particles)
        text = (
            f'the weights are by the rule "{self.rule}", exact as steps shrink: with {self.grid.steps} steps the '
            f"log normaliser is off by about {error:+.2g} nats, estimated along the paths; use more steps, or "
            "models with log-densities"
        )
        return Systematic(most(particles), max(0.0, abs(error) - 2 * noise), text)

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        """The particles under the weights that tell the error of the steps; None where that is not known."""
        if self.rule in ("energy", "none") or not self.done(particles):
            return None
        other = particles.log_weight + told(particles)
        return CoarseLevel(None, other, torch.arange(particles.n), 1.0)

    def _steps_error(self, particles: Particles) -> tuple[float, float]:
        """How far the log normaliser is off for the steps, nats, and the standard error of that."""
        if self.rule in ("energy", "none"):
            return 0.0, 0.0
        change, noise = estimate(particles)
        return (change if self.rule == "transition" else -change), noise

    def must_resample(self, particles: Particles) -> bool | None:
        return False if self.rule == "none" else None

    def standard_error(self, particles: Particles) -> StandardError | None:
        if self.rule == "none":
            return StandardError(math.nan, "", 'weights="none" has no weights; another rule corrects the samples')
        return None

    def remarks(self, particles: Particles) -> list[Remark]:
        """Which rule made the weights where that matters, and signs that the composition cannot be normalised."""
        systematic = self.systematic(particles)
        return remarks(
            particles,
            rule=self.rule,
            steps=self.grid.steps,
            systematic=systematic,
            error=0.0 if systematic is None else self.discretisation(particles),
            coefficients=self.control.size(math.prod(self.shape), len(self.denoisers)) if self.control else 0,
            rewarded=self.reward is not None,
        )

    def restore(self, particles: Particles) -> Particles:
        """The particles, or a FileError if a denoiser or the reward has changed since their file was written."""
        return self.evaluator.restored(particles, self.device)

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward, by which sorted resampling orders the particles."""
        return particles.x["reward"] if self.reward is not None else super().order(particles)

    def _known(self, rng: Rng, state: Tensor, k: int) -> dict[str, Tensor]:
        """What is known of states after k steps, with "total" (N,), the reward's part of their paths' log-weights."""
        x = self.evaluator(rng, state, k)
        first = {name: x[name] for name in ("state", "scores", "denoised", "reward")}
        return {**first, "total": self.evaluator.worth(x, k), **x}  # in the order of files

    @property
    def _plain(self) -> bool:
        """Whether steps are those that transitions can weigh."""
        return self.noise == 1 and self.control is None

    def _curvature(self, k: int, shared: dict[str, Tensor]) -> Tensor:
        """(2, M) minus the mean second derivative of each model's log-density at step k, for each half."""
        if self.curvature == "measured":
            return shared["curvature"]
        t = self.grid.times[k]
        value = 1 / (self.process.alpha(t) ** 2 * float(self.curvature) ** 2 + self.process.sigma(t) ** 2)
        return value.expand(2, len(self.denoisers))

    def _info(self, x: dict[str, Tensor], k: int, error: float) -> dict[str, float]:
        info = {"noise_level": float(self.process.sigma(self.grid.times[k]))}
        if self.rule in ("transition", "rate"):
            info["discretisation"] = error
        return {**info, "reward": float(x["reward"].mean())} if self.evaluator.asks(k) else info
