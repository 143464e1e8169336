"""Drifting: a field that moves samples of one law towards another, and generators of one step that follow it."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from motes.errors import MotesError, ShapeError, check_name, name_particles
from motes.learn.objective import Objective
from motes.rng import Rng

KERNELS = ("laplace", "gaussian")
FIELDS = ("conservative", "original")


@dataclass(frozen=True)
class Drift:
    """The field V = (shift towards data) - (shift towards the samples themselves): zero where both have one law.

    With distances r, a kernel k(r), Laplace's exp(-r / h) or the normal exp(-r^2 / 2 h^2), and samples y,

        original:      shift(x) = sum k (y - x) / sum k,
        conservative:  shift(x) = h^2 sum k (y - x) / sum k#,   k#(r) = int_r^inf s k(s) ds.

    The gradient of k#(|x - y|) is k (y - x), so the conservative shift is h^2 times the gradient of the logarithm of a
    density estimate with the kernel k#, which for Laplace's kernel is h (r + h) exp(-r / h). The original shift has a
    curl unless the kernel is normal, where k# = h^2 k and both are one. Exchanging data and samples changes V's sign.

    With finitely many samples V has a bias that vanishes as they become many; leaving a sample's own kernel out (`own`
    None) removes the largest part of it. Scales are in units of the data, or of the mean distance with `relative`.

    Args:
        kernel: "laplace" or "gaussian".
        field: "conservative" or "original".
        scales: the widths h; fields of several widths are brought to mean square 1 for each coordinate and averaged, so
            that no width drowns the others.
        relative: divide distances by the mean distance between samples and data.

    Raises:
        UnknownName: another kernel or field.
        ValueError: a width that is not positive, or none.

    References:
        Deng, Li, Li, Du & He (2026), Generative Modeling via Drifting, arXiv:2602.04770 (the original).
        Cheng (1995), Mean Shift, Mode Seeking, and Clustering, IEEE Trans. Pattern Anal. Mach. Intell. 17 (the kernel
        whose density estimate has a mean shift as its gradient).

    Example:
        >>> import torch
        >>> data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> Drift(kernel="gaussian")(torch.tensor([[0.0, 0.5]]), data, own=torch.tensor([[0.0, 0.5]]))
        tensor([[1., 0.]])
    """

    kernel: Literal["laplace", "gaussian"] = "laplace"
    _: KW_ONLY
    field: Literal["conservative", "original"] = "conservative"
    scales: tuple[float, ...] = (1.0,)
    relative: bool = False

    def __post_init__(self) -> None:
        check_name("kernel", self.kernel, KERNELS)
        check_name("field", self.field, FIELDS)
        if not self.scales or min(self.scales) <= 0:
            raise MotesError(f"scales must be positive widths, at least one, not {self.scales}")

    def __call__(self, x: Tensor, data: Tensor, own: Tensor | None = None) -> Tensor:
        """V (N, ...) at x (N, ...), towards data (M, ...), away from `own` (K, ...); None means the other rows of x.

        Raises:
            ShapeError: the shapes do not fit, or there is only one sample to compare with.
        """
        if x.shape[1:] != data.shape[1:] or (own is not None and own.shape[1:] != x.shape[1:]):
            raise ShapeError(f"samples {tuple(x.shape)} and data {tuple(data.shape)} differ in more than their number")
        if not len(data) or (len(x) < 2 if own is None else not len(own)):
            raise ShapeError("drifting compares with samples: it needs one of the data, and two of its own")
        at, towards, away = (z.flatten(1) for z in (x, data, x if own is None else own))
        near, far = distances(at, towards), distances(at, away)
        unit = float(near.detach().mean()) if self.relative else 1.0
        total = torch.zeros_like(at)
        for scale in self.scales:
            h = scale * unit
            force = self._shift(at, towards, near, h, False) - self._shift(at, away, far, h, own is None)
            if len(self.scales) > 1:
                force = force / force.detach().square().mean().sqrt().clamp(min=torch.finfo(force.dtype).tiny)
            total = total + force / len(self.scales)
        return total.reshape(x.shape)

    def _shift(self, x: Tensor, y: Tensor, r: Tensor, h: float, alone: bool) -> Tensor:
        """The shift of x towards y; logarithms keep a sample that is far from everything from 0 / 0."""
        log_k = -r / h if self.kernel == "laplace" else -0.5 * (r / h) ** 2
        if alone:
            log_k = log_k.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -math.inf)
        weight = torch.softmax(log_k, dim=1)
        if self.field == "conservative" and self.kernel == "laplace":
            weight = weight / (weight * (r / h + 1)).sum(1, keepdim=True)  # k# / h^2 = (r / h + 1) k
        return weight @ y - weight.sum(1, keepdim=True) * x


def distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) distances of rows; the gradient at distance zero is zero."""
    square = (x[:, None] - y[None]).square().sum(-1) if x.shape[1] <= 8 else crossed(x, y)
    apart = square > 0
    return torch.where(apart, torch.sqrt(torch.where(apart, square, 1.0)), 0.0)


