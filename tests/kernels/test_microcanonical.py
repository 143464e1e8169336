"""Microcanonical kernels: turns against the differential equation, laws, and the bias of the unadjusted one."""

import math

import pytest
import torch

from breaks import breaks, decide
from kernels.test_chees import Gaussian
from kernels.test_nuts import Bent
from motes.errors import MotesError
from motes.kernels.dynamics import isokinetic
from motes.kernels.dynamics.isokinetic import trajectory, turn, uniform_directions
from motes.kernels.mams import MAMS
from motes.kernels.mclmc import MCLMC
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.kernels import ranks
from motes.testing.violation import Z

ONE = torch.ones(1, 1, dtype=torch.float64)


def test_a_turn_solves_its_differential_equation_and_its_volume_is_the_jacobian():
    d = 4
    u, force = uniform_directions(Rng(0), (1, d), torch.float64), 5 * Rng(1).normal((1, d))
    new, gain = turn(u, force, 0.7 * ONE)
    walked, kinetic, n = u.clone(), 0.0, 4000
    for _ in range(n):  # midpoint rule
        middle = walked + 0.35 / n * (force - (walked * force).sum() * walked) / (d - 1)
        kinetic += 0.7 / n * float((middle * force).sum())
        walked = walked + 0.7 / n * (force - (middle * force).sum() * middle) / (d - 1)
    assert torch.allclose(new, walked, atol=1e-6) and float(gain) == pytest.approx(kinetic, abs=1e-6)
    # on the sphere: the determinant in orthonormal bases of the tangent spaces at u and at the new direction
    jacobian = torch.autograd.functional.jacobian(lambda v: turn(v / v.norm(), force, 0.7 * ONE)[0][0], u)[:, 0]
    before, after = (torch.linalg.svd(v)[2][1:] for v in (u, new))
    assert float(torch.linalg.det(after @ jacobian @ before.T).abs().log()) == pytest.approx(-float(gain), abs=1e-10)


def test_turns_without_a_force_or_with_an_enormous_one_are_finite_and_turn_back():
    u = uniform_directions(Rng(0), (3, 5), torch.float64)
    still, none = turn(u, torch.zeros_like(u), torch.ones(3, 1).double())
    assert torch.allclose(still, u) and float(none.abs().max()) < 1e-12
    force = 1e8 * uniform_directions(Rng(1), (3, 5), torch.float64)
    new, gain = turn(u, force, torch.ones(3, 1).double())
    assert torch.allclose(new, force / 1e8) and torch.isfinite(gain).all()
    there, first = turn(u, 1e-7 * force, torch.ones(3, 1).double())
    back, second = turn(there, 1e-7 * force, -torch.ones(3, 1).double())
    assert torch.allclose(back, u) and torch.allclose(first, -second)


def test_trajectories_turn_back_on_themselves_and_their_error_is_of_second_order():
    target, n = Bent(), 200
    state, scale = target.evaluate(target.draws(n), True), torch.tensor([[1.0, 0.5], [0.7, 1.0]], dtype=torch.float64)
    u = uniform_directions(Rng(2), (n, 2), torch.float64)
    end, v, ratio, kept = trajectory(target, state, u, 0.01, 20, scale)
    home, w, back, _ = trajectory(target, end, -v, 0.01, 20, scale)
    assert torch.allclose(home["position"], state["position"]) and torch.allclose(w, -u)
    assert torch.allclose(back, -ratio) and kept.all()
    finer = trajectory(target, state, u, 0.005, 40, scale)[2]
    assert float((ratio.abs().mean() / finer.abs().mean()).log2()) == pytest.approx(2.0, abs=0.05)


def test_mams_has_the_right_ranks_for_one_length():
    assert ranks(MAMS(jitter=0.0), {}, 0) < Z


@pytest.mark.parametrize("broken", ["no volume", "no acceptance"])
def test_mams_without_what_makes_it_exact_is_found_out(broken, monkeypatch):
    if broken == "no volume":
        right, none = isokinetic.turn, torch.zeros((), dtype=torch.float64)
        monkeypatch.setattr(isokinetic, "turn", lambda u, force, h: (right(u, force, h)[0], none))
    else:
        decide(monkeypatch, lambda rng, r: (torch.ones_like(r), torch.isfinite(r)))
    with breaks("invariant"):
        check_kernel(MAMS(), laws=["invariant"])


