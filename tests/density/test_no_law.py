"""What is no law is refused where a sampler is made, with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

import motes
from motes.density import (
    AMIS,
    AnnealedImportanceSampling,
    CrossEntropy,
    Follmer,
    NestedSampling,
    ParallelTempering,
    PersistentSampling,
    WasteFree,
)
from motes.errors import WrongType

SAMPLERS: list[Any] = [motes.Tempering, motes.Chains, NestedSampling, WasteFree, PersistentSampling, ParallelTempering]
SAMPLERS += [AMIS, AnnealedImportanceSampling, CrossEntropy, Follmer]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_function_a_dict_and_a_class_are_no_laws(sampler):
    for wrong, said in (
        (lambda x: x, "wrap it with its prior"),
        ({}, "a dict"),
        (motes.Density, "class Density itself"),
    ):
        with pytest.raises(WrongType, match=said):
            sampler(wrong)


def test_a_class_is_no_model():
    with pytest.raises(WrongType, match="the class Tempering itself"):
        motes.sample(motes.Tempering, 64, seed=0)  # type: ignore[arg-type]
