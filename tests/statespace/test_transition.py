"""Transitions as dynamics: a chain of one's own and the steps of a diffusion model go through one protocol."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from motes import Rng
from motes.core import Transition
from motes.diffusion import Denoiser, ReverseStep, VariancePreserving, gaussian, transitions
from motes.errors import MotesError, ShapeError
from motes.statespace import BootstrapFilter
from motes.testing import LawViolation, check_transition

F64 = torch.float64
PROCESS = VariancePreserving()
TABLE = transitions(PROCESS, 6)
BLOB = gaussian(PROCESS, torch.tensor([0.7], dtype=F64), torch.tensor([[0.25]], dtype=F64))
STD = 0.4
"""Of the noise of observations."""
Z = 4.9


@dataclass(frozen=True)
class Linear:
    """x' = rho x + 0.6 noise: a transition that does not say that it is one."""

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        return condition["rho"].reshape(-1, *[1] * (state.ndim - 1)) * state

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return torch.full_like(state, 0.6)

    def log_density(self, new: Tensor, state: Tensor, condition: Any = None) -> Tensor:
        return Normal(self.mean(state, condition), 0.6).log_prob(new).flatten(1).sum(1).to(F64)


@dataclass(frozen=True)
class Bent(Linear):
    """The density of another deviation than that of its draws."""

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return torch.full_like(state, 0.7)


class Decay(Transition):
    """A chain of numbers (N,) with the density that comes with the protocol."""

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        return 0.9 * state

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return torch.tensor(0.5)


