"""No call of motes.rng may touch anyone else's generator: checked around every test of this folder."""

import random

import numpy as np
import pytest
import torch


def _global_states() -> tuple[object, ...]:
    kind, words, *rest = np.random.get_state()  # noqa: NPY002 (it is this one that must not move)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), (kind, words.tobytes(), *rest)


@pytest.fixture(autouse=True)
def global_generators_are_untouched():
    before = _global_states()
    yield
    assert _global_states() == before
