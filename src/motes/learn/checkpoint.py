"""Checkpoints of a training: everything that the rest of it depends on, written, read and put back."""

from __future__ import annotations

import copy
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
NEAR = 1e-3
"""How far a loss may be from what it was, relative to itself and the mean one: kernels of another machine round."""
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
        FileError: they differ, and the objective says the same when asked again. If it does not, a warning says so.
    """
    now = asked()
    far = ~alike(then, now)
    if not far.any():
        return
    if not alike(now, asked()).all():
        warn(
            f"{path} is gone on from, but whether the objective is what it was cannot be told: asked twice about the "
            "same examples, it gives other losses. Draw random numbers from the `rng` that it is passed"
        )
        return
    said = f"it gives {len(now)} losses where {len(then)} were saved"
    if then.shape == now.shape:
        i = int(far.nonzero()[0])
        said = f"the loss of one of its examples was {then[i]:.6g} when it was saved and is {now[i]:.6g} now"
    raise FileError(f"{path} is of another objective: {said}. Take back what has changed, or train to another path")


def alike(then: Tensor, now: Tensor) -> Tensor:
    """Which losses (B,) are the same up to rounding; NaN is like NaN and infinity like itself."""
    if then.shape != now.shape:
        return torch.zeros(1, dtype=torch.bool)
    finite = torch.isfinite(then)
    near = (now - then).abs() <= NEAR * (then.abs() + then[finite].abs().mean())
    return (then == now) | (then.isnan() & now.isnan()) | (finite & near)


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
