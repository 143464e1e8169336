"""Draw the figures of the documentation's pages on densities, each from runs of motes, into docs/images.

    python scripts/draw_density_plots.py [name ...]        about two minutes of one core for all; needs motes[report]

Same versions, same pictures: every run has a fixed seed. What the pages run is here once more, with more runs each.
"""

# ruff: noqa: T201

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Beta, HalfNormal, MultivariateNormal, Normal, Uniform

import motes
from motes.density import AMIS, PrivateRelease, WalkJump
from motes.density.annealing.ais import AnnealedImportanceSampling
from motes.density.annealing.data_annealing import DataAnnealing, evidence_path
from motes.density.annealing.persistent import PersistentSampling
from motes.density.annealing.waste_free import WasteFree
from motes.density.eki import EnsembleKalman, GaussianData
from motes.density.estimates.stein import stein_thinned
from motes.density.markov.parallel_tempering import ParallelTempering
from motes.density.nested.nested import NestedSampling
from motes.density.rare.cross_entropy import CrossEntropy
from motes.density.rare.splitting import Splitting
from motes.laws import From, Laplace, Pathfinder
from motes.laws.discrete import Discrete
from motes.report.style import PAPER, blank, styled
from motes.rng import Rng
from motes.statespace.particle_filter import BootstrapFilter
from motes.statespace.smc2 import SMC2

FOLDER = Path(__file__).parents[1] / "docs/images"
DOUBLE = torch.float64
MOST = 60_000
"""Bytes of a picture."""


def sample(model: motes.FeynmanKac, n: int, seed: int = 0, **more: object) -> motes.Run:
    return motes.sample(model, n, seed=seed, progress=False, **more)  # type: ignore[arg-type]