def crossed(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances by one product of matrices, around the middle so that little is lost to cancellation."""
    middle = y.mean(0)
    x, y = x - middle, y - middle
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0.0)


@dataclass(frozen=True)
class Drifting(Objective):
    """Train a generator of one step: each sample should be where the drift would take it, |f(noise) - [f + V]|^2.

    The bracket is held fixed, so the gradient moves samples along V; the loss itself is the mean square of V for each
    coordinate, and zero where samples and data have one law. Noise and data of a batch are as many.

    Args:
        drift: the field.
        shape: of the noise of one sample; None is that of the data.

    References:
        Deng et al. (2026), Generative Modeling via Drifting, arXiv:2602.04770.
    """

    drift: Drift = Drift()
    _: KW_ONLY
    shape: tuple[int, ...] | None = None

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        data = batch[0]
        shape = tuple(data.shape) if self.shape is None else (len(data), *self.shape)
        x = network(rng.at("noise").normal(shape, dtype=data.dtype).to(data.device))
        if x.shape != data.shape:
            raise ShapeError(f"the generator makes samples {tuple(x.shape)}, the data are {tuple(data.shape)}")
        with torch.no_grad():
            goal = x + self.drift(x, data)
        return (x - goal).square().flatten(1).mean(1)


def flow(x: Tensor, data: Tensor, *, drift: Drift | None = None, steps: int = 100, rate: float = 0.5) -> Tensor:
    """Particles that move along the drift towards data, without any network.

    x <- x + rate V(x), where V looks at the particles themselves: deterministic, so all chance is in where they begin.
    The result is a sample of the data's law blurred by the kernel's finite width, not of the data's law.

    Args:
        x: (N, ...) where the particles begin.
        data: (M, ...).
        drift: the field; None is `Drift()`.
        steps: how many.
        rate: the share of the shift that is taken, in (0, 1].

    Raises:
        ValueError: a number of steps below 1 or a rate outside (0, 1].
        MotesError: a particle became NaN; names the particles.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> begin, data = Rng(0).normal((64, 1)), 3 + Rng(1).normal((64, 1))
        >>> bool((flow(begin, data, steps=50).mean() - data.mean()).abs() < 0.05)
        True
    """
    if steps < 1 or not 0 < rate <= 1:
        raise MotesError(f"need steps >= 1 and rate in (0, 1], not {steps}, {rate}")
    drift = drift or Drift()
    with torch.no_grad():
        for k in range(steps):
            x = x + rate * drift(x, data)
            bad = (~torch.isfinite(x)).flatten(1).any(1)
            if bool(bad.any()):
                who = name_particles(bad.nonzero().flatten().tolist())
                raise MotesError(f"step {k} of the flow: {who} are NaN or infinite; look at the data there")
    return x
