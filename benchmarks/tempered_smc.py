"""Tempered sampling against blackjax: time for the same standard error of the log evidence.

Both get the same model, data, precision (float64), number of particles, one thread of one core, and Hamiltonian Monte
Carlo with its mass from the population. Waste-free tempering keeps every state of its chains as a particle, so it runs
with four times as many particles. blackjax's adaptive tempered SMC runs as one compiled loop; its step size,
sweeps, mass and target ESS come from a sweep over a grid (its best is taken, tuning time not counted), ours from
nowhere. The runs are interleaved. The score is CPU seconds x variance of the log evidence (what one pays for a given
standard error), and the same with its mean squared error, which counts the bias of adaptation too. Gradients are
counted in evaluations of n particles.

Usage: taskset -c 0 python benchmarks/tempered_smc.py [--runs 30] [--particles 1000]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import blackjax
import blackjax.smc.resampling
import jax
import jax.numpy as jnp
import numpy as np
import torch
from blackjax.smc.inner_kernel_tuning import as_top_level_api as tuned
from blackjax.smc.tuning.from_particles import inverse_mass_matrix_from_particles, particles_covariance_matrix

import motes
from motes.density import WasteFree, breast_cancer

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)
GRID = [
    (2, 1, 0.5, "dense"),
    (4, 1, 0.5, "dense"),
    (2, 3, 0.5, "dense"),
    (2, 1, 0.9, "dense"),
    (3, 1, 0.9, "dense"),
    (3, 1, 0.5, "diagonal"),
    (3, 1, 0.9, "diagonal"),
]
"""blackjax's settings: leapfrog steps (of a trajectory pi / 2 long), sweeps a temperature, target ESS, mass."""


def gaussian(d: int):
    """Prior N(0, I), likelihood N(2 | x, 0.09 I), as torch and as jax, with the exact log evidence."""
    constant = -0.5 * np.log(2 * np.pi * 0.09)
    ours = motes.Density(
        lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1),
        torch.distributions.Normal(torch.zeros(d, dtype=torch.float64), 1.0),
    )
    likelihood = lambda x: (-0.5 * ((x - 2) / 0.3) ** 2 + constant).sum()  # noqa: E731
    return ours, likelihood, np.ones(d), d * (-np.log(2 * np.pi * 1.09) / 2 - 2 / 1.09)


def logistic():
    """Breast cancer, 569 x 31; no exact evidence: the reference is one run of ours with many particles."""
    x, y, _ = breast_cancer()
    signed = (2 * y - 1)[:, None] * torch.cat([torch.ones(len(x), 1).to(x), x], 1)
    scale = torch.tensor([5.0] + [1.0] * 30, dtype=torch.float64)
    transposed, rows = signed.T.contiguous(), jnp.asarray(signed.numpy())
    ours = motes.Density(
        lambda z: torch.nn.functional.logsigmoid(z @ transposed).sum(1),
        torch.distributions.Normal(torch.zeros_like(scale), scale),
    )
    run = motes.sample(motes.Tempering(ours), 20_000, seed=12345, progress=False)
    return ours, lambda z: jax.nn.log_sigmoid(rows @ z).sum(), scale.numpy(), run.log_evidence


def peer(likelihood, scale, n: int, steps: int, sweeps: int, ess: float, mass: str):
    """blackjax as one jitted function from a seed to (log evidence, number of temperatures)."""
    d, step_size = len(scale), float(np.pi / 2 / steps)
    scale = jnp.asarray(scale)
    covariance = particles_covariance_matrix if mass == "dense" else inverse_mass_matrix_from_particles
    algorithm = tuned(
        blackjax.adaptive_tempered_smc,
        logprior_fn=lambda z: (-0.5 * (z / scale) ** 2 - jnp.log(scale)).sum() - 0.5 * d * jnp.log(2 * jnp.pi),
        loglikelihood_fn=likelihood,
        mcmc_step_fn=blackjax.hmc.build_kernel(),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=blackjax.smc.resampling.systematic,
        mcmc_parameter_update_fn=lambda _, state, info: (
            fixed | {"inverse_mass_matrix": covariance(state.particles)[None]}
        ),
        initial_parameter_value=(
            fixed := {"step_size": jnp.array([step_size]), "num_integration_steps": jnp.array([steps])}
        )
        | {"inverse_mass_matrix": jnp.diag(scale**2)[None]},
        num_mcmc_steps=sweeps,
        target_ess=ess,
    )

    @jax.jit
    def run(seed):
        key, first = jax.random.split(jax.random.key(seed))
        start = algorithm.init(scale * jax.random.normal(first, (n, d)))

        def body(carry):
            key, state, total, count = carry
            key, sub = jax.random.split(key)
            state, info = algorithm.step(sub, state)
            return key, state, total + info.log_likelihood_increment, count + 1

        carry = (key, start, jnp.zeros(()), 0)
        _, _, total, count = jax.lax.while_loop(lambda c: c[1].sampler_state.tempering_param < 1, body, carry)
        return total, count

    def call(seed: int) -> tuple[float, float]:
        total, count = jax.block_until_ready(run(seed))
        return float(total), float(count) * steps * sweeps

    return call