def panels(
    *titles: str, width: float = 640, height: float = 250, ratios: tuple[float, ...] = ()
) -> tuple[Figure, list]:
    figure = blank(width, height, PAPER)
    axes = figure.subplots(1, len(titles), width_ratios=ratios or None, squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    return figure, list(axes)


def truth(ax: Axes, value: float, what: str = "exact") -> None:
    ax.axhline(value, color=PAPER.ink, lw=1.0, ls=(0, (4, 3)), label=what, zorder=1)


def bars(ax: Axes, x: object, value: object, se: object, colour: str, label: str = "") -> None:
    """Dots with error bars of two standard errors."""
    ax.errorbar(x, value, 2 * np.asarray(se), fmt="o", ms=3.2, lw=1.0, color=colour, label=label or None, zorder=2)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- the models


def line() -> tuple[motes.Density, float]:
    """A polynomial of degree two through 24 points, and its log evidence."""
    x = torch.linspace(-1, 1, 24, dtype=DOUBLE)
    design = torch.stack([x**0, x, x**2], 1)
    y = 0.5 + 1.5 * x - x**2 + 0.3 * torch.cos(17 * x)
    prior = Normal(torch.zeros(3, dtype=DOUBLE), 2.0)
    density = motes.Density(lambda b: Normal(b @ design.T, 0.3).log_prob(y).sum(-1), prior, vectorised=True)
    covariance = 4 * design @ design.T + 0.09 * torch.eye(24, dtype=DOUBLE)
    return density, float(MultivariateNormal(torch.zeros(24, dtype=DOUBLE), covariance).log_prob(y))


def two_modes() -> tuple[motes.Density, float]:
    """Two Gaussians in four dimensions, and the weight of the one on the right."""
    centre, scale = torch.tensor([[-3.0], [3.0]], dtype=DOUBLE), torch.tensor([0.5, 1.0], dtype=DOUBLE)
    share = torch.tensor([0.7, 0.3], dtype=DOUBLE)

    def log_likelihood(x: Tensor) -> Tensor:
        return torch.logsumexp(share.log() + Normal(centre, scale[:, None]).log_prob(x[:, None]).sum(-1), 1)

    mass = share.log() + 4 * Normal(0.0, (16 + scale**2).sqrt()).log_prob(torch.tensor(3.0, dtype=DOUBLE))
    density = motes.Density(log_likelihood, Normal(torch.zeros(4, dtype=DOUBLE), 4.0), vectorised=True)
    return density, float(torch.softmax(mass, 0)[1])


def banana() -> motes.Density:
    """y ~ N(a + b^2, 1 / 2) was 2, with a, b ~ N(0, 1)."""
    prior = Normal(torch.zeros(2, dtype=DOUBLE), torch.tensor([1.0, 1.5], dtype=DOUBLE))
    return motes.Density(lambda x: -8 * (2 - x[:, 0] - x[:, 1] ** 2).square(), prior, vectorised=True)


def decay() -> tuple[motes.Density, GaussianData]:
    times = torch.linspace(0, 1.5, 10, dtype=DOUBLE)
    y = 1.6 * torch.exp(-1.8 * times) + 0.1 * torch.cos(9 * times)
    data = GaussianData(lambda p: p[:, :1].exp() * torch.exp(-p[:, 1:].exp() * times), y, 0.01)
    return motes.Density(data, Normal(torch.zeros(2, dtype=DOUBLE), 1.0), vectorised=True), data


def on_grid(density: motes.Density, a: Tensor, b: Tensor) -> Tensor:
    """(len(b), len(a)) the posterior's density, of sum 1."""
    points = torch.stack([g.flatten() for g in torch.meshgrid(a, b, indexing="xy")], 1)
    state = density.evaluate(points)
    return torch.softmax(state["log_prior"] + state["log_likelihood"], 0).view(len(b), len(a))


def contours(ax: Axes, density: motes.Density, a: Tensor, b: Tensor) -> None:
    """Around 50, 90 and 99 % of the posterior."""
    p = on_grid(density, a, b)
    order = p.flatten().sort(descending=True).values
    levels = sorted(float(order[int((order.cumsum(0) < mass).sum())]) for mass in (0.5, 0.9, 0.99))
    ax.contour(a, b, p, levels, colors=PAPER.muted, linewidths=0.8, zorder=1)


# ---------------------------------------------------------------------------------------------------- the figures


def tempering() -> Figure:
    """The marginal at some temperatures, particles against the exact law."""
    heads, tails = 26.0, 34.0
    density = motes.Density(lambda p: heads * p["p"].log() + tails * (-p["p"]).log1p(), {"p": Beta(1.0, 1.0)})
    seen: list[tuple[float, Tensor, Tensor]] = []

    def look(state: object) -> None:
        p = state.particles  # type: ignore[attr-defined]
        place = density.constrain(p.x["position"])["p"]  # type: ignore[index,call-overload]
        seen.append((p.info["temperature"], place, torch.softmax(p.log_weight, 0)))

    run = sample(motes.Tempering(density), 2048, callback=look)
    figure, (left, right) = panels("p at five inverse temperatures", "the ladder that the run chose", ratios=(1.7, 1))
    grid = torch.linspace(0.01, 0.99, 300, dtype=DOUBLE)
    edges = torch.linspace(0, 1, 61, dtype=DOUBLE)
    chosen = [seen[k] for k in np.linspace(0, len(seen) - 2, 5).round().astype(int)]
    for k, (b, place, weight) in enumerate(chosen):
        height = torch.histogram(place, edges, weight=weight).hist * 60
        base, scale = -1.6 * k, 0.22
        left.stairs(base + scale * height, edges, baseline=base, fill=True, color=PAPER.families[0], alpha=0.35)
        exact = Beta(1 + b * heads, 1 + b * tails).log_prob(grid).exp()
        left.plot(grid, base + scale * exact, color=PAPER.ink, lw=1.0, label="exact" if k == 0 else None)
        left.text(1.02, base, f"{b:.2g}", va="center", color=PAPER.muted, fontsize=9)
    left.set(yticks=[], xlabel="p", xlim=(0, 1.08), xticks=[0, 0.25, 0.5, 0.75, 1])
    left.grid(False)
    right.plot(run.trace["t"], run.trace["temperature"], "o-", ms=3.5, color=PAPER.families[0])
    right.set(xlabel="step", ylabel="inverse temperature", yscale="log", yticks=[0.02, 0.1, 0.5, 1])
    right.set_yticklabels(["0.02", "0.1", "0.5", "1"])
    right.minorticks_off()
    return figure


def chains() -> Figure:
    density = banana()
    a, b = torch.linspace(-3.5, 3.5, 90, dtype=DOUBLE), torch.linspace(-2.8, 2.8, 90, dtype=DOUBLE)
    figure, (left, right) = panels("300 draws of 64 chains", "E|b| of 16 chains, 16 seeds, ± 2 se")
    contours(left, density, a, b)
    x = sample(motes.Chains(density, draws=200), 64).draws(300)
    left.plot(x[:, 0], x[:, 1], "o", ms=2.6, alpha=0.6, mew=0, color=PAPER.families[0])
    left.set(xlabel="a", ylabel="b")
    fine = torch.linspace(-4, 4, 800, dtype=DOUBLE)
    exact = float((on_grid(density, 2 * fine, fine).sum(1) * fine.abs()).sum())
    truth(right, exact)
    for k, draws in enumerate((25, 100, 400)):
        found = [
            sample(motes.Chains(density, draws=draws), 16, seed).mean(lambda v: v[:, 1].abs()) for seed in range(16)
        ]
        x = np.arange(16) + 18 * k
        bars(
            right, x, [float(e) for e in found], [float(e.se) for e in found], PAPER.families[k], f"{draws} draws each"
        )
    right.set(xticks=[])
    right.legend(loc="upper right", fontsize=9)
    return figure


def evidence() -> Figure:
    density, exact = line()
    models: dict[str, motes.FeynmanKac] = {
        "Tempering": motes.Tempering(density),
        "WasteFree": WasteFree(density),
        "annealed importance": AnnealedImportanceSampling(density),
        "Persistent": PersistentSampling(density),
        "Nested": NestedSampling(density),
    }
    figure, (ax,) = panels("log evidence of 512 particles, 12 seeds each, ± 2 standard errors")
    truth(ax, exact)
    for k, (_name, model) in enumerate(models.items()):
        runs = [sample(model, 512, seed) for seed in range(12)]
        bars(
            ax,
            np.arange(12) + 15 * k,
            [r.log_evidence for r in runs],
            [r.log_evidence_se for r in runs],
            PAPER.families[k],
        )
        cost = np.mean([r.trace["evaluations"].sum() for r in runs])
        ax.text(
            15 * k + 5.5,
            0.02,
            f"{cost:.0f} evaluations\na particle",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=PAPER.muted,
            transform=ax.get_xaxis_transform(),
        )
    ax.set(
        xticks=[15 * k + 5.5 for k in range(len(models))], xticklabels=list(models), ylabel="nats", ylim=(-8.9, -7.3)
    )
    ax.legend(loc="upper left", fontsize=9)
    return figure


def modes() -> Figure:
    density, right_share = two_modes()
    models: dict[str, tuple[motes.FeynmanKac, int]] = {
        "Chains, 64 chains": (motes.Chains(density, draws=200), 64),
        "Tempering, 2048 particles": (motes.Tempering(density), 2048),
        "ParallelTempering, 16 x 8": (ParallelTempering(density, draws=400, rounds=5), 16),
    }
    figure, (left, right) = panels("first coordinate", "weight of the mode on the right, 6 seeds", ratios=(1, 1.5))
    grid = torch.linspace(-6, 7, 300, dtype=DOUBLE)
    scale = 1 / torch.tensor([1 / 0.25 + 1 / 16, 1 + 1 / 16], dtype=DOUBLE)
    at = torch.tensor([-3 / 0.25, 3.0], dtype=DOUBLE) * scale
    share = torch.tensor([1 - right_share, right_share], dtype=DOUBLE)
    edges = torch.linspace(-6, 7, 66, dtype=DOUBLE)
    truth(right, right_share)
    for k, (name, (model, n)) in enumerate(models.items()):
        runs = [sample(model, n, seed) for seed in range(6)]
        found = [r.mean(lambda x: (x[:, 0] > 0).double()) for r in runs]
        bars(
            right,
            np.arange(6) + 8 * k,
            [float(e) for e in found],
            [float(e.se) for e in found],
            PAPER.families[k],
            name,
        )
        height = torch.histogram(runs[0].draws(4000)[:, 0], edges, density=True).hist
        left.stairs(height, edges, color=PAPER.families[k], lw=1.4)
    exact = (share * Normal(at, scale.sqrt()).log_prob(grid[:, None]).exp()).sum(1)
    left.plot(grid, exact, color=PAPER.ink, lw=1.0, ls=(0, (4, 3)))
    left.set(xlabel="x[0]", ylabel="density")
    right.set(xticks=[], ylim=(-0.05, 1.5), yticks=[0, 0.25, 0.5, 0.75, 1])
    right.legend(loc="upper left", fontsize=9, ncols=2)
    return figure


def stream() -> Figure:
    """Data one by one: a mean and a spread, and a state-space model's parameter."""
    y = 1.0 + 0.8 * Rng(5).at("data").normal((40,), dtype=DOUBLE)
    prior = {"mean": Normal(0.0, 2.0), "sd": HalfNormal(2.0)}
    model = DataAnnealing(lambda p, y: Normal(p["mean"], p["sd"]).log_prob(y), prior, y)
    seen = []

    def look(state: object) -> None:
        p = state.particles  # type: ignore[attr-defined]
        w, x = torch.softmax(p.log_weight, 0), model.view(p)["mean"]  # type: ignore[index]
        mean = float(w @ x)
        seen.append((p.info["observations"], mean, float((w @ (x - mean) ** 2).sqrt())))

    run = sample(model, 1024, callback=look)
    t, mean, sd = (np.array(v) for v in zip(*seen, strict=True))
    figure, (left, middle, right) = panels(
        "posterior of the mean", "evidence so far", "SMC2: posterior of rho", ratios=(1.1, 1, 1)
    )
    left.plot(np.arange(40) + 1, y, "o", ms=2.8, mew=0, color=PAPER.other, label="data")
    left.plot(t, mean, color=PAPER.families[0], label="mean ± 2 sd")
    left.fill_between(t, mean - 2 * sd, mean + 2 * sd, color=PAPER.families[0], alpha=0.18, lw=0)
    left.set(xlabel="observations", ylim=(-4.2, 4.2))
    left.legend(loc="lower right", fontsize=9)
    count, log_z = evidence_path(run)
    middle.plot(count, log_z, color=PAPER.families[0])
    middle.set(xlabel="observations", ylabel="log p(y₁..yₜ), nats")
    small, exact = state_space()
    run = sample(small, 2048)
    grid, density = exact
    edges = torch.linspace(-1, 1, 31, dtype=DOUBLE)
    height = torch.histogram(run.view["rho"], edges, weight=run.weight).hist * 15  # type: ignore[index]
    right.stairs(height, edges, fill=True, color=PAPER.families[1], alpha=0.4, label="2048 particles")
    right.plot(grid, density, color=PAPER.ink, lw=1.0, label="exact (Kalman)")
    right.set(xlabel="rho", xlim=(-0.5, 1))
    right.legend(loc="upper left", fontsize=9)
    return figure


def state_space() -> tuple[SMC2, tuple[Tensor, Tensor]]:
    """An autoregression seen with noise; and the exact posterior of rho on a grid."""
    noise = Rng(3).at("state").normal((30,), dtype=DOUBLE)
    state = [noise[0] / 0.6]
    for e in noise[1:]:
        state.append(0.8 * state[-1] + e)
    y = torch.stack(state) + 0.5 * Rng(3).at("noise").normal((30,), dtype=DOUBLE)
    filters = BootstrapFilter(
        lambda rng, p, size: rng.normal((len(p["rho"]), size), dtype=DOUBLE) / (1 - p["rho"] ** 2).sqrt()[:, None],
        lambda rng, p, x, t: p["rho"][:, None] * x + rng.normal(tuple(x.shape), dtype=DOUBLE),
        lambda p, x, y, t: Normal(x, 0.5).log_prob(y),
        y,
    )
    grid, k = torch.linspace(-0.99, 0.99, 400, dtype=DOUBLE), torch.arange(30)
    covariance = grid[:, None, None] ** (k[:, None] - k).abs() / (1 - grid**2)[:, None, None] + 0.25 * torch.eye(30)
    value = MultivariateNormal(torch.zeros(30, dtype=DOUBLE), covariance).log_prob(y)
    return SMC2(filters, {"rho": Uniform(-0.99, 0.99)}), (grid, torch.softmax(value, 0) / (grid[1] - grid[0]))


def kalman() -> Figure:
    density, data = decay()
    stages = {}

    def look(state: object) -> None:
        p = state.particles  # type: ignore[attr-defined]
        stages[p.t] = (p.info["temperature"], model.view(p).clone())  # type: ignore[union-attr]

    model = EnsembleKalman(density, data)
    run = sample(model, 150, callback=look)
    end = next(t for t, (b, _) in stages.items() if b >= 1)
    kept = run.draws(150)
    figure, axes = panels("prior", f"inverted, after {end} steps", "weighed and moved")
    a, b = torch.linspace(0.2, 0.9, 45, dtype=DOUBLE), torch.linspace(0.1, 1.1, 45, dtype=DOUBLE)
    for ax, x, colour in zip(
        axes, (stages[0][1], stages[end][1], kept), (PAPER.other, *PAPER.families[:2]), strict=True
    ):
        contours(ax, density, a, b)
        ax.plot(x[:, 0], x[:, 1], "o", ms=2.4, mew=0, alpha=0.6, color=colour)
        ax.set(xlim=(-0.4, 1.2), ylim=(-0.6, 1.7), xlabel="log amplitude")
    axes[0].set(ylabel="log rate", xlim=(-3, 3), ylim=(-3, 3))
    return figure


def rare() -> Figure:
    normal = Normal(torch.zeros(2, dtype=DOUBLE), 1.0)
    law = motes.Density(lambda x: torch.zeros(len(x)), normal, vectorised=True)
    level = 4.5

    def far(x: Tensor) -> Tensor:
        return x.sum(1).abs() / math.sqrt(2)

    seen = []
    model = Splitting(law, far, level)

    def look(state: object) -> None:
        seen.append(model.view(state.particles)[:110].clone())  # type: ignore[attr-defined,index]

    sample(model, 1000, callback=look)
    figure, (left, right) = panels(
        "Splitting: populations at rising levels", "log probability, 10 seeds, ± 2 standard errors", ratios=(1, 1.3)
    )
    for k, (j, label) in enumerate(((0, "start"), (len(seen) // 2, "half way"), (len(seen) - 1, "end"))):
        left.plot(seen[j][:, 0], seen[j][:, 1], "o", ms=2.6, mew=0, alpha=0.75, color=PAPER.families[k], label=label)
    for sign in (-1, 1):
        left.plot([-7, 7], [sign * level * math.sqrt(2) + 7, sign * level * math.sqrt(2) - 7], color=PAPER.ink, lw=1.0)
    left.set(xlim=(-6, 6), ylim=(-6, 6), aspect="equal", xlabel="x[0]", ylabel="x[1]")
    left.legend(loc="upper left", fontsize=8.5, handletextpad=0.1)
    exact = math.log(math.erfc(level / math.sqrt(2)))
    truth(right, exact)
    models = {
        "Splitting": model,
        "CrossEntropy,\n1 component": CrossEntropy(law, performance=far, level=level),
        "CrossEntropy,\n2 components": CrossEntropy(law, performance=far, level=level, components=2),
    }
    for k, m in enumerate(models.values()):
        runs = [sample(m, 1000, seed) for seed in range(10)]
        bars(
            right,
            np.arange(10) + 13 * k,
            [r.log_evidence for r in runs],
            [r.log_evidence_se for r in runs],
            PAPER.families[k],
        )
    right.set(xticks=[13 * k + 4.5 for k in range(3)], xticklabels=list(models), ylabel="nats")
    right.legend(loc="upper right", fontsize=9)
    return figure


def ising() -> Figure:
    """Four by four spins on a torus against all 65536 states."""
    size = 4
    spins = (2 * ((torch.arange(2**16)[:, None] >> torch.arange(16)) & 1) - 1).to(DOUBLE).view(-1, size, size)

    def bonds(s: Tensor) -> Tensor:
        return (s * (s.roll(1, 1) + s.roll(1, 2))).sum((1, 2))

    energy, size_of = bonds(spins), spins.mean((1, 2)).abs()
    couplings = torch.linspace(0.05, 0.8, 60, dtype=DOUBLE)
    exact = torch.stack([torch.softmax(j * energy, 0) @ size_of for j in couplings])
    figure, (left, right) = panels(
        "mean |magnetisation| of 4 x 4 spins, ± 2 se", "log partition function less exact, ± 2 se"
    )
    left.plot(couplings, exact, color=PAPER.ink, lw=1.0, ls=(0, (4, 3)), label="all 65 536 states")
    truth(right, 0.0, "exact")
    at = torch.linspace(0.1, 0.75, 8, dtype=DOUBLE).tolist()
    for k, kernel in enumerate(("flip", "gibbs-with-gradients")):
        mean, log_z = [], []
        for j in at:
            law = Discrete(lambda x, j=j: j * bonds((2 * x - 1).view(-1, size, size)), dim=16)
            run = sample(motes.Tempering(law, kernel=kernel), 1024, seed=10 * k + round(100 * j))
            mean.append(run.mean(lambda x: (2 * x - 1).mean(1).abs()))
            log_z.append((run.log_evidence + 16 * math.log(2) - float((j * energy).logsumexp(0)), run.log_evidence_se))
        x = np.array(at) + 0.012 * k
        bars(left, x, [float(m) for m in mean], [float(m.se) for m in mean], PAPER.families[k], kernel)
        off, error = np.array(log_z).T
        bars(right, x, off, error, PAPER.families[k], kernel)
    for ax in (left, right):
        ax.set(xlabel="coupling")
    right.set(ylabel="nats")
    left.legend(loc="upper left", fontsize=9)
    return figure


def expectations() -> Figure:
    density = banana()
    figure, (left, right) = panels("E exp(slope) of 16 chains, 10 seeds, ± 2 se", "60 points to stand for a posterior")
    density_line, _ = line()
    for k, control in enumerate((False, True)):
        runs = [sample(motes.Chains(density_line, draws=100, keep_score=True), 16, seed) for seed in range(10)]
        found = [r.mean(lambda x: x[:, 1].exp(), control=control) for r in runs]
        label = "with control variates" if control else "plain"
        bars(
            left,
            np.arange(10) + 0.3 * k,
            [float(e) for e in found],
            [float(e.se) for e in found],
            PAPER.families[k],
            label,
        )
    left.set(xticks=[])
    left.legend(loc="upper right", fontsize=9)
    a, b = torch.linspace(-3.5, 3.5, 90, dtype=DOUBLE), torch.linspace(-2.8, 2.8, 90, dtype=DOUBLE)
    contours(right, density, a, b)
    run = sample(motes.Chains(density, draws=60, keep_score=True), 32)
    index = stein_thinned(run, density, 60)
    plain, thin = run.draws(60), run.flat[index]  # type: ignore[index]
    right.plot(plain[:, 0], plain[:, 1], "o", ms=3.2, mew=0, color=PAPER.other, label="60 random draws")
    right.plot(thin[:, 0], thin[:, 1], "o", ms=3.2, mew=0, color=PAPER.families[1], label="60 by Stein thinning")
    right.set(xlabel="a", ylabel="b")
    right.legend(loc="center left", fontsize=9)
    return figure


def starts() -> Figure:
    density, exact = line()
    near, _ = Laplace().fit(density, Rng(0))
    found = Pathfinder(inflate=1.3).fit(density, Rng(0)).mixture
    models: dict[str, motes.FeynmanKac] = {
        "from the prior": motes.Tempering(density),
        "from Pathfinder": motes.Tempering(From(density, found)),
        "from Laplace": motes.Tempering(From(density, near)),
        "AMIS": AMIS(density),
    }
    figure, (left, right) = panels(
        "evaluations a particle",
        "log evidence of 512 particles, 12 seeds, ± 2 se",
        ratios=(1, 2),
    )
    truth(right, exact)
    for k, (name, model) in enumerate(models.items()):
        runs = [sample(model, 512, seed) for seed in range(12)]
        value, se = [r.log_evidence for r in runs], [r.log_evidence_se for r in runs]
        bars(right, np.arange(12) + 15 * k, value, se, PAPER.families[k])
        cost = np.mean([r.trace["evaluations"].sum() for r in runs])
        left.barh(len(models) - k, cost, color=PAPER.families[k], height=0.7)
        left.text(cost, len(models) - k, f" {cost:.0f}", va="center", fontsize=9)
        left.text(0, len(models) - k + 0.37, name, va="bottom", fontsize=8.5, color=PAPER.muted)
    left.set(yticks=[], xlim=(0, left.get_xlim()[1] * 1.15), ylim=(0.4, len(models) + 0.9))
    right.set(xticks=[15 * k + 5.5 for k in range(len(models))], xticklabels=list(models), ylabel="nats")
    right.legend(loc="upper right", fontsize=9)
    return figure


def jumps() -> Figure:
    """Two narrow peaks with weights 0.7 and 0.3, sampled without ever seeing them sharp."""
    centre, share, width = torch.tensor([-3.0, 3.0], dtype=DOUBLE), torch.tensor([0.7, 0.3], dtype=DOUBLE), 0.3

    def smoothed(y: Tensor, sigma: float) -> Tensor:
        return torch.logsumexp(share.log() + Normal(centre, math.hypot(sigma, width)).log_prob(y), 1)

    figure, (left, right) = panels(
        "WalkJump: 4000 chains after k measurements", "standard deviation within the right peak", ratios=(1.2, 1)
    )
    model = WalkJump(smoothed, 1, sigma=3.0, measurements=64)
    spread, edges = [], np.linspace(-5, 5, 81)

    def look(state: object) -> None:
        x = model.view(state.particles)[:, 0]  # type: ignore[attr-defined]
        k = state.particles.t + 1  # type: ignore[attr-defined]
        spread.append((k, float(x[x > 0].std())))
        if k in (1, 4, 64):
            at = (1, 4, 64).index(k)
            left.hist(x, edges, density=True, histtype="step", lw=1.3, color=PAPER.families[at], label=f"k = {k}")

    sample(model, 4000, callback=look)
    at = torch.linspace(-5, 5, 400, dtype=DOUBLE)
    left.plot(at, smoothed(at[:, None], 0.0).exp(), color=PAPER.ink, lw=1.0, ls=(0, (4, 3)), label="the law")
    left.legend(loc="upper right", fontsize=9)
    left.set(xlabel="x", yticks=[])
    k, sd = np.array(spread).T
    right.semilogx(k, sd, color=PAPER.families[2], lw=1.4, label="jumps")
    narrower = width**2 / np.sqrt(width**2 + 9.0 / k)
    right.semilogx(k, narrower, color=PAPER.muted, lw=1.0, label="of one Gaussian, in theory")
    truth(right, width, "the law")
    right.set(xlabel="measurements k", ylim=(0, 1.0))
    right.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    right.minorticks_off()
    right.legend(loc="upper right", fontsize=8.5)
    return figure


def private() -> Figure:
    """The mean of 100 scores, released under two budgets."""
    scores = torch.linspace(-1, 1, 100, dtype=DOUBLE)
    gauss = motes.Density(
        lambda m: -(m - scores).square().sum(-1) / 32, Normal(torch.zeros(1, dtype=DOUBLE), 1.0), vectorised=True
    )
    curve = 1 + 100 / 16
    release = PrivateRelease(gauss, radius=2.0, convexity=curve, smoothness=curve, lipschitz=2 / 16)
    figure, (left, right) = panels("400 draws for mu = 1.5, and the posterior", "sweeps of the chain that this takes")
    out = release.draw(400, seed=0x51F0_92A7_C3D4_886B, noise=0.05, mu=1.5)
    left.hist(out.values[:, 0], np.linspace(-1.3, 1.3, 40), density=True, color=PAPER.families[0], alpha=0.6)
    at = torch.linspace(-1.3, 1.3, 200, dtype=DOUBLE)
    left.plot(at, Normal(0.0, curve**-0.5).log_prob(at).exp(), color=PAPER.ink, lw=1.0, ls=(0, (4, 3)))
    left.set(xlabel="mean score", yticks=[])
    tolerated = np.geomspace(0.01, 0.5, 12)
    for k, mu in enumerate((0.1, 0.5, 2.0)):
        sweeps = [release.draw(1, seed=0x51F0_92A7_C3D4_886B + k, noise=float(v), mu=mu).sweeps for v in tolerated]
        right.semilogx(tolerated, sweeps, "o-", ms=3, lw=1.0, color=PAPER.families[k], label=f"mu = {mu:g}")
    right.set(xlabel="length of the noise that is tolerated", ylim=(0, None))
    right.set_xticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
    right.minorticks_off()
    right.legend(fontsize=9)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    f.__name__: f
    for f in (tempering, chains, evidence, modes, stream, kalman, rare, ising, expectations, starts, jumps, private)
}


def _shared_style(group: re.Match[str]) -> str:
    clip, uses, style = group.groups()
    if uses.count(f'style="{style}"') != uses.count("<use "):
        return group[0]
    return f'<g clip-path="{clip}" style="{style}">\n' + uses.replace(f' style="{style}"', "") + "</g>"


def write(name: str, preview: Path | None = None) -> None:
    """One picture as SVG, the same bytes each time."""
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = FIGURES[name]()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
        if preview:
            figure.savefig(preview / f"{name}.png", dpi=110)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    svg = re.sub(r"\n\s*", "\n", svg)
    # what all markers of a group share is said once
    svg = re.sub(r'<g clip-path="(\S+)">\n((?:<use [^>]*? style="([^"]*)"/>\n)+)</g>', _shared_style, svg)
    path = FOLDER / f"{name}.svg"
    path.write_text(svg)
    print(f"{path.name}: {len(svg) / 1000:.0f} kB")
    assert len(svg.encode()) < MOST, f"{name} is too large for the repository"


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    words = sys.argv[1:]
    look = Path(words.pop(words.index("--png") + 1)) if "--png" in words else None
    for name in [w for w in words if w != "--png"] or FIGURES:
        write(name, look)
