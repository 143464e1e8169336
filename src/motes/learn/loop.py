"""The loop that fits a network: batches by address, averaged weights, held-out losses, and files to go on from."""

from __future__ import annotations

import copy
import math
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from motes.core.files.lock import Lock
from motes.core.files.settings import FUNCTIONS, digest
from motes.errors import MotesError, ShapeError, WrongType, plural
from motes.learn.checkpoint import restore, save, state
from motes.learn.objective import Diverged, Objective
from motes.learn.plan import Plan
from motes.rng import Rng

M = TypeVar("M")


@dataclass(frozen=True)
class Fitted(Generic[M]):
    """A trained network.

    `network` has the averaged weights, ready for use; `losses` (steps,) are those of the batches; `held_out` are rows
    of (step, mean loss, its standard error) on the examples kept aside, always under the same noise.
    `model` is what samplers take, made of the network: a `Denoiser` of `diffusion.training.train`, None of `fit`.
    """

    network: nn.Module
    losses: Tensor
    held_out: list[tuple[int, float, float]]
    model: M

    def __str__(self) -> str:
        recent = self.losses[-max(1, len(self.losses) // 20) :].mean()
        text = f"{plural(len(self.losses), 'step')}, loss {float(recent):.4f}"
        return text + (f", held out {self.held_out[-1][1]:.4f} ± {self.held_out[-1][2]:.4f}" if self.held_out else "")


def fit(
    network: nn.Module,
    objective: Objective,
    data: Tensor | tuple[Tensor, ...],
    *,
    plan: Plan | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    until: int | None = None,
    progress: bool = True,
) -> Fitted[None]:
    """Train a network and return it with averaged weights.

    Adam with a warm-up, a rate that falls like a cosine, and an exponential average of the weights. The network that is
    passed is the one that is trained; the one that is returned is a copy. Every random number has an address, so the
    same call gives the same weights on one machine, also when it was broken off and resumed.

    Args:
        network: what the objective trains.
        objective: called as objective(network, rng, batch) for the losses (B,) of a batch.
        data: examples (M, ...), or several such tensors that belong together row by row.
        plan: how long and how fast.
        seed: of batches, noise and the held-out part.
        path: a file for checkpoints; where it exists, training goes on from it. The last two are kept, and one that
            cannot be written is a warning.
        until: stop after this step, to go on another time.
        progress: show a bar.

    Returns:
        A `Fitted`: `network`, a copy with the averaged weights in evaluation mode; `losses` of the batches; `held_out`
        losses. Its `model` is None, since only `diffusion.training` knows what a sampler would take.

    Raises:
        Diverged: a loss or gradient is NaN or infinite; the message names step and examples.
        ShapeError: the data do not fit together or not the network's type, or there are none to train on.
        WrongType: the objective is a class, or data are no tensors.
        FileError: the file at `path` belongs to another network, plan, seed or data, or to an objective of another
            class or with other losses of the first examples; or another training writes there.

    References:
        Kingma & Ba (2015), Adam: A Method for Stochastic Optimization, ICLR.
        Polyak & Juditsky (1992), Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30.
    """
    plan, data = plan or Plan(), data if isinstance(data, tuple) else (data,)
    check(network, objective, data)
    kept, held = parted(data, plan, Rng(seed))
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], plan.rate, betas=(0.9, 0.99))
    losses, history = torch.full((plan.steps,), torch.nan, dtype=torch.float64), []
    about = {}
    if path is not None:
        held_by = [{"shape": list(d.shape), "digest": digest(d)} for d in data]
        kind = "function" if isinstance(objective, FUNCTIONS) else type(objective).__name__
        about = {"objective": kind, "plan": asdict(plan), "seed": seed, "data": held_by}

    def asked() -> Tensor:
        return probe(averaged, objective, tuple(d[kept[: plan.batch]] for d in data), Rng(seed).at("probe"))

    last = plan.steps if until is None else min(until, plan.steps)
    network.train()
    with nullcontext() if path is None else Lock(Path(path)):
        first = 0
        if path is not None and Path(path).is_file():
            first, losses, history = restore(path, network, averaged, optimiser, about, asked)
        kept_before = first > 0
        with tqdm(range(first, last), initial=first, total=last, desc="training", disable=not progress) as bar:
            for k in bar:
                for group in optimiser.param_groups:
                    group["lr"] = plan.rate_at(k)
                rng = Rng(seed).at("train", step=k)
                pick = kept[rng.at("pick").integers((plan.batch,), len(kept))]
                losses[k] = step(network, objective, rng, tuple(d[pick] for d in data), optimiser, plan, k, pick)
                with torch.no_grad():
                    keep = min(plan.average, (k + 1) / (k + 20)) if plan.average else 0.0
                    for a, p in zip(averaged.parameters(), network.parameters(), strict=True):
                        a.lerp_(p, 1 - keep)
                    for a, p in zip(averaged.buffers(), network.buffers(), strict=True):
                        a.copy_(p)
                if (k + 1) % plan.every == 0 or k + 1 == last:
                    if len(held):
                        history.append((k + 1, *held_out(averaged, objective, data, held, plan, Rng(seed))))
                        bar.set_postfix_str(f"held out {history[-1][1]:.4f}")
                    if path is not None:
                        trees, meta = state(network, averaged, optimiser, about, k + 1, losses, history)
                        kept_before |= save(path, trees, meta, asked, again=kept_before)
    return Fitted(averaged.eval(), losses[:last], history, None)


