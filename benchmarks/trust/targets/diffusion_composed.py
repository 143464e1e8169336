"""Compositions of diffusion models known by their scores alone: a squared mixture, a product of two, in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from benchmarks.trust.mixtures import FUNCTIONS, Mixture
from benchmarks.trust.target import Job, Sampler, Target, Truth

from motes.diffusion import Composition, Denoiser, DriftLite, VariancePreserving

PROCESS = VariancePreserving()
RULES = {
    "transition, 40 steps": ("transition", 40, None),
    "transition, 100 steps": ("transition", 100, None),
    "rate, 200 steps": ("rate", 200, None),
    "rate with a control, 100 steps": ("rate", 100, DriftLite()),
    "energy, 40 steps": ("energy", 40, None),
}


def noised(law: Mixture) -> Mixture:
    """The law of the process's last time, which a composition is made of."""
    a, v = PROCESS.alpha(PROCESS.t_min), PROCESS.sigma(PROCESS.t_min) ** 2
    d = law.means.shape[1]
    return Mixture(law.log_weight, a * law.means, a**2 * law.covariances + v * torch.eye(d, dtype=torch.float64))


def product(one: Mixture, two: Mixture) -> Mixture:
    """The product of two mixtures, each pair of components a normal again."""
    parts = [
        Mixture(two.log_weight + w, two.means, two.covariances).measured(torch.eye(len(m), dtype=torch.float64), m, c)
        for w, m, c in zip(one.log_weight, one.means, one.covariances, strict=True)
    ]
    return Mixture(*(torch.cat(v) for v in zip(*((p.log_weight, p.means, p.covariances) for p in parts), strict=True)))


def target(name: str, title: str, laws: list[Mixture], exponents: list[float]) -> Target:
    d = laws[0].means.shape[1]

    def truth() -> Truth:
        return product(noised(laws[0]), noised(laws[-1])).truth()

    def sampler(rule: str, steps: int, control: DriftLite | None) -> Sampler:
        known = [law.denoiser(PROCESS) for law in laws]
        blind = [Denoiser(m.model, PROCESS, predicts="data") for m in known]

        def job(n: int, seed: int) -> Job:
            models = known if rule == "energy" else blind
            options = {"shape": (d,), "weights": rule, "control": control, "final": "state"}
            made = Composition(models, exponents, steps, **options)
            return Job(made, n, evaluations=lambda run: run.n * (steps + 1) * len(models))

        return job

    samplers: Mapping[str, Sampler] = {key: sampler(*setting) for key, setting in RULES.items()}
    return Target(name, title, truth, FUNCTIONS, samplers, domain="diffusion", sizes=(50, 512))


TARGETS = [
    *(
        target(f"diffusion-squared-{d}", f"Diffusion of a mixture in {d} d, squared", [Mixture.of(d)], [2.0])
        for d in (1, 4, 16)
    ),
    *(
        target(
            f"diffusion-product-{d}",
            f"Product of two diffusions of mixtures in {d} d",
            [Mixture.of(d), Mixture.of(d, 1)],
            [1.0, 1.0],
        )
        for d in (1, 4)
    ),
]
