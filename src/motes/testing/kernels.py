"""Laws of Markov kernels: what is invariant, what is reversible, and what a sweep says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.kernels import Kernel, Parameters, State, Sweep, Target
from motes.laws import Discrete
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing.counted import Counted
from motes.testing.exact_laws import Conjugate, ExactLaw, bounded, coupled, enumerated, index
from motes.testing.violation import (
    LawViolation,
    Z,
    at_least,
    chosen,
    deviation,
    farthest,
    first_difference,
    must_be,
    p_value,
)

N, SWEEPS = 40_000, 3
FEW = 64
"""Particles of a population that is moved twice, to compare bits."""
LEARNT = 1000
"""Particles from which a kernel learns its scales before it is tried."""
RANKED, CHAIN = 12_000, 5
"""Replicates of the rank test, and the sweeps of each chain."""
SELDOM = 0.05
"""The least mean acceptance: of what hardly ever moves no law can be seen."""


def check_kernel(
    kernel: Kernel,
    *,
    on: ExactLaw | Discrete | None = None,
    laws: Iterable[str] | None = None,
    parameters: Parameters | None = None,
    n: int = N,
    seed: int = 0,
) -> dict[str, float]:
    """Check that a kernel keeps the laws that a kernel must keep, as far as it claims them.

    - "invariant" (kernels that say `exact`): exact draws still have the law of the target after three sweeps, with
      scales learnt from another population. On whole numbers all states are enumerated.
    - "reversible" (kernels that say so): on whole numbers (before, after) is as likely as (after, before); on R^d
      the rank of an exact draw among the states of chains from it, forwards and backwards, is uniform.
    - "moves": the mean acceptance lies between 0.05 and 1.
    - "state": what the particles carry is what the target evaluates where they are.
    - "evaluations": as many as the sweep says.
    - "address": the same state, moved twice at one address, goes to the same bits.
    - "alone" (kernels that are no `ensemble`): half of a population moves as it does among the whole.

    A mean fails by chance with probability 1e-6, so that a check does with less than 2e-5; laws without chance never
    do. A bias of 5 / sqrt(n) standard deviations is found with probability 1/2, one of 10 / sqrt(n) for certain. The
    defaults take seconds.

    Args:
        kernel: what is checked, with its knobs.
        on: an `ExactLaw`, or a `Discrete` law of at most 1,000 states, instead of the house's own; then reversibility
            is checked on whole numbers only.
        laws: the names of those to check; None is all that the kernel claims.
        parameters: replace what `kernel.start` and `kernel.fit` say.
        n: particles.
        seed: of all draws.

    Returns:
        By law how far it was from failing: standard errors, of 4.9; what is exact is 0.

    Raises:
        LawViolation: a law does not hold; the message says what was expected, what was measured, and where.
        UnknownName: there is no law of that name.

    References:
        Gandy & Scott (2020), Unit testing for MCMC and other Monte Carlo methods, arXiv:2001.06465.

    >>> from motes.kernels import RandomWalk
    >>> from motes.testing import check_kernel
    >>> sorted(check_kernel(RandomWalk(), n=4000))
    ['address', 'alone', 'evaluations', 'invariant', 'moves', 'reversible', 'state']
    """
    must_be(kernel, Kernel, "kernel", "an instance of motes.kernels.Kernel, such as RandomWalk()")
    must_be(on, (ExactLaw, Discrete, type(None)), "on", "None, a motes.testing.ExactLaw or a motes.Discrete")
    must_be(parameters, (dict, type(None)), "parameters", "None or a dict by name")
    at_least(2, n=n)
    names = chosen(laws, LAWS, "kernel")
    found: dict[str, float] = {}
    for trial in _trials(kernel, on, parameters or {}, n, seed):
        for law in LAWS:
            if law in names and (z := LAWS[law](trial)) is not None:
                found[law] = max(z, found.get(law, 0.0))
    if unclaimed := set(laws or ()) - set(found):
        raise MotesError(f"{kernel!r} says of itself that it is not {min(unclaimed)}: there is no such law to check")
    return found


@dataclass
class Trial:
    """A kernel on one target: the sweeps that were made, from exact draws."""

    kernel: Kernel
    law: ExactLaw | Discrete
    own: bool
    """Whether the law is one of the house's."""
    given: Parameters
    n: int
    seed: int

    def __post_init__(self) -> None:
        rng = Rng(self.seed)
        if isinstance(self.law, Discrete):
            self.states, self.probability = enumerated(self.law)
            self.before: Tensor = rng.at("draws").categorical(self.probability.log(), self.n)
            x, learnt = (
                self.states[self.before],
                self.states[rng.at("learnt").categorical(self.probability.log(), LEARNT)],
            )
            self.target: Target = Tempered(self.law, 1.0)
        else:
            x, learnt = self.law.draw(rng.at("draws"), self.n), self.law.draw(rng.at("learnt"), LEARNT)
            self.target = self.law.target
        self.parameters = learn(self.kernel, self.target, learnt) | self.given
        self.counted: Counted = Counted(self.target)
        self.start: State = self.target.evaluate(x, self.kernel.gradient)
        self.swept: list[Sweep] = list(sweeps(self.kernel, rng, self.counted, self.start, self.parameters, SWEEPS))

    @property
    def where(self) -> str:
        """The end of each sentence."""
        name = type(self.law if isinstance(self.law, Discrete) else self.target).__name__
        return f"from {self.n} exact draws of {name}, seed {self.seed}; {Z} standard errors are allowed"


