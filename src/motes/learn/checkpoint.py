"""Checkpoints of a training: everything that the rest of it depends on, written, read and put back."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motes.core.files import store as files
from motes.core.files.runfile import before, newest
from motes.core.files.schema import anything, array, dictionary, number, record, tensor, whole
from motes.errors import FileError, warn


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


def save(
    path: str | os.PathLike[str],
    trees: dict[str, Any],
    meta: dict[str, Any],
    asked: Callable[[], Tensor],
    *,
    again: bool,
) -> bool:
    """Write a checkpoint with the losses `asked()`, and keep the one before it if that is of this training (`again`).

    Returns:
        Whether it was written; a failure is a warning.
    """
    try:
        files.write(path, {**trees, "probe": asked()}, meta, previous=before(path) if again else None)
    except Exception as error:  # noqa: BLE001 a full disk must not end what took hours
        warn(f"the training up to step {meta['steps']} could not be written to {path}: {error}; it goes on without")
        return False
    return True


SHOWN = 4
"""Differences that an error names."""
NEAR, FAR = 5e-4, 6e-3
"""How far losses may be on average from what they were, relative to their mean, without a word and with one: other
kernels move those of brain floats by 1.4e-4, and going from these to single precision by 4.8e-3."""
NOTHING = ("nothing",)
"""What one description has and the other has not; no JSON is equal to it."""
META = record(training=dictionary(), steps=whole(0), held_out=array(array(number(), 3)))
TREES = record(
    network=dictionary(),
    averaged=dictionary(),
    optimiser=dictionary(dictionary()),
    losses=anything,
    probe=tensor(torch.float64, None),
)


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
    asked: Callable[[], Tensor],
) -> tuple[int, Tensor, list[tuple[int, float, float]]]:
    """Put a checkpoint back, or leave the network as it was and raise.

    Args:
        asked: returns the losses of some examples under the weights put back, which tell the objective from another.

    Returns:
        The steps done, the losses and the held-out losses.

    Raises:
        FileError: the checkpoint is of another training, network or objective.
    """
    (trees, meta), said = newest(path, read)
    other = list(differences(meta["training"], about, ""))
    if other:
        more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise FileError(
            f"{path} is of another training: {'; '.join(other[:SHOWN])}{more}. Take back what differs, or train to "
            "another path"
        )
    steps = about["plan"]["steps"]
    losses = tensor(torch.float64, steps)(trees["losses"], "losses")
    if meta["steps"] > steps:
        raise FileError(f"{path} stands at step {meta['steps']} of {steps}")
    first = copy.deepcopy(network.state_dict())
    try:
        put_back(path, trees, network, averaged, optimiser)
        compare(path, trees["probe"], asked)
    except BaseException:
        network.load_state_dict(first)
        raise
    if said:
        warn(f"{said}: it stands at step {meta['steps']}")
    return meta["steps"], losses, [tuple(row) for row in meta["held_out"]]


def put_back(
    path: str | os.PathLike[str],
    trees: dict[str, Any],
    network: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Load the weights and the optimiser's memory of a checkpoint."""
    try:
        network.load_state_dict(trees["network"])
        averaged.load_state_dict(trees["averaged"])
        memory = {int(k): v for k, v in trees["optimiser"].items()}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": memory})
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{path} is of another network: {error}") from error


def compare(path: str | os.PathLike[str], then: Tensor, asked: Callable[[], Tensor]) -> None:
    """Refuse an objective whose losses of some examples are not what they were when the checkpoint was written.

    Raises:
        FileError: they differ by more than `FAR`, and the objective says the same when asked again. If it does not, or
            if they differ by less, a warning says so.
    """
    now = asked()
    if (moved := change(then, now)) <= NEAR:
        return
    if moved <= FAR:
        warn(
            f"{path} is gone on from, but the losses of its examples are not quite what they were (by {moved:.1%}): "
            "this is another arithmetic (machine, number format), or the objective has changed a little"
        )
        return
    if change(now, asked()) > NEAR:
        warn(
            f"{path} is gone on from, but whether the objective is what it was cannot be told: asked twice about the "
            "same examples, it gives other losses. Draw random numbers from the `rng` that it is passed"
        )
        return
    said = f"it gives {len(now)} losses where {len(then)} were saved"
    if then.shape == now.shape:
        i = int((then - now).abs().nan_to_num(math.inf).argmax())
        said = f"the loss of one of its examples was {then[i]:.6g} when it was saved and is {now[i]:.6g} now"
    raise FileError(f"{path} is of another objective: {said}. Take back what has changed, or train to another path")


def change(then: Tensor, now: Tensor) -> float:
    """How far losses (B,) moved on average, relative to their mean; infinity where others are NaN or infinite."""
    if then.shape != now.shape:
        return math.inf
    odd = ~(then.isfinite() & now.isfinite())
    if not torch.equal(then[odd].nan_to_num(0.5), now[odd].nan_to_num(0.5)):
        return math.inf
    moved = (now - then)[~odd].abs().sum()
    return float(moved / then[~odd].abs().sum()) if moved > 0 else 0.0


def differences(was: Any, now: Any, where: str) -> Iterator[str]:
    """Where two descriptions differ, leaf by leaf."""
    if isinstance(was, dict) and isinstance(now, dict):
        for k in dict.fromkeys((*now, *was)):
            yield from differences(was.get(k, NOTHING), now.get(k, NOTHING), f"{where}.{k}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (a, b) in enumerate(zip(was, now, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif was != now:
        yield f"{where}: there {told(was)}, here {told(now)}"


def told(value: Any) -> str:
    """A leaf of a description, for a message."""
    return "nothing" if value is NOTHING else str(value)[:80]
