"""Wherever a string names a thing, a slip is answered by the names that are near, and by all that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import motes
from motes.density import Chains, CrossEntropy, DataAnnealing, EnsembleKalman, GaussianData, PersistentSampling
from motes.diffusion import AdaptiveReward, ReverseDiffusion, VariancePreserving, gaussian
from motes.errors import MotesError, UnknownName
from motes.kernels import HMC, NUTS, GibbsWithGradients, Slice
from motes.language import Generation, TableModel

DENSITY = motes.Density(lambda v: -v["x"].square(), {"x": torch.distributions.Normal(0.0, 1.0)}, vectorised=True)
PRIOR = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
DATA = GaussianData(lambda x: x, torch.zeros(1, dtype=torch.float64), 1.0)
BLOB = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
TABLE = TableModel(["a", "b", "."], torch.zeros(4, 3).log_softmax(-1))


def steered(kind: Any, guidance: str) -> Any:
    return kind(BLOB, steps=4, shape=(1,), reward=lambda x: x[:, 0], guidance=guidance)


SLIPS: list[tuple[Callable[[], Any], str]] = [
    (lambda: steered(ReverseDiffusion, "rewrad"), "reward"),
    (lambda: steered(AdaptiveReward, "rewrad"), "reward"),
    (lambda: Generation(TABLE, "", rules="top_l(3)"), "top_k"),
    (lambda: Generation(TABLE, "", anneal="es"), "ess"),
    (lambda: motes.Tempering(DENSITY, kernel="hmcc"), "hmc"),
    (lambda: motes.sample(motes.Tempering(DENSITY), 8, seed=0, resampling="sistematic"), "systematic"),
    (lambda: NUTS(scale="dens"), "dense"),
    (lambda: Slice(directions="axis"), "axes"),
    (lambda: GibbsWithGradients(balance="baker"), "barker"),
    (lambda: EnsembleKalman(motes.Density(DATA, PRIOR), DATA, form="transfrom"), "transform"),
    (lambda: EnsembleKalman(motes.Density(DATA, PRIOR), DATA, correct="wiegh"), "weigh"),
    (lambda: CrossEntropy(DENSITY, family="diagnal"), "diagonal"),
]


@pytest.mark.parametrize(("call", "near"), SLIPS, ids=[near for _, near in SLIPS])
def test_a_slip_is_answered_by_what_is_near(call: Callable[[], Any], near: str) -> None:
    with pytest.raises(UnknownName, match=f"perhaps you meant '{near}'; there are: "):
        call()


AUTO: list[Callable[[], Any]] = [
    lambda: Chains(DENSITY, warmup="atuo"),
    lambda: Chains(DENSITY, thin="atuo"),
    lambda: EnsembleKalman(motes.Density(DATA, PRIOR), DATA, steps="atuo"),
    lambda: PersistentSampling(DENSITY, sweeps="atuo"),
    lambda: DataAnnealing(
        lambda v, y: y - v["x"], torch.zeros(3), {"x": torch.distributions.Normal(0.0, 1.0)}, sweeps="atuo"
    ),
]


@pytest.mark.parametrize("call", AUTO, ids=range(len(AUTO)))
def test_auto_may_be_misspelt(call: Callable[[], Any]) -> None:
    with pytest.raises(MotesError, match=r"auto.*atuo"):
        call()


def test_a_class_is_no_kernel_yet() -> None:
    with pytest.raises(motes.MotesError, match=r"give an instance, HMC\(\.\.\.\); there are"):
        motes.Tempering(DENSITY, kernel=HMC)  # type: ignore[arg-type]
