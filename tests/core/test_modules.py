"""Networks in training mode are found wherever they are held; values without gradients are named."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from motes.core.modules import gradient, in_training, networks, refuse_training_mode
from motes.errors import MotesError


class Functional(nn.Module):
    """Drops without a Dropout of its own."""

    def forward(self, x):
        return F.dropout(x, 0.2, self.training)


class Held:
    def __init__(self, network):
        self.parts = {"first": [network]}

    def __call__(self, x):
        return self.parts["first"][0](x)


DROPS = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))


def by_global(x):
    return [DROPS(row) for row in x]


def closing(network):
    return lambda x: network(x)


HOLDERS = {
    "itself": lambda network: network,
    "closure": closing,
    "bound": lambda network: network.forward,
    "partial": lambda network: partial(network, 1),
    "object": Held,
    "deep": lambda network: closing(closing(Held(network))),
    "default": lambda network: lambda x, f=network: f(x),
}
PARTS = {
    "dropout": lambda: nn.Dropout(0.1),
    "batch norm": lambda: nn.BatchNorm1d(2),
    "functional": Functional,
    "transformer": lambda: nn.TransformerEncoderLayer(2, 1, 4),
    "recurrent": lambda: nn.LSTM(2, 2, 2, dropout=0.5),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_network_in_training_mode_is_refused_wherever_it_is_held(part, holder):
    network = nn.Sequential(nn.Linear(2, 2), PARTS[part]())
    with pytest.raises(MotesError, match=r"the reward is a network in training mode, or holds one.*\.eval\(\)"):
        refuse_training_mode(HOLDERS[holder](network), "the reward")
    refuse_training_mode(HOLDERS[holder](network.eval()), "the reward")


def test_a_global_network_is_found():
    DROPS.train()
    assert networks(by_global) == [DROPS]
    with pytest.raises(MotesError, match="'1' \\(a Dropout\\)"):
        refuse_training_mode(by_global, "the reward")
    DROPS.eval()
    refuse_training_mode(by_global, "the reward")


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(2, 2), nn.SiLU(), nn.LayerNorm(2), nn.GroupNorm(1, 2)),
        nn.Dropout(0.0),
        nn.LSTM(2, 2),
        nn.MultiheadAttention(2, 1),
        nn.Conv2d(1, 1, 3),
    ],
)
def test_networks_that_compute_the_same_in_both_modes_pass(network):
    assert network.training
    refuse_training_mode(closing(network), "the reward")


def test_one_part_that_was_left_in_training_mode_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.BatchNorm1d(2)).eval()
    network[2].train()
    assert in_training(network) == "2"


def test_what_holds_no_network_passes():
    for given in (len, 3, "text", None, lambda x: x, partial(max, 1), torch.zeros(2), [1, {"a": 2}]):
        refuse_training_mode(given, "the reward")
        assert networks(given) == []


def test_a_ring_of_objects_comes_to_an_end():
    held: list[object] = [Held(nn.Dropout(0.5))]
    held.append(held)
    assert len(networks(held)) == 1


def test_a_gradient_is_given_or_its_absence_is_named():
    network = nn.Linear(3, 1, dtype=torch.float64)
    x = torch.ones(2, 3, dtype=torch.float64).requires_grad_()
    assert torch.equal(gradient(network(x)[:, 0], x, "the reward"), network.weight.detach().expand(2, 3))
    with torch.no_grad():
        lost = network(x)[:, 0]
    # the last one asks for gradients, of the network's parameters
    for value in (lost, network(x)[:, 0].detach(), network(x.detach())[:, 0]):
        with pytest.raises(MotesError, match=r"the reward has no gradient with respect to the image: .*; or use None"):
            gradient(value, x, "the reward", of="the image", instead="use None")
