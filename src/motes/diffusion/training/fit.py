"""The loop that trains: batches by address, averaged weights, held-out losses, and files to go on from."""

from __future__ import annotations

import copy
import math
import os
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from motes.core.files import store as files
from motes.core.files.lock import Lock
from motes.core.files.runfile import before, newest
from motes.core.files.schema import anything, array, dictionary, number, record, tensor, whole
from motes.core.files.settings import described
from motes.diffusion.training.objective import Diverged, Objective
from motes.errors import FileError, MotesError, ShapeError, warn
from motes.rng import Rng


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        steps: batches in all.
        batch: examples a batch, drawn with replacement.
        rate: the learning rate of Adam at its highest; it rises over `warm_up` steps and falls like a cosine.
        warm_up: steps until then.
        average: how much of the averaged weights is kept a step, less in the first steps; 0 is no average.
        clip: the largest norm of a gradient; None is any.
        held_out: the share of the examples that training never sees.
        every: steps between two held-out losses, and between two checkpoints.
        most: held-out examples that are looked at.

    Raises:
        ValueError: a value outside its range.
    """

    steps: int = 2000
    _: KW_ONLY
    batch: int = 128
    rate: float = 2e-3
    warm_up: int = 100
    average: float = 0.999
    clip: float | None = 1.0
    held_out: float = 0.1
    every: int = 500
    most: int = 1024

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "every", "most"):
            if getattr(self, name) < 1:
                raise MotesError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("average", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise MotesError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.rate <= 0 or self.warm_up < 0 or (self.clip is not None and self.clip <= 0):
            raise MotesError(f"need rate > 0, warm_up >= 0, clip > 0, not {self.rate}, {self.warm_up}, {self.clip}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warm_up, 1))
        return self.rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


D = TypeVar("D")


@dataclass(frozen=True)
class Fitted(Generic[D]):
    """A trained network.

    `network` has the averaged weights, ready for use; `losses` (steps,) are those of the batches; `held_out` are rows
    of (step, mean loss, its standard error) on the examples kept aside, always under the same noise.
    `denoiser` is what samplers take: a `Denoiser` of `train`, a `TokenModel` of `train_discrete`, None of `fit`.
    """

    network: nn.Module
    losses: Tensor
    held_out: list[tuple[int, float, float]]
    denoiser: D

    def __str__(self) -> str:
        recent = self.losses[-max(1, len(self.losses) // 20) :].mean()
        text = f"{len(self.losses)} steps, loss {float(recent):.4f}"
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
        objective: the losses of a batch.
        data: examples (M, ...), or several such tensors that belong together row by row.
        plan: how long and how fast.
        seed: of batches, noise and the held-out part.
        path: a file for checkpoints; where it exists, training goes on from it. The last two are kept, and one that
            cannot be written is a warning.
        until: stop after this step, to go on another time.
        progress: show a bar.

    Raises:
        Diverged: a loss or gradient is NaN or infinite; the message names step and examples.
        ShapeError: the data do not fit together, or there are none to train on.
        FileError: the file at `path` belongs to another network, objective, plan, seed or amount of data, or another
            training writes there.

    References:
        Kingma & Ba (2015), Adam: A Method for Stochastic Optimization, ICLR.
        Polyak & Juditsky (1992), Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30.
    """
    plan, data = plan or Plan(), data if isinstance(data, tuple) else (data,)
    kept, held = parted(data, plan, Rng(seed))
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], plan.rate, betas=(0.9, 0.99))
    losses, history = torch.full((plan.steps,), torch.nan, dtype=torch.float64), []
    about = {"objective": described(objective), "plan": asdict(plan), "seed": seed, "examples": len(data[0])}
    last = plan.steps if until is None else min(until, plan.steps)
    network.train()
    with nullcontext() if path is None else Lock(Path(path)):
        first = 0
        if path is not None and Path(path).is_file():
            first, losses, history = restore(path, network, averaged, optimiser, about)
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
                        kept_before |= save(path, trees, meta, again=kept_before)
    return Fitted(averaged.eval(), losses[:last], history, None)


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
    each = objective(network, rng, batch)
    if each.shape != pick.shape:
        raise ShapeError(f"an objective returns one loss for each of {len(pick)} examples, not {tuple(each.shape)}")
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


def state(
    network: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    about: dict[str, Any],
    steps: int,
    losses: Tensor,
    history: list[tuple[int, float, float]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything that the rest of the training depends on, as trees and JSON."""
    memory = {str(k): v for k, v in optimiser.state_dict()["state"].items()}
    trees = {
        "network": dict(network.state_dict()),
        "averaged": dict(averaged.state_dict()),
        "optimiser": memory,
        "losses": losses,
    }
    return trees, {"training": about, "steps": steps, "held_out": history}


def save(path: str | os.PathLike[str], trees: dict[str, Any], meta: dict[str, Any], *, again: bool) -> bool:
    """Write a checkpoint and keep the one before it, if that is of this training (`again`); a failure is a warning.

    Returns:
        Whether it was written.
    """
    try:
        files.write(path, trees, meta, previous=before(path) if again else None)
    except Exception as error:  # noqa: BLE001 a full disk must not end what took hours
        warn(f"the training up to step {meta['steps']} could not be written to {path}: {error}; it goes on without")
        return False
    return True


META = record(training=dictionary(), steps=whole(0), held_out=array(array(number(), 3)))
TREES = record(network=dictionary(), averaged=dictionary(), optimiser=dictionary(dictionary()), losses=anything)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trees and the JSON of a checkpoint of training.

    Raises:
        FileNotFoundError, FileError: there is none, or it is damaged or something else.
    """
    trees, meta = files.read(path)
    if "training" not in meta:
        raise FileError(f"{path} is not a checkpoint of training")
    try:
        return TREES(trees, "the file"), META(meta, "the header")
    except FileError as error:
        raise FileError(f"{path} is no checkpoint of training that motes can read: {error}") from error


def restore(
    path: str | os.PathLike[str],
    network: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    about: dict[str, Any],
) -> tuple[int, Tensor, list[tuple[int, float, float]]]:
    """Put a checkpoint back; returns the steps done, the losses and the held-out losses."""
    (trees, meta), said = newest(path, read)
    other = [k for k, v in about.items() if meta["training"].get(k) != v]
    if other:
        was = {k: meta["training"].get(k) for k in other}
        raise FileError(f"{path} is of another training: there {was}, here { {k: about[k] for k in other} }")
    steps = about["plan"]["steps"]
    losses = tensor(torch.float64, steps)(trees["losses"], "losses")
    if meta["steps"] > steps:
        raise FileError(f"{path} stands at step {meta['steps']} of {steps}")
    try:
        network.load_state_dict(trees["network"])
        averaged.load_state_dict(trees["averaged"])
        memory = {int(k): v for k, v in trees["optimiser"].items()}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": memory})
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{path} is of another network: {error}") from error
    if said:
        warn(f"{said}: it stands at step {meta['steps']}")
    return meta["steps"], losses, [tuple(row) for row in meta["held_out"]]
