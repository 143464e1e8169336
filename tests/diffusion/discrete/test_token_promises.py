"""Samplers of tokens keep the promises: cuts, shards, interruptions, errors that say why."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import motes
from motes import Rng
from motes.core import tree
from motes.diffusion.discrete import (
    Masked,
    Ordered,
    Posterior,
    Rates,
    Remask,
    ReverseDiscrete,
    Routed,
    TauLeap,
    TokenModel,
    Uniform,
    joint,
)
from motes.errors import MotesWarning, NanLogPotential, ShapeError, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
TABLE = torch.softmax(1.2 * Rng(2).at("table").normal((81,)), 0).reshape(3, 3, 3, 3)
RULES = [(Masked(3), Posterior()), (Masked(3), Ordered("margin", temperature=0.3)), (Masked(3), Remask(0.4))]
RULES += [
    (Masked(3), Routed(True, temperature=0.2)),
    (Uniform(3, t_min=0.02), TauLeap()),
    (Rates(torch.ones(4, 4), mask=True), Posterior()),
]
NAMES = ["posterior", "ordered", "remask", "routed", "tau", "rates"]


class Cutoff(Exception):
    """The run is interrupted here."""


def reward(x):
    return 0.6 * (x == 1).sum(1) - 0.2 * x[:, 0]


def made(process=RULES[0][0], rule=RULES[0][1], model=None, reward=reward, guidance: Any = "reward", **kwargs):
    steps = kwargs.pop("steps", 4)
    model = joint(process, TABLE) if model is None else model
    return ReverseDiscrete(
        model, steps, reward=reward, guidance=guidance, rule=rule, **{"schedule": "linear", **kwargs}
    )


def run(model, n=12, seed=4, **kwargs):
    return motes.sample(model, n, seed=seed, ess_threshold=0.9, progress=False, **kwargs)


def same(a, b):
    return tree.equal(a.particles.x, b.particles.x) and torch.equal(a.log_weight, b.log_weight)


@pytest.mark.parametrize(("process", "rule"), RULES, ids=NAMES)
def test_seeds_cuts_and_shards(process, rule):
    whole = run(made(process, rule, completions=2))
    assert same(run(made(process, rule, completions=2)), whole)
    assert not same(run(made(process, rule, completions=2), seed=5), whole)
    exact = joint(process, TABLE)
    rows = lambda x, t: torch.stack([exact.model(x[i : i + 1], t[i : i + 1])[0] for i in range(len(x))])  # noqa: E731
    byrow = [TokenModel(rows, process, 4, micro_batch=size) for size in (1, 5, 12)]
    runs = [run(made(process, rule, model=m)) for m in byrow]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    model, rng = made(process, rule, model=byrow[0]), Rng(11)
    particles = model.init(rng.at("init", step=0), 12)
    ids = torch.tensor([9, 2, 5])
    part = model.init(rng.shard(ids).at("init", step=0), 3)
    for _ in range(4):
        particles = model.step(rng.at("step", step=particles.t + 1), particles)
        part = model.step(rng.shard(ids).at("step", step=part.t + 1), part)
    assert tree.equal(part.x, tree.take(particles.x, ids)) and torch.equal(part.log_weight, particles.log_weight[ids])


@pytest.mark.parametrize(("process", "rule"), RULES, ids=NAMES)
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, process, rule):
    def interrupt(state):
        if state.particles.t == 2:
            raise Cutoff

    path, whole = tmp_path / "run.safetensors", run(made(process, rule))
    with pytest.raises(Cutoff):
        run(made(process, rule), checkpoint=path, callback=interrupt)
    with pytest.raises(motes.MotesError, match=r"the reward.* is not what it was"):
        motes.resume(path, made(process, rule, reward=lambda x: 1.5 * reward(x)), progress=False)
    resumed = motes.resume(path, made(process, rule), progress=False)
    assert same(resumed, whole) and resumed.log_evidence == whole.log_evidence


def test_another_model_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run(made(), checkpoint=path, callback=lambda state: state.particles.t == 2)
    with pytest.raises(motes.MotesError, match=r"prediction.* is not what it was"):
        motes.resume(path, made(model=joint(Masked(3), TABLE.flip(0))), progress=False)
    with pytest.raises(motes.MotesError, match="rule"):
        motes.resume(path, made(rule=Remask(0.2)), progress=False)


def test_settings_view_trace_and_sources():
    model = made(rule=Ordered("entropy"), given=torch.tensor([1, -1, -1, -1]), steps=3)
    assert json.loads(json.dumps(model.settings())) == model.settings()
    r = run(model)
    assert r.view.shape == (12, 4) and int(r.view.min()) >= 0 and bool((r.view[:, 0] == 1).all())
    assert torch.equal(r.particles.x["reward"], reward(r.view).double())
    assert r.trace["masked"][0] == 0.75 and r.trace["masked"][-1] == 0
    assert all(name in motes.cite(r, style="text") for name in ("Uria", "Singhal", "Nisonoff"))
    assert "Singhal" not in motes.cite(run(made(reward=None, guidance=None)), style="text")


def test_a_chain_with_an_error_says_so():
    with pytest.warns(MotesWarning, match="at once"):
        run(made())


def test_the_model_is_asked_once_a_step_and_the_reward_only_where_it_counts():
    process, asked, rewards = Masked(3), [], []
    exact = joint(process, TABLE)

    def counted(x, t):
        asked.append(len(x))
        return exact.model(x, t)

    def late(x):
        rewards.append(len(x))
        return reward(x)

    run(made(process, model=TokenModel(counted, process, 4), reward=late, guidance=None, schedule="end"))
    assert asked == [12] * 4 and rewards == [4, 12]  # four fixed sequences by which a resumed run knows its reward


def test_a_reward_may_exclude_sequences_at_the_end():
    def no_ones(x):
        return torch.where((x == 1).any(1), -math.inf, 0.0)

    process = Masked(3)
    for guidance in (None, "reward"):
        model = made(process, Ordered(), reward=no_ones, guidance=guidance, schedule="end")
        r = run(model, n=4000)
        exact = float(torch.log(TABLE[::2, ::2, ::2, ::2].sum()))
        assert abs(r.log_evidence - exact) < 0.2
        assert not bool((r.view[r.log_weight > -math.inf] == 1).any())
    with pytest.raises(NanLogPotential, match="-inf"):
        run(made(process, reward=no_ones, guidance=None, schedule="constant"))


def test_what_is_refused():
    with pytest.raises(ValueError, match="Masked"):
        made(Uniform(3), Remask())
    with pytest.raises(ValueError, match="masked models only"):
        made(Uniform(3), given=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="all tokens"):
        made(given=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ShapeError, match="given"):
        made(given=torch.full((3,), -1))
    with pytest.raises(UnknownName, match="order"):
        Ordered("size")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="potential"):
        made(potential="mean")
    with pytest.raises(UnknownName, match="guidance"):
        made(guidance="gradient")
    with pytest.raises(ValueError, match="falling"):
        made(steps=torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="need the reward"):
        made(reward=None)
    with pytest.raises(ValueError, match="eta"):
        Remask(1.2)
    with pytest.raises(TypeError, match="TokenModel"):
        made(model=lambda x, t: x)
    with pytest.raises(NanLogPotential, match=r"particles \[0, 1, 2"):
        run(made(reward=lambda x: torch.full((len(x),), math.nan), guidance=None), n=3)
    with pytest.raises(NanLogPotential, match="guidance"):
        run(made(guidance=lambda x, t: torch.full((*x.shape, 3), math.inf)))
    with pytest.raises(ShapeError, match="tilts"):
        run(made(guidance=lambda x, t: x))