def learn(kernel: Kernel, target: Target, x: Tensor) -> Parameters:
    """What a kernel learns from exact draws x (N, d)."""
    weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    return kernel.fit(kernel.start(x.shape[1], x.dtype), target, target.evaluate(x, kernel.gradient), weight)


def sweeps(
    kernel: Kernel, rng: Rng, target: Target, state: State, parameters: Parameters, count: int
) -> Iterator[Sweep]:
    """Each of `count` sweeps of a kernel that is new to a state."""
    state = kernel.enter(rng.at("enter"), target, state, parameters)
    for i in range(count):
        sweep = kernel.sweep(rng.at("sweep", inner=i), target, state, parameters)
        state = sweep.state
        yield sweep


def _trials(kernel: Kernel, on: ExactLaw | Discrete | None, given: Parameters, n: int, seed: int) -> Iterator[Trial]:
    laws = [on] if on is not None else map(coupled, ("bits", "labels", "ordinal")) if kernel.discrete else [bounded()]
    for law in laws:
        if isinstance(law, Discrete) is not kernel.discrete:
            of = "whole numbers" if kernel.discrete else "R^d"
            raise MotesError(f"{kernel!r} moves on {of}: give it {'a Discrete' if kernel.discrete else 'an ExactLaw'}")
        yield Trial(kernel, law, on is None, given, n, seed)


# ------------------------------------------------------------------------------------------------ laws


def _moves(trial: Trial) -> float:
    rate = sum(float(sweep.acceptance.mean()) for sweep in trial.swept) / SWEEPS
    if not SELDOM < rate <= 1 + 1e-12:
        raise LawViolation(
            "moves",
            f"{trial.kernel!r} has a mean acceptance of {rate:.3g}, which should lie between {SELDOM} and 1, "
            f"{trial.where}: give it `parameters` with which it moves",
        )
    return 0.0


def _invariant(trial: Trial) -> float | None:
    if not trial.kernel.exact:
        return None
    x = trial.swept[-1].state["position"]
    if isinstance(trial.law, Discrete):
        expected = trial.n * trial.probability
        count = torch.bincount(index(trial.law, x), minlength=len(expected)).double()
        z, worst = deviation(p_value(count, expected, len(expected) - 1)), int((count - expected).abs().argmax())
        said = f"the state {trial.states[worst].tolist()} holds {int(count[worst])} and should {expected[worst]:.0f}"
    else:
        z, said = farthest(trial.law.means(x))
    if z > Z:
        raise LawViolation(
            "invariant",
            f"{trial.kernel!r} does not leave its target invariant: after {SWEEPS} sweeps {said}, "
            f"{z:.1f} standard errors off, {trial.where}. Look at the acceptance ratio: both densities, both "
            "directions of the proposal, and the Jacobian of a change of variables",
        )
    return z


def _reversible(trial: Trial) -> float | None:
    kernel = trial.kernel
    if not (kernel.exact and kernel.reversible):
        return None
    if isinstance(trial.law, Discrete):
        z = _pairs(trial, trial.law)
    elif not trial.own or kernel.ensemble:
        return None
    else:
        z = ranks(kernel, trial.given, trial.seed)
    if z > Z:
        raise LawViolation(
            "reversible",
            f"{kernel!r} says that it is reversible, and (before, after) has another law than (after, before): "
            f"{z:.1f} standard errors off, seed {trial.seed}, {Z} are allowed. If it is not meant to be, set "
            "`reversible = False`",
        )
    return z


def _pairs(trial: Trial, law: Discrete) -> float:
    """How far the first sweep is from being as likely there and back, on whole numbers."""
    size = len(trial.states)
    after = index(law, trial.swept[0].state["position"])
    pairs = torch.bincount(trial.before * size + after, minlength=size * size).view(size, size).double()
    upper = torch.triu(torch.ones(size, size, dtype=torch.bool), 1) & (pairs + pairs.T >= 10)
    there, both = pairs[upper], (pairs + pairs.T)[upper]  # binomial with probability 1/2
    if len(both) == 0:
        raise MotesError(f"{trial.n} particles are too few to see both ways between {size} states: use more")
    return deviation(p_value(2 * there, both, len(both)))


