"""The short way to train: a network and data in, a denoiser out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motes.diffusion.arguments import check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser, unknown
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import TokenProcess
from motes.diffusion.processes.process import Process
from motes.diffusion.training.ambient import MissingParts, NoisyData
from motes.diffusion.training.denoising import Denoising, Predicts, data_of
from motes.diffusion.training.energy import Distillation, Energy
from motes.diffusion.training.tokens import TokenDenoising
from motes.errors import MotesError
from motes.learn.loop import Fitted, fit
from motes.learn.objective import Objective
from motes.learn.plan import Plan


def train(
    network: nn.Module,
    data: Tensor | tuple[Tensor, ...],
    process: Process,
    *,
    objective: Objective | None = None,
    predicts: Predicts | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    until: int | None = None,
    progress: bool = True,
    name: str = "trained",
    **options: Any,
) -> Fitted[Denoiser]:
    """Train a denoiser of points, images or anything else in tensors.

    Args:
        network: called as network(x (N, ...), t (N,)); where there are labels, self-conditioning or masks, with
            `label=`, `estimate=` or `mask=` as well. An `Energy` has its score as a gradient.
        data: examples (M, ...), or a tuple: (examples, labels (M,) int64), or (examples, masks) with `MissingParts`.
        process: the noising process.
        objective: `MissingParts`, `NoisyData` or `Distillation`; None is `Denoising` with the `options`.
        predicts: what the network returns; by default "velocity", "noise" for an `Energy`, and what the objective says.
        plan, seed, path, until, progress: as for `fit`.
        name: of the denoiser.
        **options: of `Denoising`: weighting, spacing, condition, perturbation, self_conditioning, drop, symmetry.

    Raises:
        Diverged, ShapeError, FileError: as `fit` does.
        ValueError: options beside an objective, which has its own, or a prediction that does not fit it.

    Example:
        >>> import motes
        >>> from motes.diffusion import VariancePreserving
        >>> from motes.learn import PointNetwork, build
        >>> from motes.diffusion.training import train
        >>> from motes.learn import Plan
        >>> points = motes.Rng(0).normal((500, 2), dtype=torch.float32)
        >>> network = build(lambda: PointNetwork(2, width=16), seed=motes.Rng(1))
        >>> trained = train(network, points, VariancePreserving(), plan=Plan(steps=20, batch=32), progress=False)
        >>> trained.model.data(torch.zeros(1, 2), 0.5).shape
        torch.Size([1, 2])
    """
    check_tensors(**{f"data[{i}]": d for i, d in enumerate(data if isinstance(data, tuple) else (data,))})
    if objective is None:
        predicts = predicts or ("noise" if isinstance(network, Energy) else "velocity")
        objective = Denoising(process, predicts=predicts, **options)
    else:
        predicts = settled(objective, predicts, options)
    fitted = fit(network, objective, data, plan=plan, seed=seed, path=path, until=until, progress=progress)
    told, model = "t", fitted.network
    if isinstance(objective, Denoising):
        told = objective.condition
        if objective.self_conditioning:
            model = SelfConditioned(fitted.network, process, predicts)
    elif isinstance(objective, MissingParts):
        model = Whole(fitted.network)
    density = fitted.network.log_density if isinstance(fitted.network, Energy) else unknown
    denoiser = Denoiser(model, process, predicts=predicts, condition=told, name=name, log_density=density)
    return Fitted(fitted.network, fitted.losses, fitted.held_out, denoiser)


def settled(objective: Objective, predicts: Predicts | None, options: dict[str, Any]) -> Predicts:
    """What the network of an objective predicts."""
    if options:
        raise MotesError(f"{', '.join(options)}: give these to the objective, {type(objective).__name__}, instead")
    known: dict[type, Predicts] = {MissingParts: "data", NoisyData: "data", Distillation: "noise"}
    wanted: Any = objective.predicts if isinstance(objective, Denoising) else known.get(type(objective), predicts)
    if wanted is None or predicts not in (None, wanted):
        raise MotesError(
            f"{type(objective).__name__} trains a prediction of {wanted or 'something of yours'}: say so with predicts="
            f", which is {predicts!r}"
        )
    return wanted


def train_discrete(
    network: nn.Module,
    tokens: Tensor | tuple[Tensor, Tensor],
    process: TokenProcess,
    *,
    weighting: Literal["bound", "plain"] | None = None,
    drop: float = 0.0,
    plan: Plan | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    until: int | None = None,
    progress: bool = True,
    name: str = "trained",
) -> Fitted[TokenModel]:
    """Train a denoiser of tokens, masked or noised in another way.

    Args:
        network: called as network(tokens (N, L), t (N,)), with `label=` where there are labels, for logits (N, L, V).
        tokens: (M, L) int64, or (tokens, labels (M,) int64).
        process: the noising process.
        weighting, drop: as for `TokenDenoising`.
        plan, seed, path, until, progress, name: as for `train`.

    Raises:
        Diverged, ShapeError, FileError: as `fit` does.
    """
    data = tokens if isinstance(tokens, tuple) else (tokens,)
    check_tensors(**{f"tokens[{i}]": d for i, d in enumerate(data)})
    process.check(data[0])
    objective = TokenDenoising(process, weighting=weighting, drop=drop)
    fitted = fit(network, objective, data, plan=plan, seed=seed, path=path, until=until, progress=progress)
    model = TokenModel(fitted.network, process, data[0].shape[1], name=name)
    return Fitted(fitted.network, fitted.losses, fitted.held_out, model)


@dataclass(frozen=True)
class SelfConditioned:
    """A network trained with self-conditioning, as a function of state and time: it is asked twice.

    The first answer, without an estimate, is the estimate of the second. Nothing is carried from step to step, so that
    particles can be resampled and weights stay what they are.
    """

    network: Callable[..., Tensor]
    process: Process
    predicts: Predicts

    def __call__(self, x: Tensor, t: Tensor, **more: Any) -> Tensor:
        first = self.network(x, t, estimate=torch.zeros_like(x), **more)
        return self.network(x, t, estimate=data_of(self.process, self.predicts, first, x, t), **more)


@dataclass(frozen=True)
class Whole:
    """A network that takes a mask, asked about states with nothing missing."""

    network: Callable[..., Tensor]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x, t, mask=torch.ones_like(x))
