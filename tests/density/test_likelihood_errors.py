"""What a log-likelihood raises is quoted as it is at one point, and one that is no function of its point is refused."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import HalfNormal, Normal

import motes
from motes.errors import MotesError, NanLogPotential
from motes.laws import Density
from motes.laws.explaining import cleaned

PRIOR = {"a": Normal(0.0, 1.0), "b": Normal(0.0, 1.0)}
Y = motes.Rng(0).at("data").normal((20,))


def said(log_likelihood, vectorised=None) -> str:
    with pytest.raises(MotesError) as caught:
        Density(log_likelihood, PRIOR, vectorised=vectorised)
    return str(caught.value)


def test_one_written_for_a_point_that_is_said_to_take_a_batch():
    text = said(lambda p: Normal(p["a"], p["b"].exp()).log_prob(Y).sum(), vectorised=True)
    assert "called with 4 points at once: it raised ValueError" in text and "vectorised=False" in text
    text = said(lambda p: (-((Y - p["a"]) ** 2)).sum(), vectorised=True)
    assert "RuntimeError: The size of tensor" in text and "vectorised=False" in text
    text = said(lambda p: p["a"][:, None].sum(-1), vectorised=False)
    assert "with one point: it raised IndexError: too many indices" in text


@pytest.mark.parametrize("vectorised", [None, True])
def test_numpy_in_a_likelihood(vectorised):
    text = said(lambda p: torch.as_tensor(-0.5 * p["a"].numpy() ** 2), vectorised)
    assert "Can't call numpy()" in text and "detach().numpy()" in text and "RandomWalk" in text
    with_none = Density(lambda p: torch.as_tensor(-0.5 * p["a"].detach().numpy() ** 2), PRIOR, vectorised=True)
    assert not with_none.differentiable


@pytest.mark.parametrize("vectorised", [None, True, False])
def test_a_branch_on_a_parameter_names_where_and_no_issue_of_pytorch(vectorised):
    text = said(lambda p: -(p["a"] ** 2) if p["a"] > 0 else -2 * p["a"] ** 2, vectorised)
    assert "torch.where(condition, a, b)" in text and "file an issue" not in text


def test_a_scale_that_is_negative_is_quoted_as_the_distribution_says_it():
    density = Density(lambda p: Normal(p["a"], p["b"]).log_prob(Y).sum(), {"a": PRIOR["a"], "b": Normal(3.0, 1.0)})
    with pytest.raises(NanLogPotential, match=r"raises ValueError \(Expected parameter scale") as caught:
        density.evaluate(torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=torch.float64))
    assert "vmap" not in str(caught.value) and "particle [1]" in str(caught.value)
    text = said(lambda p: Normal(p["a"], -p["b"].exp()).log_prob(Y).sum())
    assert "with 1 point: it raised ValueError: Expected parameter scale" in text and "a negative scale" in text
    assert "vmap" not in text and "must map a batch" not in text


@pytest.mark.parametrize("vectorised", [None, False])
def test_nan_in_the_data_is_no_matter_of_shapes(vectorised):
    data = Y.clone()
    data[3] = torch.nan
    text = said(lambda p: Normal(p["a"], p["b"].exp()).log_prob(data).sum(), vectorised)
    assert "look for nan in the data" in text.lower() and "must map a batch" not in text and "vmap" not in text


def test_an_error_that_no_point_is_to_blame_for_is_wrapped_in_a_run_too():
    calls = []

    def fails(p):
        calls.append(len(p["a"]))
        if len(calls) > 20:
            raise RuntimeError("the licence server is gone")
        return -(p["a"] ** 2) - p["b"] ** 2

    model = motes.Tempering(Density(fails, PRIOR, vectorised=True))
    with pytest.raises(MotesError, match=r"log_likelihood was called with \d+ points at once: .*licence") as caught:
        for seed in range(20):
            motes.sample(model, 32, seed=seed, progress=False)
    assert type(caught.value.__cause__) is RuntimeError


def test_what_pytorch_asks_its_own_users_is_left_out():
    text = cleaned(
        RuntimeError("vmap: no. If error is occurring somewhere inside PyTorch internals, please file a bug.")
    )
    assert text == "it raised RuntimeError: vmap: no"


# ------------------------------------------------------------------------------------------ a function of the point


@pytest.mark.parametrize(
    "broken, word",
    [
        (lambda p: -((p["a"] - p["a"].mean()) ** 2), "other points are in the batch"),
        (lambda p: -(p["a"] ** 2) / p["a"].abs().amax(), "other points are in the batch"),
        (lambda p: -(p["a"] ** 2) + 1e-3 * torch.arange(len(p["a"])), "other points are in the batch"),
        (lambda p: -(p["a"] ** 2) + 0.1 * motes.Rng(next(COUNT)).normal((len(p["a"]),)), "at another call"),
    ],
)
def test_a_value_that_depends_on_the_batch_or_the_call_is_refused(broken, word):
    assert word in said(broken, vectorised=True)


COUNT = iter(range(1000))


def test_a_mean_over_points_is_not_taken_for_a_function_of_one():
    """A mean of one number is the number, so that such a function was batched to a constant."""
    assert "changes with the others" in said(lambda p: -((p["a"] - p["a"].mean()) ** 2))
    one = Density(lambda p: -((p["a"] - p["a"].mean()) ** 2) + p["b"], PRIOR, vectorised=False)
    assert one.evaluate(torch.ones(2, 2, dtype=torch.float64))["log_likelihood"].tolist() == [1.0, 1.0]
    vector = Density(lambda x: -((x - x.mean(0)) ** 2).sum(-1), Normal(torch.zeros(3), 1.0))
    assert vector.evaluate(torch.ones(2, 3, dtype=torch.float64))["log_likelihood"].tolist() == [0.0, 0.0]


def test_whole_numbers_are_held_to_it_too():
    from motes.laws import Discrete

    with pytest.raises(MotesError, match="log_density has another value at a point when"):
        Discrete(lambda x: (x - x.mean(0)).sum(-1), 4)
    assert Discrete(lambda x: x.sum(-1), 4).dim == 4


def test_plain_functions_pass_in_either_precision_and_cost_one_call_more():
    sizes = []

    def plain(p):
        sizes.append(len(p["a"]))
        return (1e4 * (torch.stack([p["a"], p["b"]], -1).float() @ torch.ones(2, 50)) ** 2).sum(-1) * -1.0

    for dtype in (torch.float64, torch.float32):
        sizes.clear()
        with pytest.warns(UserWarning) if dtype == torch.float64 else _nothing():
            Density(plain, PRIOR, vectorised=True, dtype=dtype)
        assert sizes == [4, 2]
    sometimes = Density(
        lambda p: torch.where(p["a"] > 0, -p["b"], -torch.inf),
        {"a": Normal(0.0, 1.0), "b": HalfNormal(1.0)},
        vectorised=True,
    )
    assert sometimes.differentiable


def _nothing():
    from contextlib import nullcontext

    return nullcontext()
