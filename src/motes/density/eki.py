"""Ensemble Kalman inversion as the proposal of an exact sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.files.resuming import must_agree
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.density.annealing.tempering import Tempering
from motes.errors import MotesError, ShapeError, check_name, check_share, name_particles
from motes.kernels import Kernel
from motes.laws.fits.proposal import Mixture, Started, fit_mixture
from motes.laws.law import Law, must_be_law
from motes.laws.parameters import Values
from motes.rng import Rng

Forward = Callable[[Any], Tensor]
"""Maps the parameters of N points, as the user means them, to what would be observed without noise, (N, k)."""


@dataclass(frozen=True, eq=False)
class GaussianData:
    """Observed numbers with Gaussian noise: data = forward(parameters) + N(0, covariance); also their log-likelihood.

    Called with the parameters of N points it returns log N(data; forward(parameters), covariance), (N,) nats, so it is
    what `motes.Density` wants to have (with `vectorised=True`).

    Args:
        forward: maps the parameters of N points to (N, k).
        data: (k,).
        covariance: the noise's covariance (k, k), or its variances (k,) or one number.

    Raises:
        ShapeError: the shapes do not fit, or `covariance` is no covariance.
    """

    forward: Forward
    data: Tensor
    covariance: Tensor | float
    factor: Tensor = field(init=False, repr=False)
    constant: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        data = torch.as_tensor(self.data, dtype=torch.float64)
        noise = torch.as_tensor(self.covariance, dtype=torch.float64)
        if data.ndim != 1 or noise.ndim > 2 or any(s != len(data) for s in noise.shape):
            raise ShapeError(
                f"data must be (k,) and covariance one number, (k,) or (k, k), not {tuple(data.shape)} and "
                f"{tuple(noise.shape)}"
            )
        matrix = noise if noise.ndim == 2 else torch.diag(noise.expand(len(data)))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed or not torch.equal(matrix, matrix.T):
            raise ShapeError("covariance must be one: symmetric, with positive eigenvalues")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "factor", factor)
        constant = -float(factor.diagonal().log().sum()) - len(data) / 2 * math.log(2 * math.pi)
        object.__setattr__(self, "constant", constant)

    def misfit(self, values: Values) -> Tensor:
        """(N, k) float64: data minus forward(parameters), in coordinates in which the noise is N(0, I)."""
        out = self.forward(values)
        if not isinstance(out, Tensor) or out.ndim != 2 or out.shape[1] != len(self.data):
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ShapeError(
                f"forward must map N points to (N, {len(self.data)}), not {what}; write it for a batch, or wrap it in "
                "torch.func.vmap"
            )
        return torch.linalg.solve_triangular(self.factor, (self.data - out.double()).T, upper=False).T

    def __call__(self, values: Values) -> Tensor:
        return -0.5 * self.misfit(values).square().sum(1) + self.constant


@dataclass(frozen=True)
class EnsembleKalman(FeynmanKac):
    """Ensemble Kalman inversion finds where the posterior is; weights then make its Gaussian the exact posterior.

    The particles start as draws z of the prior. With g the forward model's values in coordinates in which the noise is
    N(0, I), and y the data in them, a step raises the temperature by h, which is a Kalman update with noise I / h:

        z += C_zg (C_gg + I / h)^-1 (y + eta / sqrt(h) - g),     C the ensemble's covariances, eta ~ N(0, I)
                                                                  (`form="perturbed"`), or
        the mean as above with eta = 0, and the deviations from it times (I + h D'D)^-1/2,     D = deviations of g over
                                                                  sqrt(N - 1)     (`form="transform"`),

    with h = max(k / (2 mean(Phi)), sqrt(k / (2 var(Phi)))), Phi = |y - g|^2 / 2, or what is left to 1 if that is less.
    For a linear forward model and a Gaussian prior it ends at the posterior of the ensemble's first two moments (the
    transform exactly so, for any N); for others at some Gaussian-like law, which it would be wrong to report.

    So at temperature 1 a mixture is fitted to the ensemble: a Student law with its mean, its covariance times
    inflate^2, and a share `defence` of the prior. Fresh particles are drawn from it. With `correct="weigh"` they get
    the weights posterior / mixture, and that is all; with `correct="temper"` Tempering goes from the mixture to the
    posterior, with moves.

    The forward model only shapes the proposal: the weights are those of `density`, whose likelihood may be any other.
    Weighed, the evidence is exactly unbiased, since the draws are independent given the mixture; tempered, it has the
    bias of order 1/N of an adaptive `Tempering`. Up to temperature 1 the population has no weights, its log evidence is
    0 and means nothing, and the trace tells of the inversion: "temperature", "misfit" (mean of 2 Phi / k, near 1 where
    the data are explained) and "spread" (the geometric mean of the standard deviations, relative to the prior's).

    References:
        Iglesias, Law & Stuart (2013), Ensemble Kalman methods for inverse problems, Inverse Problems 29(4), section 2.
        Iglesias & Yang (2021), Adaptive regularisation for ensemble Kalman inversion, Inverse Problems 37(2) (the
        step).
        Bishop, Etherton & Majumdar (2001), Adaptive sampling with the ensemble transform Kalman filter, Monthly Weather
        Review 129 (the transform).

    Args:
        density: what to sample, on R^d.
        data: the forward model, the data and their noise.
        form: "transform" (deterministic) or "perturbed" (with perturbed data).
        steps: of the inversion, all of one size; "auto" chooses them as said.
        correct: "temper" or "weigh".
        kernel: of the tempering, see `Tempering`.
        inflate: the factor of the fitted standard deviations, at least 1.
        freedom: degrees of freedom of the mixture's Student law; infinity is a Gaussian.
        defence: the share of the prior in the mixture, in [0, 1).

    Raises:
        MotesError: the density is discrete; the forward model is not finite; the ensemble has collapsed.
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.density.eki import EnsembleKalman, GaussianData
    >>> times = torch.linspace(0, 1, 8, dtype=torch.float64)
    >>> data = GaussianData(lambda x: x[:, :1] * torch.exp(-x[:, 1:] * times), 2 * torch.exp(-times), 0.01)
    >>> prior = torch.distributions.Normal(torch.ones(2, dtype=torch.float64), 1.0)
    >>> run = motes.sample(EnsembleKalman(motes.Density(data, prior), data), 256, seed=0, progress=False)
    >>> bool((run.mean().value - torch.tensor([2.0, 1.0])).abs().max() < 0.2)
    True
    """

    density: Law
    data: GaussianData
    _: KW_ONLY
    form: Literal["transform", "perturbed"] = "transform"
    steps: int | Literal["auto"] = "auto"
    correct: Literal["temper", "weigh"] = "temper"
    kernel: Kernel | str | None = None
    inflate: float = 1.2
    freedom: float = 8.0
    defence: float = 0.05

    def __post_init__(self) -> None:
        must_be_law(self.density)
        if self.density.levels is not None:
            raise MotesError("EnsembleKalman moves on R^d, and this law is discrete: use Tempering")
        check_name("form", self.form, ("transform", "perturbed"))
        check_name("correction", self.correct, ("temper", "weigh"))
        few = self.steps != "auto" and (not isinstance(self.steps, int) or self.steps < 1)
        if few or not (self.inflate >= 1 and self.freedom > 0):
            raise MotesError(
                f"need steps >= 1 or 'auto', inflate >= 1 and freedom > 0, not {self.steps!r}, {self.inflate} and "
                f"{self.freedom}"
            )
        check_share("[0, 1)", defence=self.defence)
        object.__setattr__(self, "kernel", Tempering(self.density, kernel=self.kernel).kernel)

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        more = Tempering(self.density, kernel=self.kernel).references if self.correct == "temper" else ()
        return (*REFERENCES, *more)

    def init(self, rng: Rng, n: int) -> Particles:
        if n < 3:
            raise MotesError(f"an ensemble needs at least 3 particles to have a covariance, not {n}")
        x = self._state(self.density.sample(rng.at("prior"), n))
        shared = {"stage": "invert", "temperature": 0.0, "spread": _log_scale(x["position"]), "fit": {}, "inner": {}}
        return Particles.start(x, torch.zeros(n, dtype=torch.float64), shared=shared, info=self._info(x, shared))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared = particles.shared
        if shared["stage"] == "correct":
            inner = self._tempering(shared).step(rng, replace(particles, shared=shared["inner"]))
            return replace(inner, shared={**shared, "inner": inner.shared})
        if shared["temperature"] == 1.0:
            return self._correction(rng, particles)
        x, now = particles.x, shared["temperature"]
        h = self._increment(x["misfit"], now, particles.t)
        z = _update(rng, x["position"], x["misfit"], h, self.form)
        # the last of equal steps arrives at 1 whatever rounding did
        shared = {**shared, "temperature": 1.0 if now + h > 1 - 1e-12 else now + h}
        x = self._state(z)
        return particles.step(x, torch.zeros_like(particles.log_weight), shared=shared, info=self._info(x, shared))

    def done(self, particles: Particles) -> bool:
        shared = particles.shared
        return shared["stage"] == "weighed" or (shared["stage"] == "correct" and shared["inner"]["final"])

    def must_resample(self, particles: Particles) -> bool | None:
        """The ensemble has no weights, so that resampling it would only lose members."""
        return False if particles.shared["stage"] == "invert" else None

    def _state(self, z: Tensor) -> dict[str, Tensor]:
        misfit = self.data.misfit(self.density.constrain(z))
        bad = (~torch.isfinite(misfit).all(1)).nonzero().flatten().tolist()
        if bad:
            raise MotesError(
                f"forward is not finite for {name_particles(bad)}; the first of them is at {z[bad[0]].tolist()}. It "
                "must be defined wherever the prior is; bound the parameter, or choose a narrower prior"
            )
        return {"position": z, "misfit": misfit}

    def _info(self, x: dict[str, Tensor], shared: dict[str, Any]) -> dict[str, float]:
        return {
            "temperature": shared["temperature"],
            "misfit": float(x["misfit"].square().mean()),
            "spread": math.exp(_log_scale(x["position"]) - shared["spread"]),
            "evaluations": 1.0,
        }

    def _increment(self, misfit: Tensor, now: float, t: int) -> float:
        if self.steps != "auto":
            return min(1.0 / self.steps, 1.0 - now)
        phi, half = 0.5 * misfit.square().sum(1), 0.5 * misfit.shape[1]
        h = max(half / float(phi.mean()), math.sqrt(half / max(float(phi.var()), 1e-300)))
        if now + h == now:
            raise MotesError(
                f"the temperature cannot rise above {now!r} at t={t + 1}: the data are too far from all that forward "
                "gives; look for noise in wrong units, or give the number of steps"
            )
        return min(h, 1.0 - now)

    def _correction(self, rng: Rng, particles: Particles) -> Particles:
        """Fresh particles from the fitted mixture, with weights to the posterior or at the start of tempering."""
        z, n = particles.x["position"], particles.n
        even = torch.full((n,), 1 / n, dtype=torch.float64)
        fit = fit_mixture(rng.at("fit"), z, even, freedom=self.freedom)
        if fit is None:
            raise MotesError(
                f"the ensemble has collapsed to one value of a coordinate at t={particles.t}: use more particles"
            )
        fit = replace(fit, factor=self.inflate * fit.factor)
        shared = {**particles.shared, "fit": fit.state()}
        if self.correct == "temper":
            inner = self._tempering(shared).init(rng.at("start"), n)
            shared |= {"stage": "correct", "inner": inner.shared}
            return replace(inner, t=particles.t + 1, shared=shared)
        law = self._started(shared)
        x = law.evaluate(law.sample(rng.at("start"), n))
        shared |= {"stage": "weighed"}
        return particles.step(x, x["log_likelihood"], shared=shared, info={"temperature": 1.0, "evaluations": 1.0})

    def _started(self, shared: dict[str, Any]) -> Started:
        return Started(self.density, Mixture(**shared["fit"], freedom=self.freedom), share=self.defence)

    def _tempering(self, shared: dict[str, Any]) -> Tempering:
        return Tempering(self._started(shared), kernel=self.kernel)

    def view(self, particles: Particles) -> Values:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the forward model and the density still say of them what their file says.

        Raises:
            FileError: the data, the forward model, the likelihood or the prior have changed since.
        """
        x, shared = particles.x, particles.shared
        if shared["stage"] != "invert":
            return Tempering(self._started(shared), kernel=self.kernel).restore(particles)
        now, mend = self._state(x["position"])["misfit"], "the forward model and the data that began it"
        must_agree("misfit", now, x["misfit"], mend, rtol=1e-4, atol=1e-4)
        return particles

    def order(self, particles: Particles) -> Tensor:
        x = particles.x
        if self.density.dim == 1:
            return x["position"][:, 0]
        return x["misfit"].square().sum(1) if "misfit" in x else x["log_likelihood"]

    def progress(self, particles: Particles) -> float:
        shared = particles.shared
        if shared["stage"] == "correct":
            inner = replace(particles, shared=shared["inner"])
            return 0.5 + 0.5 * self._tempering(shared).progress(inner)
        return 0.5 * shared["temperature"] if shared["stage"] == "invert" else 1.0


def _update(rng: Rng, z: Tensor, misfit: Tensor, h: float, form: str) -> Tensor:
    """One Kalman update of the ensemble z (N, d) with temperature increment h; misfit (N, k) is y - g."""
    n, k = misfit.shape
    position = z.double()
    a, d = position - position.mean(0), misfit.mean(0) - misfit  # deviations of z and of g
    # D = U diag(s) V', so that C_zg (C_gg + I / h)^-1 = A' U s / (s^2 + 1 / h) V' / sqrt(N - 1)
    left, s, right = torch.linalg.svd(d / math.sqrt(n - 1), full_matrices=False)
    gain = (a.T @ left) * (s / (s.square() + 1 / h) / math.sqrt(n - 1)) @ right
    if form == "perturbed":
        eta = rng.at("perturb").normal((n, k)) / math.sqrt(h)
        return (position + (misfit + eta) @ gain.T).to(z)
    shrunk = a + left @ (((1 + h * s.square()).rsqrt() - 1)[:, None] * (left.T @ a))
    return (position.mean(0) + gain @ misfit.mean(0) + shrunk).to(z)


def _log_scale(z: Tensor) -> float:
    return float(z.double().std(0).log().mean())


REFERENCES = (cited("iglesias2013", "ensemble Kalman inversion"), cited("iglesias2021", "the steps of the inversion"))
