"""A drift, fitted to the particles at each step, under which their weights vary less and their law stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError, ShapeError, check_at_least, check_name
from motes.rng import Rng

BASES = ("affine", "diagonal", "scale", "scores")
EXACT = 16
"""Up to this many dimensions a divergence is computed whole, one gradient a dimension; beyond, by one random probe."""


ENOUGH = 20
"""Particles a coefficient below which a run has no error bar."""


class Steer(NamedTuple):
    """A fitted drift: its coefficients (J,), its value like the states, and what it adds to the weights' rate (N,)."""

    coefficients: Tensor
    drift: Tensor
    rate: Tensor


@dataclass(frozen=True)
class DriftLite:
    """Variance-controlling drift: linear least squares over basis functions, on the particles of each step.

    If particles with drift b and log-weight rate h keep the laws gamma_t, then so do particles with drift b + u and
    rate h + div u + u . grad log gamma_t, whatever u is. Here u = sum_j c_j phi_j, with the coefficients that minimise
    the weighted variance of the new rate: none is left for normal laws and the affine basis.

    The new rate is as exact as the old one, in the limit of small steps. The coefficients are fitted to the particles
    that they move, which costs a bias in the normaliser of the order of coefficients / N: with 10 particles a
    coefficient one error bar in an example, with 32 none that 12 runs could see. (Fitted to one half of the particles
    and used for the other, drifts of curved functions ran away.) Below `ENOUGH` a run gives no error bar and says so.

    Args:
        basis: any of "affine" (all linear maps and shifts, for few dimensions), "diagonal" (a scale and a shift a
            coordinate), "scale" (one number, for any dimension); and "scores", the score of each model.
        functions: further basis functions (x (N, *shape), t) -> like x, built of torch operations: the gradient of a
            reward, say.
        ridge: what is added to the normal equations, relative to their trace.

    Raises:
        UnknownName: another basis.
        ValueError: nothing to fit with.
        ShapeError: a function returned another shape.

    References:
        Ren, Gao, Ying, Rotskoff & Han (2026), DriftLite: Lightweight Drift Control for Inference-Time Scaling of
        Diffusion Models, ICLR (variance-controlling guidance; the identity is derived here).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> from motes.diffusion.composing.composition import Composition
        >>> process = VariancePreserving()
        >>> model = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> control = DriftLite(("diagonal",))
        >>> calm = Composition([model], [2.0], 200, shape=(1,), control=control, dtype=torch.float64)
        >>> run = motes.sample(calm, 100, seed=1, progress=False)
        >>> float(run.log_weight.std()) < 1e-9  # nothing is left to vary for normal data
        True
    """

    basis: tuple[str, ...] = ("scale",)
    _: KW_ONLY
    functions: tuple[Callable[[Tensor, float], Tensor], ...] = ()
    ridge: float = 1e-14

    references: ClassVar[tuple[Reference, ...]] = (cited("ren2026driftlite", "the drift that calms the weights"),)

    def __post_init__(self) -> None:
        for name in self.basis:
            check_name("basis", name, BASES)
        if not self.basis and not self.functions:
            raise MotesError("give at least one basis or function")
        check_at_least(0, ridge=self.ridge)

    @property
    def scores(self) -> bool:
        """Whether the divergence of each model's score is needed."""
        return "scores" in self.basis

    def size(self, d: int, models: int) -> int:
        """The number of coefficients J, for states of d numbers."""
        linear = {"affine": d + d * d, "diagonal": 2 * d, "scale": 1}
        kept = next((linear[name] for name in linear if name in self.basis), 0)
        return kept + models * self.scores + len(self.functions)

    def fit(self, rng: Rng, t: float, x: dict[str, Tensor], score: Tensor, rate: Tensor, weight: Tensor) -> Steer:
        """The drift for these particles.

        Args:
            rng: for the divergences of functions in many dimensions.
            t: the time.
            x: "state", "scores" and, with that basis, "divergence".
            score: like the state, the gradient of log gamma_t.
            rate: (N,) the log-weight rate without control.
            weight: (N,) normalised.
        """
        centre = torch.einsum("n,n...->...", weight.to(x["state"]), x["state"])
        features, spread = self._features(x, t, centre, rng)
        flat = score.to(torch.float64).flatten(1).cpu()
        change = spread + torch.einsum("njd,nd->nj", features, flat)  # (N, J) what each function adds to the rate
        centred, aim = change - weight @ change, rate - weight @ rate
        scale = (weight @ centred.square()).sqrt().clamp(min=1e-150)
        centred = centred / scale
        gram = centred.T @ (weight[:, None] * centred)
        gram = gram + self.ridge * torch.eye(len(gram), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(gram)
        keep = values > 1e-13 * values[-1]  # directions that change nothing on these particles stay unused
        vectors = vectors[:, keep]
        solved = vectors @ ((vectors.T @ (centred.T @ (weight * -aim))) / values[keep])
        coefficients = solved / scale
        drift = torch.einsum("njd,j->nd", features, coefficients).reshape(score.shape).to(score)
        return Steer(coefficients, drift, change @ coefficients)

    def _features(self, particles: dict[str, Tensor], t: float, centre: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """(N, J, D) the basis functions and (N, J) their divergences, float64."""
        x = particles["state"]
        flat = (x.detach() - centre).to(torch.float64).flatten(1).cpu()
        n, d = flat.shape
        eye = torch.eye(d, dtype=torch.float64)
        columns, spread = [], []
        if set(self.basis) & {"affine", "diagonal"}:
            columns.append(eye.expand(n, d, d))
            spread.append(torch.zeros(n, d, dtype=torch.float64))
        if "affine" in self.basis:
            columns.append(torch.einsum("ij,nk->njki", eye, flat).reshape(n, d * d, d))  # x_k e_j
            spread.append(eye.flatten().expand(n, d * d))
        elif "diagonal" in self.basis:
            columns.append(torch.diag_embed(flat))
            spread.append(torch.ones(n, d, dtype=torch.float64))
        elif "scale" in self.basis:
            columns.append(flat[:, None])
            spread.append(torch.full((n, 1), float(d), dtype=torch.float64))
        if "scores" in self.basis:
            columns.append(particles["scores"].to(torch.float64).flatten(2).cpu())
            spread.append(particles["divergence"].to(torch.float64).cpu())
        for j, function in enumerate(self.functions):
            with torch.enable_grad():
                at = x.detach().requires_grad_(True)
                value = function(at, t)
                if value.shape != x.shape:
                    raise ShapeError(f"a basis function returned {tuple(value.shape)} for states {tuple(x.shape)}")
                trace = divergence(value, at, rng.at(f"function-{j}"))
            columns.append(value.detach().to(torch.float64).flatten(1).cpu()[:, None])
            spread.append(trace.detach().to(torch.float64).cpu()[:, None])
        return torch.cat(columns, dim=1), torch.cat(spread, dim=1)


def divergence(value: Tensor, x: Tensor, rng: Rng) -> Tensor:
    """(N,) the divergence of `value` (N, ...), computed from x row by row: exact up to EXACT dimensions.

    Beyond, Hutchinson's unbiased estimate from one probe of signs, whose noise the weights then carry.

    Args:
        value: like x; a constant has divergence zero.
        x: what requires a gradient.
        rng: the address of the probe.
    """
    if not value.requires_grad:
        return torch.zeros(len(x), dtype=x.dtype, device=x.device)
    d = x[0].numel()
    if d > EXACT:
        sign = torch.where(rng.uniform(tuple(x.shape)) < 0.5, -1.0, 1.0).to(x)
        (pulled,) = torch.autograd.grad(value, x, sign, retain_graph=True, allow_unused=True)
        return torch.zeros_like(sign).flatten(1).sum(1) if pulled is None else (pulled * sign).flatten(1).sum(1)
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i in range(d):
        pick = torch.zeros_like(x).flatten(1)
        pick[:, i] = 1.0
        (row,) = torch.autograd.grad(value, x, pick.reshape(x.shape), retain_graph=True, allow_unused=True)
        total = total if row is None else total + row.flatten(1)[:, i]
    return total
