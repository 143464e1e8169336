"""Products and powers of discrete diffusion models, with the weights that make them so."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.files.resuming import must_agree
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.diffusion.arguments import check_networks, falling_times
from motes.diffusion.discrete.draw import draw_rows
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import TokenProcess
from motes.diffusion.evaluation.checks import refuse
from motes.diffusion.sampler import StepSampler
from motes.diffusion.short import SHORT
from motes.errors import MotesError, check_name, plural
from motes.rng import Rng

CORRECTOR = cited("hasan2026", "annealing, guidance and products of token models")
WEIGHTS = ("auto", "exact", "rate")
START = 0.01
"""How much of the data may be left where a run by rates starts."""


@dataclass(frozen=True, eq=False)
class TokenComposition(StepSampler):
    """Sequences from the product of powers of discrete diffusion models, prod_i p_i(x)^w_i, weighted for it.

    One model and w = (beta,) is annealing, (1 - g, g) classifier-free guidance, (1, 1) a product of experts, (1 - w, w)
    guidance from a base model to a tuned one. With Omega = sum w_i, the log normaliser is that of the sum over
    sequences.

    "exact", for models that mask: places are filled one at a time in an order of each particle's own, from the product
    of the predictions, and the weight is the sum that normalises it: exact at any number of particles for models whose
    predictions are the conditionals of one law, and otherwise for the law that each order makes of them.

    "rate", for any process: a small step jumps from x to y at the rate Q(y, x) prod_i r_i^w_i, with r_i = q_i(y) /
    q_i(x) and Q(y, x) the noise's rate from y to x, while the log-weight grows at the rate

        (Omega - 1) sum_y Q(x, y) + sum_y Q(y, x) [prod_i r_i^w_i - sum_i w_i r_i],

    which follows from the masters' equation of prod_i q_i^w_i; its error falls with the steps.

    Args:
        models: of one process and length.
        exponents: w_i, one a model.
        steps: of "rate": the number of steps over the process's times, equal in the logarithm of the clock, or the
            falling times. "exact" takes as many steps as there are places.
        weights: "exact", "rate", or "auto": exact where the process only masks.

    Raises:
        ValueError: the models do not fit, or "exact" with a process that does not only mask.
        UnknownName: another rule for the weights.

    References:
        Hasan, Ohanesian, Gazizov, Bengio, Aspuru-Guzik, Bondesan, Skreta & Neklyudov (2026), Discrete Feynman-Kac
        Correctors, arXiv 2601.10403. The rate is derived here, and checked by integrating the weighted master equation.

    Example:
        >>> import torch, motes
        >>> from motes.diffusion.discrete import Masked, TokenComposition, joint
        >>> model = joint(Masked(2), torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
        >>> run = motes.sample(TokenComposition([model], [2.0]), 1000, seed=1, progress=False)
        >>> abs(run.log_evidence - (-1.0788)) < 0.05  # log(2 * 0.4^2 + 2 * 0.1^2)
        True
    """

    models: list[TokenModel] | tuple[TokenModel, ...]
    exponents: list[float] | tuple[float, ...]
    _: KW_ONLY
    steps: int | Tensor = 400
    weights: Literal["auto", "exact", "rate"] = "auto"
    times: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references: ClassVar[tuple[Reference, ...]] = (CORRECTOR,)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_name("weights", self.weights, WEIGHTS)
        if len(self.models) == 0 or len(self.models) != len(self.exponents):
            raise MotesError(f"give one exponent a model, not {len(self.exponents)} for {len(self.models)}")
        if any(not math.isfinite(w) for w in self.exponents):
            raise MotesError(f"exponents must be finite, not {list(self.exponents)}")
        first = self.models[0]
        if any(m.process != first.process or m.length != first.length for m in self.models):
            raise MotesError("the models must have one process and one length")
        if self.weights == "exact" and not first.process.keeps:
            raise MotesError(f'"exact" needs the process Masked, not {type(first.process).__name__}; use "rate"')
        times = falling_times(self.steps, lambda steps: _grid(self.process, steps))
        if not 0 <= float(times[-1]) < float(times[0]) <= self.process.t_max:
            raise MotesError(f"the times must lie in [0, {self.process.t_max}], not {times[0]:.4g} to {times[-1]:.4g}")
        if not self.exact and (left := float(self.process.alpha(times[0]))) > START:
            raise MotesError(
                f"at the first time, {times[0]:.4g}, {left:.2g} of the data is left: start where nothing is, since the "
                "weights take the start for pure noise"
            )
        check_networks(**{f"model {i + 1}": m for i, m in enumerate(self.models)})
        object.__setattr__(self, "times", times)

    @property
    def process(self) -> TokenProcess:
        """The process of all models."""
        return self.models[0].process

    @property
    def exact(self) -> bool:
        """Whether the weights are exact at any number of steps."""
        return self.weights == "exact" or (self.weights == "auto" and self.process.keeps)

    def init(self, rng: Rng, n: int) -> Particles:
        length = self.models[0].length
        tokens = self.process.start(rng, (n, length))
        if self.exact:
            order = rng.at("order").uniform((n, length)).argsort(1)
            zero = torch.zeros(n, dtype=torch.float64)
            return Particles.start({"tokens": tokens, "order": order}, zero, shared={"probe": self._probe()})
        law = self.process.stationary
        inside = law > 0
        # The start's own law against the target there, prod_i q_T^w_i = q_T^Omega.
        log_weight = (sum(self.exponents) - 1) * torch.log(law.where(inside, torch.ones_like(law)))
        start = log_weight[self.process.index(tokens)].sum(1)
        return Particles.start({"tokens": tokens}, start, shared={"probe": self._probe()})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        if self.exact:
            return self._fill(rng, particles)
        tokens, t = particles.x["tokens"], float(self.times[particles.t])
        gap = t - float(self.times[particles.t + 1])
        rates, h = self.rates(tokens, t)
        total = rates.sum(-1)
        jumps = rng.at("jump").uniform(tuple(tokens.shape)) < -torch.expm1(-gap * total)
        particle, place = jumps.nonzero(as_tuple=True)
        u = rng.at("token").uniform(tuple(tokens.shape))[particle, place]
        tokens = tokens.clone()
        tokens[particle, place] = self.process.tokens(draw_rows(u, torch.log(rates), particle, place))
        info = {"noise_level": 1 - float(self.process.alpha(self.times[particles.t + 1]))}
        return particles.step({"tokens": tokens}, gap * h, info=info)

    def rates(self, tokens: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The rates (N, L, S) of the jumps of each place, and the rate (N,) of the log-weight, per unit of t."""
        process = self.process
        index, speed = process.index(tokens), float(process.speed(t))
        matrix = process.matrix
        back = (speed * matrix.T[index]).scatter(-1, index[..., None], 0.0)  # Q(y, x)
        weighted, ratios = torch.zeros_like(back), []
        for model, w in zip(self.models, self.exponents, strict=True):
            with torch.no_grad():
                ratios.append(process.ratios(tokens, model(tokens, t), t))
            weighted = weighted + w * ratios[-1]
        log_ratio = torch.where(back > 0, torch.log(torch.stack(ratios)), 0.0)
        rates = torch.where(back > 0, back * self._powers(log_ratio, f"at t={t:.4g}").exp(), 0.0)
        leaves = -speed * matrix.diagonal()[index].sum(1)
        h = (sum(self.exponents) - 1) * leaves + (rates - torch.where(back > 0, back * weighted, 0.0)).sum((1, 2))
        return rates, h

    @property
    def last(self) -> int:
        return self.models[0].length if self.exact else len(self.times) - 1

    def view(self, particles: Particles) -> Tensor:
        """The sequences (N, L)."""
        return particles.x["tokens"]

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the models still say what they did.

        Raises:
            FileError: one of them has changed since.
        """
        for i, (now, then) in enumerate(zip(self._probe(), particles.shared["probe"], strict=True)):
            must_agree(f"answer of models[{i}]", now, then, "the model that began it", rows=False)
        return particles

    def remarks(self, particles: Particles) -> list[str]:
        if self.exact:
            return []
        text = (
            f"the weights are rates, taken over {plural(len(self.times) - 1, 'step')}, so that the normaliser has an "
            "error of the steps, which the run does not know: compare with twice as many"
        )
        return [Remark(text, ALL, withholds=len(self.times) <= SHORT)]

    def _probe(self) -> Tensor:
        """(M, 2, L, V) what the models predict of two fixed sequences, by which a file can tell them from others."""
        tokens = self.process.start(Rng(0).at("probe"), (2, self.models[0].length))
        tokens[:, ::2] = Rng(0).at("token").integers((2, len(tokens[0, ::2])), self.process.vocabulary)
        with torch.no_grad():
            said = [model(tokens, self.process.time(0.5)) for model in self.models]
        return torch.stack(said).to(torch.float64).exp()

    def _powers(self, log_p: Tensor, where: str) -> Tensor:
        """sum_i w_i log p_i of (M, N, ...): where a model with a positive exponent says 0, the product is 0.

        Raises:
            NanLogPotential: a model with a negative exponent says 0 where none of the others does: 1 / 0.
        """
        total, none = torch.zeros_like(log_p[0]), torch.zeros_like(log_p[0], dtype=torch.bool)
        for each, w in zip(log_p, self.exponents, strict=True):
            if w > 0:
                none |= each == -math.inf
            if w:  # else 0 log(0)
                total = total + w * each
        total = torch.where(none, -math.inf, total)
        bad = (total.isnan() | (total == math.inf)).flatten(1).any(1)
        refuse(
            bad,
            f"a model with a negative exponent excludes a token that the others allow {where}, and nothing has a "
            "normaliser there",
            "exponents, or mix that model with a little of the others",
        )
        return total

    def _fill(self, rng: Rng, particles: Particles) -> Particles:
        tokens, order = particles.x["tokens"], particles.x["order"]
        row, place = torch.arange(particles.n), order[:, particles.t]
        t = float(self.process.time((particles.t + 0.5) / tokens.shape[1]))
        said = []
        for model in self.models:
            with torch.no_grad():
                said.append(model(tokens, t)[row, place].to(torch.float64))
        law = self._powers(torch.stack(said), f"at place {particles.t + 1} of the order")
        mass = law.logsumexp(1)
        dead = mass == -math.inf
        law = law.where(~dead[:, None], torch.zeros_like(law))
        u = rng.at("token").uniform((particles.n,))
        tokens = tokens.clone()
        tokens[row, place] = draw_rows(u, law[:, None], row, torch.zeros_like(row))
        return particles.step({"tokens": tokens, "order": order}, mass)


def _grid(process: TokenProcess, steps: int) -> Tensor:
    """Falling times from t_max to t_min: where alpha stands still at an end, steps there are short."""
    if steps < 1:
        raise MotesError(f"a sampler needs at least 1 step, not {steps}")
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    last = max(process.t_min, 1e-4 * process.t_max)
    first = min(process.t_max, 1 - 1e-4)
    odds = math.log(first / (1 - first)), math.log(last / (1 - last))
    return torch.sigmoid(odds[0] + (odds[1] - odds[0]) * share)