def mine(model, n: int, gradients: int):
    """A sampler of ours; gradients are counted by evaluations of `gradients` particles."""

    def call(seed: int) -> tuple[float, float]:
        run = motes.sample(model, n, seed=seed, progress=False)
        return run.log_evidence, float(run.trace["evaluations"].sum()) * n / gradients

    return call


def timed(call, seed: int) -> tuple[float, float, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    value, evaluations = call(seed)
    return time.perf_counter() - wall, time.process_time() - cpu, value, evaluations


def summary(rows, truth: float) -> dict[str, float]:
    wall, cpu, value, evaluations = np.array(rows).T
    error = value - truth
    return {
        "wall": float(np.median(wall)),
        "cpu": float(np.median(cpu)),
        "bias": float(error.mean()),
        "sd": float(error.std(ddof=1)),
        "mse": float((error**2).mean()),
        "evaluations": float(evaluations.mean()),
    }


def compare(name: str, problem, n: int, runs: int, trials: int) -> list[str]:
    density, likelihood, scale, truth = problem
    scores = []
    for setting in GRID:
        call = peer(likelihood, scale, n, *setting)
        call(0)
        s = summary([timed(call, 100 + i) for i in range(trials)], truth)
        scores.append((s["cpu"] * s["mse"], setting))
    best = min(scores)[1]
    calls = {
        "motes Tempering": mine(motes.Tempering(density), n, n),
        "motes WasteFree": mine(WasteFree(density), 4 * n, n),
        "blackjax": peer(likelihood, scale, n, *best),
    }
    cold = {tool: timed(call, 1000)[:2] for tool, call in calls.items()}
    for i in range(5):
        calls["motes Tempering"](2000 + i)  # the random numbers' fast route is loaded once enough of them were drawn
    rows: dict[str, list] = {tool: [] for tool in calls}
    for i in range(runs):
        for tool, call in calls.items():
            rows[tool].append(timed(call, i))
    s = {tool: summary(r, truth) for tool, r in rows.items()}
    lines = [
        f"\n## {name}, n = {n}, {runs} runs each\n",
        f"blackjax's best of {len(GRID)} settings: {best[0]} leapfrog steps of {np.pi / 2 / best[0]:.2f}, {best[1]} "
        f"sweeps, target ESS {best[2]}, {best[3]} mass. Reference log evidence {truth:.3f}.\n",
        "| | wall s | CPU s | first run, wall s | gradients | bias | sd | CPU s x variance | CPU s x MSE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for tool, v in s.items():
        lines.append(
            f"| {tool} | {v['wall']:.3f} | {v['cpu']:.3f} | {cold[tool][0]:.2f} | {v['evaluations']:.0f} "
            f"| {v['bias']:+.3f} | {v['sd']:.3f} | {v['cpu'] * v['sd'] ** 2:.5f} | {v['cpu'] * v['mse']:.5f} |"
        )
    b = s["blackjax"]
    lines += ["", "Time for the same result over blackjax's, the first run with its compilation counted, and not:", ""]
    lines += ["| | same variance, cold | warm | same MSE, cold | warm |", "|---|---|---|---|---|"]
    for tool in list(calls)[:-1]:
        a, first = s[tool], cold[tool][0] / cold["blackjax"][0]
        time_, variance, mse = a["cpu"] / b["cpu"], (a["sd"] / b["sd"]) ** 2, a["mse"] / b["mse"]
        lines.append(
            f"| {tool} | **{first * variance:.2f}** | {time_ * variance:.2f} | **{first * mse:.2f}** "
            f"| {time_ * mse:.2f} |"
        )
    lines.append("")
    print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    load = os.getloadavg()[0]
    versions = f"torch {torch.__version__}, jax {jax.__version__}, blackjax {blackjax.__version__}"
    lines = [__doc__ or "", f"{versions}, load {load:.1f}"]
    problems = {"Gaussian, d = 12": lambda: gaussian(12), "Logistic regression, d = 31": logistic}
    for name, problem in problems.items():
        if a.only.lower() in name.lower():
            lines += compare(name, problem(), a.particles, a.runs, a.trials)
    out = Path(__file__).parent / "results" / "tempered_smc.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("# Tempered sampling\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
