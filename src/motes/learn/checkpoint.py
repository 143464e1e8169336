"""Checkpoints of a training: everything that the rest of it depends on, written, read and put back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motes.core.files import store as files
from motes.core.files.runfile import before, newest
from motes.core.files.schema import anything, array, dictionary, number, record, tensor, whole
from motes.errors import FileError, warn
from motes.learn.identity import differences


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


SHOWN = 4
"""Differences that an error names."""
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
    other = list(differences(meta["training"], about, ""))
    if other:
        more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise FileError(
            f"{path} is of another training: {'; '.join(other[:SHOWN])}{more}. Take back what differs, or train to "
            "another path. (What may differ, such as a counter, an objective leaves out of a method settings().)"
        )
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