def by_spread(told: dict[str, Tensor]) -> Denoiser:
    """Normal data of mean zero, whose spread the condition says row by row."""

    def data(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, spread = PROCESS.alpha(t)[:, None], PROCESS.sigma(t)[:, None], told["spread"][:, None]
        return alpha * spread**2 / ((alpha * spread) ** 2 + sigma**2) * x

    return Denoiser(data, PROCESS, predicts="data")


def walk(steps: list[Transition], state: Tensor, condition: Any = None) -> tuple[Tensor, Tensor]:
    """The ends of paths without noise, and the log-densities of those paths: any domain's steps will do."""
    total = torch.zeros(len(state), dtype=F64)
    for step in steps:
        new = step.mean(state, condition)
        total, state = total + step.log_density(new, state, condition), new
    return state, total


def test_one_function_walks_a_chain_of_ones_own_and_a_diffusion_model() -> None:
    rho = torch.tensor([0.5, 0.9], dtype=F64)
    end, total = walk([Linear(), Linear()], torch.ones(2, 3, dtype=F64), {"rho": rho})
    assert torch.allclose(end, (rho**2)[:, None].expand(2, 3))
    assert torch.allclose(total, torch.full((2,), -6 * math.log(0.6 * math.sqrt(2 * math.pi)), dtype=F64))
    steps: list[Transition] = [ReverseStep(BLOB, TABLE, k) for k in range(5)]
    end, total = walk(steps, torch.ones(4, 1, dtype=F64))
    state = torch.ones(4, 1, dtype=F64)
    for k in range(5):
        state = TABLE.mean(k, state, BLOB.data(state, float(TABLE.times[k])))
    assert torch.equal(end, state)
    assert torch.allclose(total, -(TABLE.std[:5] * math.sqrt(2 * math.pi)).log().sum().expand(4))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_transitions_keep_their_laws_and_a_bent_one_is_found(dtype: torch.dtype) -> None:
    state = Rng(0).normal((5, 2), dtype=dtype)
    told = {"rho": torch.linspace(0, 1, 5, dtype=dtype), "spread": torch.linspace(0.5, 2, 5, dtype=dtype)}
    assert check_transition(Linear(), state, condition=told)["density"] < 1e-4
    assert check_transition(Decay(), state[:, 0])["density"] < 1e-4
    assert check_transition(ReverseStep(by_spread, TABLE, 2), state, condition=told)["density"] < 1e-4
    with pytest.raises(LawViolation, match="nats from that of the mean") as found:
        check_transition(Bent(), state, condition=told)
    assert found.value.law == "density"


def test_a_condition_tells_a_denoiser_row_by_row() -> None:
    state, spread = torch.ones(2, 1, dtype=F64), torch.tensor([0.5, 2.0], dtype=F64)
    found = ReverseStep(by_spread, TABLE, 3).mean(state, {"spread": spread})
    for i in range(2):
        alone = gaussian(PROCESS, torch.zeros(1, dtype=F64), spread[i].square().reshape(1, 1))
        assert torch.allclose(found[i : i + 1], ReverseStep(alone, TABLE, 3).mean(state[:1]), rtol=1e-12)
    assert not torch.allclose(found[0], found[1])


def test_steps_without_a_density_are_refused() -> None:
    still = transitions(PROCESS, 4, noise=0.0, still=True)
    for table, k, said in (
        (TABLE, 6, "counted from 0"),
        (transitions(PROCESS, 4, integrator="multistep", history=True), 1, "looks back"),
        (still, 1, "no noise"),
    ):
        with pytest.raises(MotesError, match=said):
            ReverseStep(BLOB, table, k)


def filtering(steps: Any, y: Tensor) -> BootstrapFilter:
    return BootstrapFilter(
        lambda rng, theta, size: rng.normal((len(theta["rho"]), size, 1)),
        steps,
        lambda theta, x, y, t: Normal(x[..., 0], STD).log_prob(y),
        y,
    )


def test_a_filter_moves_by_a_transition_as_by_a_function() -> None:
    """To the same bits, whatever theta is in each row."""
    y, theta = torch.tensor([0.3, 1.0, 0.2], dtype=F64), {"rho": torch.linspace(-0.9, 0.9, 7, dtype=F64)}
    plain = filtering(lambda r, p, x, t: p["rho"][:, None, None] * x + 0.6 * r.normal(tuple(x.shape)), y)
    for steps in (Linear(), [Linear(), Linear()]):
        found, total = filtering(steps, y).run(Rng(0), theta, 50, 3)
        assert torch.equal(found["x"], plain.run(Rng(0), theta, 50, 3)[0]["x"])
        assert torch.equal(total, plain.run(Rng(0), theta, 50, 3)[1])
    with pytest.raises(ShapeError, match="one transition fewer"):
        filtering([Linear()], y)
    lots = BootstrapFilter(lambda r, p, n: {"a": torch.zeros(7, n)}, Linear(), lambda p, x, y, t: torch.zeros(7, 4), y)
    with pytest.raises(ShapeError, match="one tensor"):
        lots.run(Rng(0), theta, 4, 2)


def test_a_diffusion_model_is_the_dynamics_of_a_filter() -> None:
    """Noisy looks at a diffusion path: the mean likelihood of 20,000 filters of 3 states is the Kalman filter's.

    A twin that is told the steps in another order is off.
    """
    y = torch.tensor([0.4, -0.2, 0.5, 0.9, 0.8], dtype=F64)
    m, v, exact = 0.0, 1.0, 0.0
    for t in range(5):
        if t > 0:
            step = ReverseStep(BLOB, TABLE, t - 1)
            at = step.mean(torch.tensor([[0.0], [1.0]], dtype=F64)).flatten().tolist()
            slope = at[1] - at[0]
            m, v = at[0] + slope * m, slope**2 * v + float(TABLE.std[t - 1]) ** 2
        s = v + STD**2
        exact += -0.5 * math.log(2 * math.pi * s) - 0.5 * (float(y[t]) - m) ** 2 / s
        m, v = m + v / s * (float(y[t]) - m), v - v * v / s
    theta = {"rho": torch.zeros(20_000, dtype=F64)}
    steps = [ReverseStep(BLOB, TABLE, k) for k in range(4)]
    for given, right in ((steps, True), (steps[::-1], False)):
        found = filtering(given, y).run(Rng(3), theta, 3, 5)[1].exp() / math.exp(exact)
        off = abs(float(found.mean()) - 1) / (float(found.std()) / math.sqrt(20_000))
        assert (off < Z) == right, off
        assert float(found.std()) / math.sqrt(20_000) < 0.02