def population(kernel, target, n, sweeps, start, lesson=True):
    state = target.evaluate(target.draws(n), True)
    parameters = {**kernel.start(state["position"].shape[1], torch.float64), **start}
    state, rates = kernel.enter(Rng(0).at("enter"), target, state, parameters), []
    weight = torch.full((n,), 1 / n, dtype=torch.float64)
    for i in range(sweeps):
        sweep = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters)
        state, rates = sweep.state, [*rates, float(sweep.acceptance.mean())]
        parameters = kernel.learn(parameters, sweep, weight) if lesson else parameters
    return parameters, sweep, rates


@pytest.mark.parametrize("step", [1e-3, 1e3])
def test_mams_learns_its_step_and_a_length_of_sqrt_d(step):
    d = 25
    kernel, target = MAMS(), Gaussian(torch.ones(d))
    parameters, _, rates = population(kernel, target, 500, 150, {"step_size": step, "length": 5.0})
    assert sum(rates[-50:]) / 50 == pytest.approx(0.9, abs=0.03)
    # the square of the radius has frequency sqrt(2 / d) instead of 2; half a step is added by rounding up
    assert (parameters["length"] + 0.5 * parameters["step_size"]) / math.sqrt(d) == pytest.approx(
        2.2467 * math.sqrt(2), rel=0.1
    )


@pytest.mark.parametrize("step", [1e-3, 1e3])
def test_mclmc_finds_the_step_with_the_wanted_energy_error(step):
    parameters, _, _ = population(MCLMC(), Gaussian(torch.ones(20)), 64, 80, {"step_size": step})
    assert parameters["error"] == pytest.approx(5e-4, rel=0.3)
    assert MCLMC().describe(parameters)["energy_error"] == parameters["error"]


def bias(h: float, n: int = 3000, d: int = 30) -> tuple[float, float]:
    """The relative error of the mean square in equilibrium, with a standard error of 0.001; the energy error."""
    kernel, target = MCLMC(max_steps=16), Gaussian(torch.ones(d))
    parameters = {**kernel.start(d, torch.float64), "step_size": h * math.sqrt(d)}
    state = kernel.enter(Rng(0).at("enter"), target, target.evaluate(target.draws(n), True), parameters)
    off, error = [], 0.0
    for i in range(60):
        sweep = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters)
        state = sweep.state
        if i >= 10:
            off.append(float(state["position"].square().mean()) - 1)
            error = float(sweep.seen["error"].mean())
    return sum(off) / len(off), error


def test_the_bias_of_mclmc_is_of_second_order_and_its_energy_error_of_sixth():
    (coarse, first), (fine, second) = bias(1.0), bias(0.5)
    assert coarse == pytest.approx(0.09, abs=0.01)
    assert coarse / fine == pytest.approx(4.0, abs=1.2)
    assert math.log2(first / second) == pytest.approx(6.0, abs=0.4)


def test_what_runs_off_is_given_up():
    target = Gaussian([1.0, 1.0])
    state = target.evaluate(target.draws(16), True)
    for kernel in (MAMS(), MCLMC()):
        parameters = {**kernel.start(2, torch.float64), "step_size": 1e6}
        sweep = kernel.sweep(Rng(0), target, kernel.enter(Rng(1), target, state, parameters), parameters)
        assert sweep.diverged is not None and sweep.diverged.all()
        assert torch.equal(sweep.state["position"], state["position"])


def test_chains_of_mclmc_come_in_from_far_out():
    target = Gaussian(torch.logspace(-2, 0, 10))
    kernel, weight = MCLMC(), torch.full((32,), 1 / 32, dtype=torch.float64)
    parameters = kernel.start(10, torch.float64)
    state = kernel.enter(Rng(0), target, target.evaluate(Rng(0).normal((32, 10)), True), parameters)
    for i in range(60):
        sweep = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters)
        state, parameters = sweep.state, kernel.learn(parameters, sweep, weight)
    assert float(state["value"].min()) > -20


def test_one_dimension_and_knobs_outside_of_their_range_are_errors():
    for kernel in (MAMS(), MCLMC()):
        with pytest.raises(MotesError, match="2 dimensions"):
            kernel.start(1, torch.float64)
    with pytest.raises(ValueError, match="acceptance"):
        MAMS(acceptance=1.0)
    with pytest.raises(ValueError, match="energy_error"):
        MCLMC(energy_error=0.0)
