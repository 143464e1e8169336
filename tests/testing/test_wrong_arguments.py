"""What no check can check is refused in words: what the argument must be, and what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from motes.core import Transition
from motes.errors import ShapeError, UnknownName, WrongType
from motes.kernels import RandomWalk
from motes.language.rules import top_k
from motes.testing import LawViolation, check_kernel, check_model, check_rule, check_scheme, check_transition

F64 = torch.float64
STATE = torch.zeros(3, 2, dtype=F64)


class Walk(Transition):
    """x' = x + noise / 2; what a method returns is made another type by what is given for it."""

    def __init__(self, mean: Any = Tensor.double, deviation: Any = Tensor.double, density: Any = Tensor.double):
        self.given = mean, deviation, density

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        return self.given[0](state)

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return self.given[1](torch.full_like(state, 0.5))

    def log_density(self, new: Tensor, state: Tensor, condition: Any = None) -> Tensor:
        return self.given[2](super().log_density(new, state, condition))


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: check_scheme(torch.multinomial), WrongType, r"give a name, or Scheme\(name, function, variance\)"),  # type: ignore[arg-type]
    (lambda: check_scheme(None), WrongType, "None is no resampling scheme, nor the name of one; there are: killing"),  # type: ignore[arg-type]
    (lambda: check_scheme("systemtic"), UnknownName, "perhaps you meant 'systematic'"),
    (lambda: check_rule(top_k(2), target=0.0), WrongType, "target must be None or a function of a text"),  # type: ignore[arg-type]
    (lambda: check_rule("top_k"), WrongType, r"rule must be .* such as motes.language.top_k\(2\), not 'top_k'"),  # type: ignore[arg-type]
    (lambda: check_rule(top_k(2), model="gpt2"), WrongType, "model must be None or a motes.language.TableModel"),  # type: ignore[arg-type]
    (lambda: check_rule(top_k(2), max_tokens=0), WrongType, "max_tokens must be a whole number of at least 1, not 0"),
    (lambda: check_rule(top_k(2), max_tokens=1.5), WrongType, "max_tokens must be a whole number"),  # type: ignore[arg-type]
    (lambda: check_kernel(RandomWalk), WrongType, r"kernel must be an instance of .*, such as RandomWalk\(\), not <cl"),  # type: ignore[arg-type]
    (lambda: check_kernel(RandomWalk(), on=3), WrongType, "on must be None, a motes.testing.ExactLaw"),  # type: ignore[arg-type]
    (lambda: check_kernel(RandomWalk(), n=0), WrongType, "n must be a whole number of at least 2, not 0"),
    (lambda: check_kernel(RandomWalk(), laws="moves"), WrongType, r"a list of names, as \['address'\], not 'moves'"),
    (lambda: check_kernel(RandomWalk(), parameters=3), WrongType, "parameters must be None or a dict"),  # type: ignore[arg-type]
    (lambda: check_model("coins"), WrongType, "a model to sample is a FeynmanKac, and this is a str"),  # type: ignore[arg-type]
    (lambda: check_transition(Walk(), 3), WrongType, r"state must be a tensor \(N, \.\.\.\), not 3"),  # type: ignore[arg-type]
    (lambda: check_transition(Walk(), STATE[:0]), ShapeError, r"hold numbers, not \(0, 2\) torch.float64"),
    (lambda: check_transition(Walk(), STATE.long()), ShapeError, "must be .* float32 or float64 .* torch.int64"),
    (lambda: check_transition(Walk(mean=Tensor.float), STATE), LawViolation, "means are torch.float32, not torch.fl"),
    (lambda: check_transition(Walk(deviation=Tensor.float), STATE), LawViolation, "deviations are torch.float32"),
    (
        lambda: check_transition(Walk(density=Tensor.float), STATE),
        LawViolation,
        r"log-densities are \(3,\) torch.float32",
    ),
    (lambda: check_transition(Walk(density=lambda v: 0.0), STATE), LawViolation, "log-densities are a float"),
]


@pytest.mark.parametrize(("call", "error", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_argument_is_named(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_one_number_for_all_may_be_of_any_type() -> None:
    half = Walk(deviation=lambda _: torch.tensor(0.5))
    assert check_transition(half, STATE).keys() == check_transition(Walk(), STATE).keys()