def check(network: nn.Module, objective: Objective, data: tuple[Tensor, ...]) -> None:
    """Refuse what could not be trained, before anything is begun."""
    if isinstance(objective, type):
        raise WrongType(f"the objective is a class; give an instance of it, {objective.__name__}(...)")
    for d in data:
        if not isinstance(d, Tensor):
            raise WrongType(
                f"data are tensors, or a tuple of them, not {type(d).__name__}: torch.as_tensor(data, "
                "dtype=torch.float32) makes one"
            )
    if not any(p.requires_grad for p in network.parameters()):
        raise MotesError("the network has no parameters to train: none has requires_grad")


def floating(batch: tuple[Tensor, ...]) -> set[torch.dtype]:
    return {d.dtype for d in batch if d.is_floating_point()}


def parted(data: tuple[Tensor, ...], plan: Plan, rng: Rng) -> tuple[Tensor, Tensor]:
    """Which examples are trained on and which are kept aside, in a random order."""
    if not data or any(len(d) != len(data[0]) for d in data):
        raise ShapeError(f"tensors of data need one length, not {[len(d) for d in data]}")
    many = len(data[0])
    aside = round(plan.held_out * many)
    if many - aside < 1:
        raise ShapeError(f"{many} examples, of which {aside} are kept aside, leave none to train on")
    order = rng.at("held out").permutation(many)
    return order[aside:], order[:aside]


def losses_of(network: nn.Module, objective: Objective, batch: tuple[Tensor, ...], rng: Rng) -> Tensor:
    """The losses (B,) that an objective gives a batch.

    Raises:
        ShapeError: there are more or fewer of them, or data and network are of two types.
    """
    try:
        each = objective(network, rng, batch)
    except RuntimeError as error:
        own = {p.dtype for p in network.parameters()}
        if isinstance(error, MotesError) or not (other := floating(batch) - own):
            raise
        raise ShapeError(
            f"the data are {other.pop()}, the network {', '.join(map(str, own))}: convert one, data.to({own.pop()}) "
            f"({error})"
        ) from error
    if each.shape != (len(batch[0]),):
        raise ShapeError(f"an objective returns one loss for each of {len(batch[0])} examples, not {tuple(each.shape)}")
    return each


def probe(network: nn.Module, objective: Objective, batch: tuple[Tensor, ...], rng: Rng) -> Tensor:
    """The losses (B,) of a network in evaluation mode, float64 on the CPU, by which an objective is told from another.

    The modes of the network are afterwards what they were.
    """
    modes = [(m, m.training) for m in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            return losses_of(network, objective, batch, rng).cpu().to(torch.float64)
    finally:
        for m, training in modes:
            m.training = training


def step(
    network: nn.Module,
    objective: Objective,
    rng: Rng,
    batch: tuple[Tensor, ...],
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    k: int,
    pick: Tensor,
) -> float:
    """One step of Adam; returns the mean loss of the batch."""
    optimiser.zero_grad(set_to_none=True)
    each = losses_of(network, objective, batch, rng)
    value = each.mean()
    loss = float(value.detach())
    if not math.isfinite(loss):
        bad = pick[~torch.isfinite(each.detach())].tolist()
        raise Diverged(
            f"step {k}: the loss of examples {bad[:8]} is NaN or infinite ({len(bad)} of {len(pick)}); look at these "
            f"data, or lower rate={plan.rate} or clip={plan.clip}"
        )
    value.backward()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, torch.inf if plan.clip is None else plan.clip)
    if not math.isfinite(float(norm)):
        raise Diverged(f"step {k}: the gradient is NaN or infinite although the loss is {loss:.4g}")
    optimiser.step()
    return loss


def held_out(
    network: nn.Module, objective: Objective, data: tuple[Tensor, ...], held: Tensor, plan: Plan, rng: Rng
) -> tuple[float, float]:
    """The mean loss on examples kept aside and its standard error over them."""
    network.eval()
    with torch.no_grad():
        parts = held[: plan.most].split(plan.batch)
        each = [objective(network, rng.at("check", step=i), tuple(d[p] for d in data)) for i, p in enumerate(parts)]
    loss = torch.cat(each).to(torch.float64)
    return float(loss.mean()), float(loss.std() / math.sqrt(len(loss))) if len(loss) > 1 else math.nan
