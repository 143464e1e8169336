"""Gibbs sampling: blocks of coordinates in turn, each by its own kernel or by an exact draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError, ShapeError, name_particles
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, Wrapped, find_kernel, kernels
from motes.kernels.slice import Slice
from motes.rng import Rng

Draw = Callable[[Rng, Tensor], Tensor]
"""An exact draw: maps all coordinates (N, d) to new values (N, k) of the block, from their law given the others."""


@dataclass(frozen=True)
class Conditional(Wrapped):
    """The law of some coordinates given the others: what a kernel moves when it moves one block.

    Args:
        target: the law of all coordinates.
        whole: (N, d) the positions, of which the block's part does not matter.
        block: (k,) int64 which coordinates vary.
        gradient_too: evaluate gradients even where they are not asked for, since another block's kernel needs them.
    """

    whole: Tensor
    block: Tensor
    gradient_too: bool = False

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        x = self.whole.index_copy(1, self.block, position)
        return self.narrow(self.target.evaluate(x, gradient or self.gradient_too))

    def narrow(self, state: State) -> State:
        """The state of all coordinates as one of the block."""
        return {**state, "position": state["position"][:, self.block], "whole": state["position"]}

    def widen(self, state: State) -> State:
        """The state of the block as one of all coordinates; what a kernel carries beside it is kept."""
        return {**{k: v for k, v in state.items() if k != "whole"}, "position": state["whole"]}

    def log_density(self, state: State) -> Tensor:
        return self.target.log_density(self.widen(state))

    def gradient(self, state: State) -> Tensor:
        return self.target.gradient(self.widen(state))[:, self.block]

    def part(self, index: Tensor) -> Conditional:
        return Conditional(self.target.part(index), self.whole[index], self.block, self.gradient_too)

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        x = self.whole.index_copy(1, self.block, position)
        return self.target.hessian_vector(x, torch.zeros_like(x).index_copy_(1, self.block, vector))[:, self.block]


@kernels.register
@dataclass(frozen=True, repr=False)
class Gibbs(Kernel):
    """Gibbs sampling: blocks of coordinates in a random order, each moved by a kernel for its law given the others.

    A block's kernel sees the block alone: its scales are those of the block's coordinates, its step is learnt from its
    own acceptance. In place of a kernel, an exact draw from the law of a block given the others may be given. As exact
    as its kernels are. The order is drawn anew for each sweep, the same for all particles, which makes the whole
    reversible where its kernels are. What a kernel carries from sweep to sweep (a momentum) is drawn anew each time.

    References:
        Geman & Geman (1984), Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images,
        IEEE PAMI 6(6).
        Liu, Wong & Kong (1995), Covariance structure and convergence rate of the Gibbs sampler with various scans,
        JRSS B 57(1).

    Args:
        blocks: pairs (coordinates, how): a sequence of column numbers, and a kernel, its name, or a function
            `draw(rng, position) -> (N, k)` that draws them exactly given the rest of `position` (N, d), for the very
            law that is sampled (so not under a temperature). None is each coordinate by itself, by slice sampling.

    Raises:
        MotesError: blocks that leave a coordinate out or go beyond the last (when the dimension is known), kernels on
            real and whole numbers together, or one that looks at other particles.
        ShapeError: a draw has another shape than its block.
    """

    blocks: tuple[tuple[Sequence[int], Kernel | str | Draw], ...] | None = None

    name: ClassVar[str] = "gibbs"
    anywhere: ClassVar[bool] = False
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("geman1984", "Gibbs sampling"),)

    def __post_init__(self) -> None:
        if self.blocks is None:
            return
        found = [(tuple(b), find_kernel(how) if isinstance(how, (str, Kernel)) else how) for b, how in self.blocks]
        if not found or any(not b or len(set(b)) < len(b) or min(b) < 0 for b, _ in found):
            raise MotesError(f"each block is some different column numbers 0, 1, ..., not {[b for b, _ in found]}")
        inner = [how for _, how in found if isinstance(how, Kernel)]
        if any(k.ensemble for k in inner) or len({k.discrete for k in inner}) > 1:
            raise MotesError("the kernels of Gibbs move particles one by one, and either real or whole numbers")
        learnt = {
            "blocks": tuple(found),
            "gradient": any(k.gradient for k in inner),
            "exact": all(k.exact for k in inner),
            "reversible": all(k.reversible for k in inner),
            "discrete": any(k.discrete for k in inner),
            "references": (*self.references, *(r for k in inner for r in k.references)),
        }
        for key, value in learnt.items():  # what the class says is true of the default alone
            object.__setattr__(self, key, value)

    @property
    def one_target(self) -> bool:
        return any(not isinstance(how, Kernel) for _, how in self.blocks or ())

    def __repr__(self) -> str:
        shown = [(b, how if isinstance(how, (Kernel, str)) else how.__qualname__) for b, how in self.blocks or ()]
        return f"Gibbs({', '.join(f'{list(b)}: {how}' for b, how in shown) or 'each coordinate'})"

    def _split(self, d: int) -> list[tuple[Tensor, Any]]:
        """Column numbers and kernels or draws, for dimension d."""
        blocks = self.blocks if self.blocks is not None else tuple(((i,), Slice()) for i in range(d))
        covered = {i for block, _ in blocks for i in block}
        if covered != set(range(d)):
            raise MotesError(
                f"the blocks must cover coordinates 0..{d - 1}; they leave out {sorted(set(range(d)) - covered)} and "
                f"name {sorted(covered - set(range(d)))} that are not there"
            )
        return [(torch.tensor(list(block)), how) for block, how in blocks]

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {
            str(b): how.start(len(block), dtype) if isinstance(how, Kernel) else {}
            for b, (block, how) in enumerate(self._split(d))
        }

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        out = {}
        for b, (block, how) in enumerate(self._split(state["position"].shape[1])):
            law = Conditional(target, state["position"], block)
            mine = parameters[str(b)]
            out[str(b)] = how.fit(mine, law, law.narrow(state), weight) if isinstance(how, Kernel) else mine
        return out

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        out = {}
        for b in parameters:
            seen = {k.split("/", 1)[1]: v for k, v in sweep.seen.items() if k.startswith(f"{b}/")}
            acceptance, diverged, evaluations = (seen.pop(k, None) for k in ("acceptance", "diverged", "evaluations"))
            if acceptance is None or evaluations is None:  # an exact draw
                out[b] = parameters[b]
                continue
            state = {k.removeprefix("state/"): seen.pop(k) for k in list(seen) if k.startswith("state/")}
            mine = Sweep(state, acceptance, float(evaluations[0]), diverged, seen)
            how = self._how(int(b))
            out[b] = how.learn(parameters[b], mine, weight)
        return out

    def _how(self, b: int) -> Kernel:
        how = Slice() if self.blocks is None else self.blocks[b][1]
        assert isinstance(how, Kernel)
        return how

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        blocks, n = self._split(state["position"].shape[1]), len(state["position"])
        seen: dict[str, Tensor] = {}
        evaluations, stale, diverged = 0.0, False, torch.zeros(n, dtype=torch.bool)
        state = dict(state)
        for b in rng.at("order").permutation(len(blocks)).tolist():
            (block, how), own = blocks[b], rng.at(f"block-{b}")
            if not isinstance(how, Kernel):
                x = state["position"]
                state["position"], stale = x.index_copy(1, block, self._drawn(how(own, x), n, block, x)), True
                continue
            if stale:
                state, stale = self._where_drawn(target, state), False
                evaluations += 1
            law = Conditional(target, state["position"], block, self.gradient)
            known = set(state)
            inner = how.enter(own.at("enter"), law, law.narrow(state), parameters[str(b)])
            sweep = how.sweep(own, law, inner, parameters[str(b)])
            state = {k: v for k, v in law.widen(sweep.state).items() if k in known}
            evaluations += sweep.evaluations
            diverged = diverged if sweep.diverged is None else diverged | sweep.diverged
            seen |= {f"{b}/{k}": v for k, v in sweep.seen.items()}
            seen |= {f"{b}/acceptance": sweep.acceptance, f"{b}/state/position": sweep.state["position"]}
            seen[f"{b}/evaluations"] = torch.full((n,), sweep.evaluations, dtype=torch.float64)
            if sweep.diverged is not None:
                seen[f"{b}/diverged"] = sweep.diverged
        if stale:
            state, evaluations = self._where_drawn(target, state), evaluations + 1
        rates = [v for k, v in seen.items() if k.endswith("/acceptance")]
        acceptance = torch.stack(rates).mean(0) if rates else torch.ones(n, dtype=torch.float64)
        return Sweep(state, acceptance, evaluations, diverged, seen)

    def _where_drawn(self, target: Target, state: State) -> State:
        """The state after exact draws, which are no trial points: nothing can reject them.

        Raises:
            MotesError: a draw left the support.
        """
        new = target.evaluate(state["position"], self.gradient)
        # a particle without density before has no law that could be drawn from
        lost = (target.log_density(state) > -torch.inf) & ~(target.log_density(new) > -torch.inf)
        if lost.any():
            index = lost.nonzero().flatten().tolist()
            raise MotesError(
                f"the exact draw of a block has density zero for {name_particles(index)}, the first of them at "
                f"{state['position'][index[0]].tolist()}: it is not the block's law given the other coordinates"
            )
        return new

    def _drawn(self, new: Tensor, n: int, block: Tensor, x: Tensor) -> Tensor:
        if not isinstance(new, Tensor) or tuple(new.shape) != (n, len(block)):
            what = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ShapeError(f"the draw of columns {block.tolist()} must be ({n}, {len(block)}), not {what}")
        return new.to(x.dtype)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        inner = self.blocks or ()
        return {
            f"{k} {list(block)}": v
            for b, (block, how) in enumerate(inner)
            if isinstance(how, Kernel)
            for k, v in how.describe(parameters[str(b)]).items()
        }
