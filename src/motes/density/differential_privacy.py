"""Draws of a posterior that are released with differential privacy: pure or Gaussian, never approximate."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError
from motes.laws.law import Law, must_be_law
from motes.laws.parameters import Values
from motes.rng import Rng

DESCENTS = 3
ATTEMPTS = 1000
LONGEST = 100_000
SECRET = 48
"""Bits that a seed must have at least: all shorter ones can be tried. One in 65536 honest ones of 64 bits has fewer."""
SLACK = 256 * torch.finfo(torch.float64).eps
"""Rounding of f, relative to its size, that is no contradiction."""


@dataclass(frozen=True)
class Released:
    """What may be published, and what it costs.

    Attributes:
        values: the draws, as the user means them.
        epsilon: all of them together are epsilon-differentially private; infinite for a Gaussian guarantee.
        mu: all of them together are mu-Gaussian differentially private; infinite for a pure guarantee.
        distance: how far in W-infinity each draw before the noise is from an exact one, at most.
        sweeps: steps of the chain that certify it.
        noise: root mean square (pure: mean) length of the noise that was added to each draw.
    """

    values: Values
    epsilon: float
    mu: float
    distance: float
    sweeps: int
    noise: float


@dataclass(frozen=True)
class PrivateRelease:
    """Draws of a strongly log-concave density on a ball, perturbed so that privacy holds without an exact sampler.

    Approximate sample perturbation: let an exact draw from exp(-f) on the ball be private, and let a chain be within D
    of it in W-infinity: the two can be coupled so that they are never farther apart than D. Then the chain's draw plus
    noise is private: shifting the noise by at most D costs e1 where its density is proportional to exp(-|z| e1 / D), or
    D / s in Gaussian privacy where it is N(0, s^2 I), once for each of two neighbouring data sets. Altogether

        epsilon = 2 R G + 2 e1,                 mu = G / sqrt(a) + 2 D / s,

    for a ball of radius R, f a-strongly convex on it, and f - f' G-Lipschitz on it for neighbouring data sets: the
    first terms are those of the exact draw, by the exponential mechanism (the log-densities differ by the oscillation
    of f - f' at most) and by Gopi et al.'s theorem on Gaussian privacy.

    The chain is a proximal sampler: y ~ N(x, h I), then x from exp(-f(x) - |x - y|^2 / 2h) on the ball, exactly, by
    rejection from the Gaussian that strong convexity provides. Its invariant law is the density on the ball. Driven by
    the same y-noise two chains keep their distance in the first half; in the second W-infinity contracts by
    1 / (1 + a h), since perturbing a k-strongly log-concave law by an L-Lipschitz log-density moves it by at most L / k
    in W-infinity, here k = a + 1/h and L = |y - y'| / h. So K sweeps from the centre are within D = R (1 + a h)^-K. No
    constant is unknown, and smoothness only sets h = 1 / (smoothness dim), that is the speed.

    What the guarantee rests on, and cannot be checked here: that `convexity` and `lipschitz` hold for every data set
    and its neighbours. Points at which the density contradicts the constants raise an error, after which nothing may be
    published (the error itself tells of the data). Arithmetic is that of real numbers; the lowest bits of
    floating-point noise, and how long a run takes, can tell more. The seed is the secret: draw 64 bits from the
    operating system, never publish it or use it again; one below 2^48 is refused, since it could be guessed. The
    generator, good as it is, is no cipher.

    References:
        Lin, Ma, Wang, Redberg & Bu (2024), Tractable MCMC for private learning with pure and Gaussian differential
        privacy, ICLR (the perturbation; their chain is another).
        Gopi, Lee & Liu (2022), Private convex optimization via exponential mechanism, COLT.
        Lee, Shen & Tian (2021), Structured logconcave sampling with a restricted Gaussian oracle, COLT.
        Khudiakova, Maas & Pedrotti (2024), L-infinity-optimal transport of anisotropic log-concave measures and
        exponential convergence in Fisher's infinitesimal model, on L / k.
        Dong, Roth & Su (2022), Gaussian differential privacy, JRSS B 84(1).

    Args:
        density: with f minus its log-density in its unconstrained coordinates, up to a constant.
        radius: of the ball, which must not depend on the data.
        convexity: a > 0 with f - a |z|^2 / 2 convex on the ball, for every data set.
        smoothness: the gradient of f is Lipschitz on the ball with this constant.
        lipschitz: G, for f - f' on the ball and every pair of neighbouring data sets.
        centre: (dim,) of the ball; None is the origin. It must not depend on the data.

    Raises:
        MotesError: the law has no gradients, lives on whole numbers or is not float64; or a knob is out of its range.
    """

    density: Law
    _: KW_ONLY
    radius: float
    convexity: float
    smoothness: float
    lipschitz: float
    centre: Tensor | None = None

    def __post_init__(self) -> None:
        must_be_law(self.density)
        if self.density.levels is not None or not self.density.differentiable:
            raise MotesError("a certified private draw needs a density on R^d with gradients")
        if self.density.dtype != torch.float64:
            raise MotesError(
                f"a certified private draw needs a density with dtype=torch.float64, not {self.density.dtype}: its "
                "rounding would be taken for a contradiction of the constants"
            )
        if not (0 < self.convexity <= self.smoothness < math.inf and 0 < self.radius < math.inf):
            raise MotesError(
                "private release is certified for strongly convex and smooth f on a ball only: 0 < convexity <= "
                f"smoothness and 0 < radius, not {self.convexity}, {self.smoothness} and {self.radius}"
            )
        if not 0 <= self.lipschitz < math.inf:
            raise MotesError(f"lipschitz must be a finite number from 0 on, not {self.lipschitz}")
        if self.centre is not None and tuple(self.centre.shape) != (self.density.dim,):
            raise ShapeError(f"centre must have shape ({self.density.dim},), not {tuple(self.centre.shape)}")
        if self.centre is not None and not torch.isfinite(self.centre).all():
            raise MotesError(f"centre must be finite, not {self.centre.tolist()}")

    @property
    def exact_epsilon(self) -> float:
        """What one exact draw would cost, as pure privacy."""
        return 2 * self.radius * self.lipschitz

    @property
    def exact_mu(self) -> float:
        """What one exact draw would cost, as Gaussian privacy."""
        return self.lipschitz / math.sqrt(self.convexity)

    @property
    def step(self) -> float:
        """h, the variance of the first half of a sweep."""
        return 1 / (self.smoothness * self.density.dim)

    def draw(
        self, n: int = 1, *, seed: int, noise: float, epsilon: float | None = None, mu: float | None = None
    ) -> Released:
        """`n` draws for publication, together epsilon- or mu-private.

        Args:
            n: how many; pure privacy adds up (each costs epsilon / n), Gaussian by squares (each costs mu / sqrt(n)).
            seed: a secret that cannot be guessed: 64 bits drawn for this call only, as `secrets.randbits(64)` gives
                them. Whoever knows it can subtract the noise, so one that could have been guessed is refused.
            noise: the length of the noise that is tolerated on each draw; the smaller, the longer the chain.
            epsilon: the budget of pure privacy; or
            mu: the budget of Gaussian privacy.

        Raises:
            MotesError: the seed can be guessed, the budget is not above what exact draws cost, or the density
                contradicts the constants.
        """
        if (epsilon is None) == (mu is None) or n < 1 or not noise > 0:
            raise MotesError(f"give one of epsilon and mu, n >= 1 and noise > 0, not {epsilon}, {mu}, {n} and {noise}")
        rng = Rng(seed).at("private")
        if seed >> SECRET == 0:
            raise MotesError(
                f"a seed below 2^{SECRET} can be guessed, and who knows it can subtract the noise: draw a secret one "
                "for each release, seed=secrets.randbits(64), and never store or publish it"
            )
        d = self.density.dim
        pure = epsilon is not None
        each = epsilon / n if epsilon is not None else (mu or 0.0) / math.sqrt(n)
        spare = (each - (self.exact_epsilon if pure else self.exact_mu)) / 2
        if not spare > 0:
            least = n * self.exact_epsilon if pure else math.sqrt(n) * self.exact_mu
            raise MotesError(
                f"{n} exact draws cost {least:.4g} already, so the budget must be larger. Draw fewer, or temper the "
                "likelihood or shrink the ball, which lowers the sensitivity"
            )
        distance = min(noise * spare / (d if pure else math.sqrt(d)), self.radius)
        sweeps = self.sweeps(distance)
        z = self.walk(rng, n, sweeps)
        direction = rng.at("noise").normal((n, d))
        if pure:  # density proportional to exp(-|z| spare / distance)
            direction = direction / direction.norm(dim=1, keepdim=True)
            z = z + direction * rng.at("length").gamma((n, 1), float(d)) * (distance / spare)
        else:
            z = z + direction * (distance / spare)
        size = distance / spare * (d if pure else math.sqrt(d))
        values = self.density.constrain(z.to(self.density.dtype))
        total = (epsilon, math.inf) if epsilon is not None else (math.inf, mu or 0.0)
        return Released(values, *total, distance, sweeps, size)

    def sweeps(self, distance: float) -> int:
        """How many sweeps bring the chain to within `distance` of an exact draw, in W-infinity.

        Raises:
            MotesError: more than any patience.
        """
        need = math.ceil(math.log(self.radius / distance) / math.log1p(self.convexity * self.step))
        if need > LONGEST:
            raise MotesError(
                f"{need} sweeps would be needed to certify a distance of {distance:.3g}: allow more noise, or "
                "reparametrise so that smoothness / convexity is smaller"
            )
        return max(1, need)

    def walk(self, rng: Rng, n: int, sweeps: int) -> Tensor:
        """(n, dim) ends of chains of `sweeps` sweeps from the centre: not private.

        Raises:
            MotesError: the density contradicts the constants, or the ball is hardly ever hit.
        """
        d = self.density.dim
        centre = torch.zeros(d, dtype=torch.float64) if self.centre is None else self.centre.to(torch.float64)
        x = centre.expand(n, d)
        for k in range(sweeps):
            at = rng.at(f"sweep-{k}")
            y = x + math.sqrt(self.step) * at.at("forward").normal((n, d))
            x = self._back(at, y, centre)
        return x

    def _back(self, rng: Rng, y: Tensor, centre: Tensor) -> Tensor:
        """Exact draws from exp(-f(x) - |x - y|^2 / 2h) on the ball."""
        k, steep = self.convexity + 1 / self.step, self.smoothness + 1 / self.step
        base = self._into(y, centre)
        for _ in range(DESCENTS):  # any base is right; one near the minimum is accepted more often
            _, slope = self._f(base, True)
            base = self._into(base - (slope + (base - y) / self.step) / steep, centre)
        value, slope = self._f(base, True)
        tilt = slope + (base - y) / self.step
        middle, out = base - tilt / k, torch.empty_like(y)
        open_ = torch.arange(len(y))
        for attempt in range(ATTEMPTS):
            at = rng.at("back", inner=attempt).shard(open_)
            x = middle[open_] + at.normal((len(open_), y.shape[1])) / math.sqrt(k)
            inside = (x - centre).norm(dim=1) <= self.radius
            accept = torch.zeros_like(inside)
            if inside.any():
                i = open_[inside]
                off = x[inside] - base[i]
                there, square = self._f(x[inside], False)[0], off.square().sum(1)
                above = there - value[i] - (slope[i] * off).sum(1)  # f above its tangent
                self._contradiction(above, square, there.abs() + value[i].abs())
                log_rate = self.convexity / 2 * square - above
                uniform = at.at("accept").uniform((len(open_),))[inside]
                accept[inside] = uniform.log() < log_rate
            out[open_[accept]] = x[accept]
            open_ = open_[~accept]
            if not len(open_):
                return out
        raise MotesError(
            f"{len(open_)} draws found no place in the ball in {ATTEMPTS} attempts: most of the density's mass must be "
            "inside, so choose a larger ball or another centre (not by looking at the data)"
        )

    def _contradiction(self, above: Tensor, square: Tensor, size: Tensor) -> None:
        slack = SLACK * (1 + size)
        if float(slack.max()) > 1e-6 * self.smoothness * self.radius**2:
            raise MotesError(
                f"f is of size {float(size.max()):.3g}, in whose rounding its curvature is lost, so the constants "
                "cannot be checked and nothing may be released: subtract a constant from the log-likelihood"
            )
        if (above < self.convexity / 2 * square - slack).any():
            raise MotesError(
                f"f is not strongly convex with constant {self.convexity}: a point lies under its parabola, so there "
                "is no certificate and nothing may be released"
            )
        if (above > self.smoothness / 2 * square + slack).any():
            raise MotesError(f"f is not smooth with constant {self.smoothness}: a point lies above its parabola")

    def _into(self, x: Tensor, centre: Tensor) -> Tensor:
        off = x - centre
        return centre + off * (self.radius / off.norm(dim=1, keepdim=True).clamp_min(self.radius))

    def _f(self, x: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        state = self.density.evaluate(x.to(self.density.dtype), gradient)
        f = -(state["log_prior"] + state["log_likelihood"])
        if not (f < math.inf).all():
            raise MotesError("the density is zero somewhere in the ball, so it is not smooth there: no certificate")
        if not gradient:
            return f, f
        return f, -(state["prior_gradient"] + state["likelihood_gradient"]).to(torch.float64)
