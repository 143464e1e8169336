"""Training of token denoisers: the loss is the bound it promises, and its optimum is the exact prediction."""

import math

import pytest
import torch

from motes import Rng
from motes.diffusion.discrete import Masked, Uniform, joint
from motes.diffusion.networks import SequenceNetwork
from motes.diffusion.training import TokenDenoising, train_discrete
from motes.errors import ShapeError, UnknownName
from motes.learn import Plan, build

TABLE = Rng(0).exponential((3, 3, 3)) ** 2
TABLE = TABLE / TABLE.sum()
ENTROPY = -float((TABLE * TABLE.log()).sum())


def draws(many: int) -> torch.Tensor:
    code = Rng(1).categorical(TABLE.flatten().log(), many)
    return torch.stack([code // 9, code // 3 % 3, code % 3], 1)


def losses(process, model, weighting=None) -> torch.Tensor:
    return TokenDenoising(process, weighting=weighting)(model, Rng(2), (draws(100_000),))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "loglinear"])
def test_the_bound_of_the_exact_model_is_the_entropy(schedule):
    """Chain rule, in all orders at once: H / L for any schedule; of independent places it is the sum of theirs.

    4.9 standard errors are below 3 % of the entropy; the twin without weights is off by more.
    """
    process = Masked(3, schedule=schedule)
    exact = losses(process, joint(process, TABLE))
    error = float(exact.std()) / math.sqrt(len(exact))
    assert abs(float(exact.mean()) - ENTROPY / 3) < 4.9 * error < 0.03 * ENTROPY / 3
    marginals = [TABLE.sum(tuple(j for j in range(3) if j != i)) for i in range(3)]
    apart = torch.einsum("a,b,c->abc", *marginals)
    wrong = losses(process, joint(process, apart))
    total = -sum(float((m * m.log()).sum()) for m in marginals)
    assert abs(float(wrong.mean()) - total / 3) < 4.9 * float(wrong.std()) / math.sqrt(len(wrong))
    twin = losses(process, joint(process, TABLE), "plain")
    assert abs(float(twin.mean()) - ENTROPY / 3) > 10 * float(twin.std()) / math.sqrt(len(twin))


@pytest.mark.parametrize("process", [Masked(3), Uniform(3)], ids=str)
def test_the_exact_prediction_has_the_least_loss(process):
    """Example by example the difference to a sharper and to a flatter model has a mean far above its error."""
    exact = joint(process, TABLE)
    for power in (0.8, 1.25):
        gap = losses(process, lambda x, t, p=power: p * exact(x, t).clamp(min=-1e4)) - losses(process, exact)
        assert float(gap.mean()) > 10 * float(gap.std()) / math.sqrt(len(gap))


def test_a_trained_network_predicts_what_enumeration_says():
    process, exact = Masked(3), joint(Masked(3), TABLE)
    network = build(lambda: SequenceNetwork(3, channels=16), seed=Rng(3))
    plan = Plan(steps=250, batch=128, rate=5e-3, average=0.98)
    trained = train_discrete(network, draws(20_000), process, plan=plan, seed=1, progress=False)
    x = process.noise(Rng(4), draws(2000), 0.5)
    with torch.no_grad():
        found, wanted = trained.model(x, 0.5).double(), exact(x, 0.5)
    masked = x < 0
    gap = torch.where(wanted > -torch.inf, wanted.exp() * (wanted - found), 0.0).sum(-1)[masked]
    flat = torch.where(wanted > -torch.inf, wanted.exp() * (wanted + math.log(3)), 0.0).sum(-1)[masked]
    assert float(gap.mean()) < 0.03 < 0.1 < float(flat.mean())  # nats; the other number is of equal probabilities
    assert abs(trained.held_out[-1][1] - ENTROPY / 3) < 6 * trained.held_out[-1][2]


def test_labels_reach_the_network_and_are_dropped():
    seen = []

    def network(tokens, t, label):
        seen.append(label)
        return torch.zeros(*tokens.shape, 3)

    labels = torch.arange(5000) % 4
    TokenDenoising(Masked(3), drop=0.5)(network, Rng(0), (draws(5000), labels))  # type: ignore[arg-type]
    hidden = seen[0] < 0
    assert abs(float(hidden.double().mean()) - 0.5) < 4.9 * 0.5 / math.sqrt(5000)
    assert torch.equal(seen[0][~hidden], labels[~hidden])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownName, match="weighting"):
        TokenDenoising(Masked(3), weighting="elbo")
    with pytest.raises(ValueError, match="needs a process with a mask"):
        TokenDenoising(Uniform(3), weighting="bound")
    with pytest.raises(ShapeError, match=r"lie in -1\.\.2"):
        network = build(lambda: SequenceNetwork(3, channels=8), seed=Rng(0))
        train_discrete(network, torch.full((10, 3), 3), Masked(3), progress=False)
