"""A file whose particles are not the model's own is refused as such; a model that fails is not blamed on the file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

import motes
from motes.core.files.resuming import must_agree, on_device
from motes.errors import FileError


def model() -> motes.Tempering:
    zero = torch.zeros((), dtype=torch.float64)
    return motes.Tempering(motes.Density(lambda p: -8 * (p["a"] - 1) ** 2, {"a": Normal(zero, 1.0)}, vectorised=True))


@pytest.fixture
def run() -> motes.Run:
    return motes.sample(model(), 32, seed=2, max_steps=1, progress=False)


def without(tree: dict, key: str) -> dict:
    return {k: v for k, v in tree.items() if k != key}


CHANGES = {
    "no position": lambda p: replace(p, x=without(p.x, "position")),
    "no weights of the likelihood": lambda p: replace(p, x=without(p.x, "log_likelihood")),
    "no gradient": lambda p: replace(p, x=without(p.x, "likelihood_gradient")),
    "x is one tensor": lambda p: replace(p, x=p.x["position"]),
    "x is a tuple": lambda p: replace(p, x=tuple(p.x.values())),
    "another dimension": lambda p: replace(p, x={**p.x, "position": p.x["position"].repeat(1, 3)}),
    "whole numbers": lambda p: replace(p, x={**p.x, "position": p.x["position"].long()}),
    "no temperature": lambda p: replace(p, shared=without(p.shared, "temperature")),
    "a word as temperature": lambda p: replace(p, shared={**p.shared, "temperature": "warm"}),
    "no kernel": lambda p: replace(p, shared=without(p.shared, "kernel")),
    "a kernel of words": lambda p: replace(p, shared={**p.shared, "kernel": ["a"]}),
    "nothing shared": lambda p: replace(p, shared=None),
    "a ladder of numbers": lambda p: replace(p, shared={**p.shared, "ladder": 3.0}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_model_did_not_save_is_refused(change, run, tmp_path):
    path = replace(run, particles=CHANGES[change](run.particles)).save(tmp_path / "run")
    with pytest.raises(FileError):
        motes.resume(path, model(), progress=False)


def test_a_model_that_fails_after_it_was_resumed_fails_as_it_does(run, tmp_path):
    class Fails(motes.Tempering):
        def step(self, rng, particles):
            raise KeyError("mine")

    path = replace(run, setup={**run.setup, "model": "Fails"}).save(tmp_path / "run")
    with pytest.raises(KeyError, match="mine"):
        motes.resume(path, Fails(model().density), progress=False)


def test_what_a_model_says_is_compared_within_the_last_bits() -> None:
    then = torch.tensor([1.0, -torch.inf, torch.nan, 4.0], dtype=torch.float64)
    must_agree("reward", (then * (1 + 9e-4)).float(), then, "it")
    must_agree("law", then.reshape(2, 2), then.reshape(2, 2), "it", rows=False)
    with pytest.raises(FileError, match="the reward of particle 0 was"):
        must_agree("reward", then * (1 + 9e-4), then, "it", rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("now", "rows", "says"),
    [
        ([1.0, 2.5, 3.0], True, "the log-prior of particle 1 was 2 when the run was saved and is 2.5 now: resume with"),
        ([1.0, 2.5, 9.0], True, r"is 2.5 now \(that of 1 more has changed too\): resume with the prior"),
        ([[1.0], [2.0], [9.0]], True, r"the log-prior of particle \[2\] is not what it was when the run was saved"),
        ([1.0, 2.5, 3.0], False, "the log-prior is not what it was when the run was saved: resume with the prior"),
        ([1.0, 2.0], True, "the log-prior is not what it was"),
    ],
)
def test_what_a_model_says_otherwise_is_named(now, rows, says) -> None:
    now = torch.tensor(now)
    then = torch.tensor([1.0, 2.0, 3.0]).reshape(-1, *now.shape[1:])
    with pytest.raises(FileError, match=says):
        must_agree("log_prior", now, then, "the prior", rows=rows)
    with pytest.raises(FileError, match="is not what it was"):
        must_agree("log_prior", now, None, "the prior", rows=rows)


def test_named_leaves_go_to_the_device_at_any_depth() -> None:
    one = torch.ones(2)
    x = on_device({"state": one, "reward": one, "plain": {"state": one, "token": one}}, ("state",), "meta")
    assert x["state"].is_meta and x["plain"]["state"].is_meta
    assert x["reward"] is one and x["plain"]["token"] is one