def ranks(kernel: Kernel, given: Parameters, seed: int) -> float:
    """How far the ranks of exact draws among the states of their chains are from uniform.

    Each replicate has data of its own, drawn given its truth, which so is an exact draw from its own posterior. Chains
    run from it forwards and backwards, for random numbers of sweeps that add up to `CHAIN`.
    """
    rng = Rng(seed).at("ranks")
    x = rng.at("truth").normal((RANKED, 2))
    target = Conjugate(Conjugate.mean(x) + 0.5 * rng.at("data").normal((RANKED, 2)))
    parameters = kernel.start(2, torch.float64)
    if "step_size" in parameters:
        parameters = {**parameters, "step_size": 0.5 * parameters["step_size"]}
    parameters, state = parameters | given, target.evaluate(x, kernel.gradient)

    def chain(way: str) -> Tensor:
        path = sweeps(kernel, rng.at(way), target, state, parameters, CHAIN)
        return torch.stack([sweep.state["position"] for sweep in path], 1)

    behind, place = rng.at("place").integers((RANKED,), CHAIN + 1)[:, None], torch.arange(CHAIN)
    # the chain behind gives its first `behind` states, the one ahead its first CHAIN - behind
    moved = (place - behind).clamp(min=0)[..., None].expand(-1, -1, 2)
    path = torch.where((place < behind)[..., None], chain("back"), chain("ahead").gather(1, moved))
    tie, smallest = rng.at("tie").uniform((RANKED, CHAIN + 1)), 1.0
    expected = torch.full((CHAIN + 1,), RANKED / (CHAIN + 1), dtype=torch.float64)
    for f in (lambda v: v[..., 0], lambda v: v[..., 1], lambda v: v.square().sum(-1)):
        here, there = f(x)[:, None], f(path)
        rank = ((there < here) | ((there == here) & (tie[:, 1:] < tie[:, :1]))).sum(1)
        count = torch.bincount(rank, minlength=CHAIN + 1).double()
        smallest = min(smallest, 3 * p_value(count, expected, CHAIN))
    return deviation(smallest)


def _state(trial: Trial) -> float:
    state = trial.swept[-1].state
    fresh = trial.target.evaluate(state["position"], trial.kernel.gradient)
    for key, value in fresh.items():
        row = first_difference(value, state[key], exact=False) if key in state else 0
        if row is not None:
            said = state[key][row].tolist() if key in state else "missing"
            raise LawViolation(
                "state",
                f'{trial.kernel!r} moves particle [{row}] and leaves it with state["{key}"] {said}, where the target '
                f"evaluates {value[row].tolist()}: take the whole state along, as `select` does; {trial.where}",
            )
    return 0.0


def _evaluations(trial: Trial) -> float:
    said, made = sum(sweep.evaluations for sweep in trial.swept), sum(trial.counted.counts) / trial.n
    if abs(said - made) > 1e-9 * (1 + made):
        raise LawViolation(
            "evaluations",
            f"{trial.kernel!r} says that {SWEEPS} sweeps took {said:g} evaluations a particle, and they took {made:g}, "
            f"{trial.where}",
        )
    return 0.0


def _address(trial: Trial) -> float:
    few = {k: v[:FEW] for k, v in trial.start.items()}
    target, rng = trial.target.part(torch.arange(FEW)), Rng(trial.seed).at("again")
    one, two = (next(sweeps(trial.kernel, rng, target, few, trial.parameters, 1)).state for _ in range(2))
    for key, value in one.items():
        row = first_difference(value, two[key], exact=True)
        if row is not None:
            raise LawViolation(
                "address",
                f'{trial.kernel!r} moved particle [{row}] of {FEW} twice at one address, to state["{key}"] '
                f"{value[row].tolist()} and {two[key][row].tolist()}, seed {trial.seed}: draw from the rng that is "
                "handed in, keep nothing in the kernel, and write to no tensor of the state",
            )
    return 0.0


def _alone(trial: Trial) -> float | None:
    if trial.kernel.ensemble:
        return None
    # of both halves every other one, so that each keeps the scale of its half
    ids, all_ = torch.arange(0, FEW, 2), torch.arange(FEW)
    found = []
    for some in (all_, ids):
        state, rng = {k: v[some] for k, v in trial.start.items()}, Rng(trial.seed).at("alone").shard(some)
        target = trial.target.part(some)
        found.append(next(sweeps(trial.kernel, rng, target, state, trial.parameters, 1)).state["position"])
    row = first_difference(found[0][ids], found[1], exact=False)
    if row is not None:
        raise LawViolation(
            "alone",
            f"{trial.kernel!r} moves particle [{int(ids[row])}] to {found[0][ids][row].tolist()} among {FEW} particles "
            f"and to {found[1][row].tolist()} among half of them, seed {trial.seed}: what it learns from "
            "others belongs into the parameters, or set `ensemble = True`",
        )
    return 0.0


LAWS: dict[str, Callable[[Trial], float | None]] = {
    "moves": _moves,
    "invariant": _invariant,
    "reversible": _reversible,
    "state": _state,
    "evaluations": _evaluations,
    "address": _address,
    "alone": _alone,
}
