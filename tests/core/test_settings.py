"""Settings: what identifies a model, as JSON."""

import json
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from motes.core.files.settings import described, digest, knobs, short


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Knob:
    scale: float
    data: torch.Tensor
    inner: Any = None
    learnt: int = field(default=3, init=False)


class Own:
    def settings(self) -> dict[str, int]:
        return {"own": 1}


class Judge:
    """Has no knobs that anybody could see."""


@pytest.mark.parametrize(
    "value, want",
    [
        (None, None),
        (3, 3),
        (float("inf"), "inf"),
        (np.float64(0.5), 0.5),
        ((1, [2.0]), [1, [2.0]]),
        ({3: "a"}, {"3": "a"}),
        (b"a", "61"),
        (torch.float32, "torch.float32"),
        (torch.device("cpu"), "cpu"),
        (Colour.RED, "red"),
        (Own(), {"own": 1}),
        (Own, "Own"),
        (described, "function"),
        (partial(described), "function"),
        (Judge(), {"name": "Judge"}),
    ],
)
def test_values(value: Any, want: Any) -> None:
    assert described(value) == want
    assert json.loads(json.dumps(described(value))) == want


def test_a_dataclass_is_what_it_was_made_with() -> None:
    one = Knob(2.0, torch.arange(3), Knob(1.0, torch.zeros(0)))
    assert list(knobs(one)) == ["scale", "data", "inner"]
    assert described(one)["name"] == "Knob" and described(one)["inner"]["scale"] == 1.0
    assert described(one) == described(Knob(2.0, torch.arange(3), Knob(1.0, torch.zeros(0))))
    assert described(one) != described(Knob(2.0, torch.arange(3) + 1, Knob(1.0, torch.zeros(0))))


def test_tensors_are_told_apart_by_value_type_and_shape() -> None:
    x = torch.arange(6.0)
    others = [x + 1e-6, x.double(), x.view(2, 3), x.bfloat16(), torch.zeros(0)]
    assert len({digest(x), *map(digest, others)}) == 6
    assert digest(x) == digest(x.clone()) == described(x.numpy())
    assert digest(x.view(2, 3).T) == digest(x.view(2, 3).T.contiguous())
    assert short([x]) == short([x.clone()]) != short([x + 1])
