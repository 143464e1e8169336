"""The first weights of a network, by address."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from motes.errors import MotesError
from motes.rng import Rng
from motes.rng.seed import seeded

Network = TypeVar("Network", bound=nn.Module)


def build(make: Callable[[], Network], *, seed: int | Rng, device: torch.device | str = "cpu") -> Network:
    """A new network whose first weights come from `seed`; the generators of torch are left alone.

    Args:
        make: returns the network; it must not hold buffers that are computed when it is made.
        seed: a whole number or an Rng, of the weights; each is drawn at its own name.
        device: where the weights live.

    Raises:
        ValueError: the network holds buffers, whose values would be lost.

    Example:
        >>> import motes
        >>> from motes.learn import PointNetwork, build
        >>> network = build(lambda: PointNetwork(2), seed=motes.Rng(0))
        >>> network(torch.zeros(3, 2), torch.zeros(3)).shape
        torch.Size([3, 2])
    """
    with torch.device("meta"):
        network = make()
    held = [name for name, _ in network.named_buffers()]
    if held:
        raise MotesError(f"the network holds buffers ({', '.join(held)}); make it yourself and call `initialise`")
    network.to_empty(device=device)
    initialise(network, seed=seed)
    return network


def initialise(network: nn.Module, *, seed: int | Rng) -> None:
    """Draw every weight anew: normal, scaled by fan-in; zero for biases and for modules called conv2 or last.

    Weights of one axis in a module whose name holds "norm" become one. Residual blocks thus start as the identity and
    a network that ends in `last` starts by predicting zero.
    """
    rng = seeded(seed)
    for name, p in network.named_parameters():
        module = name.rpartition(".")[0].rpartition(".")[2]
        with torch.no_grad():
            if p.ndim == 1:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif module in ("conv2", "last"):
                p.zero_()
            else:
                p.copy_(rng.at(name).normal(tuple(p.shape), dtype=torch.float32) / math.sqrt(p[0].numel()))
