"""A resampling scheme that is passed as an object is the one that resamples, also after a resumption."""

from __future__ import annotations

import pytest
import torch

import motes
from core.toys import Walk, data
from motes.core.resampling import Scheme, find_scheme
from motes.errors import FileError, MotesError


def first(rng, log_weight, n):
    """The first particle is the parent of all: wrong, and easy to see."""
    return torch.zeros(n, dtype=torch.int64)


def multinomial(rng, log_weight, n):
    return find_scheme("multinomial").function(rng, log_weight, n)


MINE = Scheme("mine", multinomial, variance="chan_lai")


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_object_is_used_and_not_what_has_its_name(replicas):
    knobs = {"seed": 0, "progress": False, "replicas": replicas, "ess_threshold": 1.0}
    run = motes.sample(Walk(data(6)), 100, resampling=MINE, **knobs)
    assert run.log_evidence == motes.sample(Walk(data(6)), 100, resampling="multinomial", **knobs).log_evidence
    one = motes.sample(Walk(data(6)), 100, resampling=Scheme("one", first, variance=None), **knobs)
    assert one.log_evidence != run.log_evidence
    with pytest.raises(MotesError, match="another resampling scheme is called 'systematic'"):
        motes.sample(Walk(data(6)), 100, resampling=Scheme("systematic", first, variance=None), **knobs)
    with pytest.raises(MotesError, match="variance must be"):
        Scheme("typo", first, variance="chan_lei")  # type: ignore[arg-type]


def test_a_run_is_resumed_with_the_scheme_that_began_it(tmp_path):
    path, model = tmp_path / "run", Walk(data(6))
    knobs = {"seed": 1, "progress": False, "resampling": MINE, "ess_threshold": 1.0}
    whole = motes.sample(model, 50, **knobs)
    motes.sample(model, 50, checkpoint=path, max_steps=3, **knobs)
    with pytest.raises(FileError, match="resampled by 'mine'"):
        motes.resume(path, model, progress=False)
    with pytest.raises(FileError, match="resampled by 'mine'"):
        motes.resume(path, model, resampling=Scheme("other", first, variance=None), progress=False)
    assert motes.resume(path, model, resampling=MINE, progress=False).log_evidence == whole.log_evidence
