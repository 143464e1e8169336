"""The check of kernels finds each law broken by a kernel that breaks this one alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from breaks import breaks
from motes.errors import MotesError, UnknownName
from motes.kernels import ULA, Kernel, Parameters, RandomWalk, State, Sweep, Target, Underdamped, accepted, select
from motes.kernels.dynamics.levels import levels_of
from motes.kernels.flip import Flip
from motes.laws import Discrete
from motes.rng import Rng
from motes.testing import ExactLaw, LawViolation, check_kernel
from motes.testing.exact_laws import Bent, bent, coupled


class Stretched(RandomWalk):
    """x e^(s u): proposals that are multiples, whose Jacobian |x' / x| belongs into the acceptance ratio."""

    jacobian = True

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x = state["position"]
        step = 0.7 * rng.at("proposal").normal(tuple(x.shape))
        proposal = target.evaluate(x * step.exp(), False)
        ratio = target.log_density(proposal) - target.log_density(state)
        probability, accept = accepted(rng, ratio + step.sum(1) if self.jacobian else ratio)
        return Sweep(select(accept, proposal, state), probability, 1)


def test_a_kernel_without_its_jacobian_is_found_out() -> None:
    kernel = Stretched()
    laws = ("invariant", "reversible", "state", "evaluations", "address", "alone")
    assert check_kernel(kernel, laws=laws).keys() == set(laws)
    object.__setattr__(kernel, "jacobian", False)
    with breaks("invariant"):
        check_kernel(kernel)
    with breaks("reversible"):
        check_kernel(kernel, laws=["reversible"])


class Twin(RandomWalk):
    """A random walk whose sweep is passed on by `change`."""

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        return self.change(rng, super().sweep(rng, target, state, parameters), state)

    def change(self, rng: Rng, sweep: Sweep, before: State) -> Sweep:
        return sweep


class Still(Twin):
    def change(self, rng: Rng, sweep: Sweep, before: State) -> Sweep:
        return replace(sweep, state=before, acceptance=0 * sweep.acceptance)


class Stale(Twin):
    """The last particle keeps what the target said of where it was."""

    def change(self, rng: Rng, sweep: Sweep, before: State) -> Sweep:
        value = sweep.state["log_prior"].clone()
        value[-1] = before["log_prior"][-1]
        return replace(sweep, state={**sweep.state, "log_prior": value - 0.25 * (value == before["log_prior"])})


class Modest(Twin):
    def change(self, rng: Rng, sweep: Sweep, before: State) -> Sweep:
        return replace(sweep, evaluations=0.5)


class Counting(Twin):
    """Draws that depend on how often the kernel was called."""

    calls: ClassVar[list[int]] = []

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        self.calls.append(1)
        return super().sweep(rng.at("call", inner=len(self.calls)), target, state, parameters)


class Gregarious(Twin):
    """Steps as long as the population is wide, which is learnt within the sweep."""

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        step = parameters["step_size"] * state["position"].std()
        return super().sweep(rng, target, state, {**parameters, "step_size": float(step)})


@pytest.mark.parametrize(
    "kernel, law",
    [
        (Still(), "moves"),
        (Stale(), "state"),
        (Modest(), "evaluations"),
        (Counting(), "address"),
        (Gregarious(), "alone"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Kernel) else v,
)
def test_a_law_that_is_broken_is_named(kernel: Kernel, law: str) -> None:
    with breaks(law):
        check_kernel(kernel, n=4000, laws=["moves", "state", "evaluations", "address", "alone"])
    assert check_kernel(Twin(), n=4000, laws=[law]).keys() == {law}


class Lasting(Underdamped):
    """A kernel whose momentum lasts, and that says that nobody could tell the way back."""

    reversible: ClassVar[bool] = True


class Scan(Flip):
    """Coordinates in turn, each drawn given the others: the law is invariant, the way back another."""

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x = state["position"].clone()
        d, levels = x.shape[1], levels_of(target)
        for i in range(d):
            ways = [x.index_fill(1, torch.tensor([i]), float(v)) for v in range(levels)]
            value = torch.stack([target.log_density(target.evaluate(w, False)) for w in ways], 1)
            x[:, i] = rng.at(f"coordinate-{i}").categorical(value).to(x)
        return Sweep(target.evaluate(x, False), torch.ones(len(x)).double(), d * levels + 1)


@pytest.mark.parametrize("kernel", [Lasting(friction=0.3), Scan()], ids=lambda k: type(k).__name__)
def test_a_way_that_has_no_way_back_is_found_out(kernel: Kernel) -> None:
    check_kernel(kernel, laws=["invariant"])
    with breaks("reversible"):
        check_kernel(kernel)


def test_a_wrong_law_on_whole_numbers_is_found_out() -> None:
    class Warm(Flip):
        def sweep(self, rng: Rng, target: Any, state: State, parameters: Parameters) -> Sweep:
            warm = replace(target.target, temperature=0.8)
            return super().sweep(rng, warm, state, parameters)

    with pytest.raises(LawViolation, match=r"the state \[.*\] holds \d+ and should \d+.*seed 3"):
        check_kernel(Warm(), on=coupled("labels"), laws=["invariant"], seed=3)


def test_a_law_of_ones_own() -> None:
    """Broken twin: the same draws for a law that is shifted."""

    class Shifted(Bent):
        def log_density(self, state: State) -> Tensor:
            return state["value"] + 0.3 * state["position"][:, 0]

    assert "invariant" in check_kernel(RandomWalk(), on=bent(3), n=10_000)
    with pytest.raises(LawViolation, match=r"the mean of a .* standard errors off, from 10000 exact draws"):
        check_kernel(RandomWalk(), on=ExactLaw(Shifted(), Bent.draw, Bent.means), n=10_000)


def test_what_cannot_be_checked_is_said() -> None:
    with pytest.raises(UnknownName, match="perhaps you meant 'invariant'"):
        check_kernel(RandomWalk(), laws=["invariance"])
    with pytest.raises(MotesError, match="says of itself that it is not invariant"):
        check_kernel(ULA(), laws=["invariant"], n=100)
    with pytest.raises(MotesError, match="moves on whole numbers"):
        check_kernel(Flip(), on=bent())
    with pytest.raises(MotesError, match="too large to enumerate"):
        check_kernel(Flip(), on=Discrete(lambda x: 0 * x.sum(1), 20))
